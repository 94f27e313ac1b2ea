"""One object of a class as the target of a dense model: regions against scikit-image, maps against other definitions of the same target."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients as CaptumIntegratedGradients
from heatlas.engine.methods.registry import make_explainer, settings_class, usable_methods
from heatlas.engine.scoring.confidence import DICE, SEGMENTATION, SOFTMAX, scene_of
from heatlas.engine.scoring.object_scenes import ObjectTarget, connected_regions, object_scene, object_truth, resized_to
from heatlas.engine.scoring.scoring_options import Scoring
from heatlas.engine.session import ExplainSession
from heatlas.errors import TargetError
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import SemanticSegmentationTarget
from skimage.measure import label
from torch import Tensor, nn

SIZE = (16, 20)
DENSE = Scoring(batch_size=8, confidence=DICE)
SMALL = {
    "rise": {"masks": 60, "grid": 5},
    "occlusion": {"positions": 5},
    "lima": {"grid": 3},
    "expected_gradients": {"samples": 6},
}
TELLS_PLACES = ("layer_cam", "rise", "occlusion", "lima", "integrated_gradients", "expected_gradients")
METHODS = [name for name, method in usable_methods().items() if method.dense and not method.classless]


class Colours(nn.Module):
    """Background, red, green and blue at half the resolution; enlarged unless it is left coarse. A layer whose maps differ from place to place."""

    def __init__(self, coarse: bool = False):
        super().__init__()
        torch.manual_seed(0)
        self.low, self.high, self.head = (
            nn.Conv2d(3, 6, 3, padding=1),
            nn.Conv2d(6, 8, 3, padding=1),
            nn.Conv2d(8, 4, 1),
        )
        self.coarse = coarse
        with torch.no_grad():
            for conv in (self.low, self.high):
                conv.weight.mul_(0.1)
                conv.weight[[0, 1, 2], [0, 1, 2], 1, 1] = 1.0
            self.head.weight.mul_(0.2)
            self.head.weight[[1, 2, 3], [0, 1, 2]] = 6.0
            self.head.bias.copy_(torch.tensor([1.5, 0.0, 0.0, 0.0]))

    def forward(self, images: Tensor) -> Tensor:
        maps = nn.functional.max_pool2d(torch.relu(self.low(images)), 2)
        logits = self.head(torch.relu(self.high(maps)))
        if self.coarse:
            return logits
        return nn.functional.interpolate(logits, images.shape[2:], mode="bilinear", align_corners=False)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return Colours().eval()


@pytest.fixture(scope="module")
def image() -> Tensor:
    """Two red objects, the larger upper left, and a blue one."""
    image = torch.zeros(3, *SIZE)
    image[0, 1:8, 1:8] = 1.0
    image[0, 10:15, 13:18] = 0.8
    image[2, 10:14, 2:6] = 1.0
    return image


def masks_of(mask: Tensor) -> list[Tensor]:
    regions = connected_regions(mask)
    return [regions.mask(place) for place in range(len(regions))]


def objects(model: nn.Module, image: Tensor, target: int = 1) -> list[ObjectTarget]:
    with torch.no_grad():
        scene = scene_of(model(image[None]))
    return [ObjectTarget(target, f"{number:03d}", region) for number, region in enumerate(masks_of(scene == target), 1)]


def test_regions_are_those_of_scikit_image_the_largest_first() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        mask = random.random((9, 13)) > 0.6
        regions = [region.numpy() for region in masks_of(torch.from_numpy(mask))]
        peer = label(mask, connectivity=2)
        sizes = [int(region.sum()) for region in regions]
        assert sizes == sorted(np.bincount(peer.ravel())[1:].tolist(), reverse=True)
        for region in regions:
            numbers = np.unique(peer[region])
            assert len(numbers) == 1
            assert np.array_equal(peer == numbers[0], region)
        assert list(connected_regions(torch.from_numpy(mask)).sizes) == sizes
    assert len(connected_regions(torch.zeros(3, 3, dtype=torch.bool))) == 0


def test_an_object_is_its_class_and_survives_copies() -> None:
    target = ObjectTarget(2, "001", torch.eye(3, dtype=torch.bool))
    assert target == 2
    assert {target: 1}[2] == 1
    assert type(int(target)) is int
    for other in (copy.deepcopy(target), pickle.loads(pickle.dumps(target))):
        assert (other, other.object_id) == (2, "001")
        assert torch.equal(other.region, target.region)


def test_a_scene_keeps_one_object_of_the_class() -> None:
    scene = torch.tensor([[1, 0, 1], [1, 2, 1]], dtype=torch.int16)
    region = torch.tensor([[True, False, False], [True, False, False]])
    assert object_scene(scene, ObjectTarget(1, "001", region)).tolist() == [[1, 0, -1], [1, 2, -1]]
    assert object_scene(scene, 1) is scene
    with pytest.raises(TargetError, match="found in an output of"):
        object_scene(scene, ObjectTarget(1, "001", torch.ones(4, 4, dtype=torch.bool)))


def test_pixels_of_another_size_take_the_value_under_their_centre() -> None:
    small = torch.arange(6).reshape(2, 3)
    assert resized_to(small, torch.zeros(4, 6)).tolist() == np.kron(small.numpy(), np.ones((2, 2), int)).tolist()
    assert resized_to(resized_to(small, torch.zeros(6, 9)), small).tolist() == small.tolist()


def test_ground_truth_of_an_object_is_what_touches_it() -> None:
    truth = torch.zeros(6, 8, dtype=torch.bool)
    truth[0:2, 0:3] = truth[4:6, 5:8] = True
    region = torch.zeros(3, 4, dtype=torch.bool)
    region[0, 1] = True  # rows 0 and 1, columns 2 and 3 at full size
    own = object_truth(truth, ObjectTarget(1, "001", region))
    assert own.sum() == 6
    assert own[:2, :3].all()
    assert torch.equal(object_truth(truth, 1), truth)
    region = torch.zeros(3, 4, dtype=torch.bool)
    region[1, 0] = True
    assert not object_truth(truth, ObjectTarget(1, "001", region)).any()


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("confidence", [DICE, SEGMENTATION], ids=["dice", "segmentation"])
def test_every_method_points_to_the_object_that_was_asked_for(
    name: str, confidence, model: nn.Module, image: Tensor
) -> None:
    explainer = make_explainer(
        name, model, settings_class(name)(**SMALL.get(name, {})), Scoring(batch_size=8, confidence=confidence)
    )
    both = objects(model, image)
    assert len(both) == 2
    results = explainer.explain(torch.stack([image] * 3), [*both, 1], seeds=[0, 0, 0])
    assert results.statuses == ["ok"] * 3, results.errors
    for row, target in enumerate(both):
        own, other = (
            each[target.region].sum() / each[both[0].region | both[1].region].sum()
            for each in results.maps[[row, 1 - row]]
        )
        # what weighs whole channels shows every object that a channel shows
        assert own > other + 0.02 if name in TELLS_PLACES else own > other - 0.15, f"object {target.object_id}"
        alone = explainer.explain(image[None], [target], seeds=[0])
        torch.testing.assert_close(alone.maps[0], results.maps[row], atol=1e-4, rtol=0)
        with torch.no_grad():
            logits = model(image[None])[0]
        p, mask = logits.softmax(dim=0)[1], target.region.float()
        overlap = (p * mask).sum() / (p.sum() + mask.sum() - (p * mask).sum())
        expected = 2 * overlap / (1 + overlap) if confidence is DICE else overlap
        assert results.confidences[row].item() == pytest.approx(expected.item(), abs=1e-5)
    again = explainer.explain(image[None], 1, seeds=[0])
    torch.testing.assert_close(again.maps[0], results.maps[2], atol=1e-4, rtol=0)


def test_grad_cam_is_that_of_pytorch_grad_cam_for_the_object_s_mask(model: Colours, image: Tensor) -> None:
    for target in objects(model, image):
        explainer = make_explainer("grad_cam", model, settings_class("grad_cam")(layer="high"), DENSE)
        own = explainer.explain(image[None], [target]).maps[0]
        mask = target.region.numpy().astype("float32") / target.region.sum().item()
        with GradCAM(model=model, target_layers=[model.high]) as cam:
            expected = cam(input_tensor=image[None].clone(), targets=[SemanticSegmentationTarget(1, mask)])[0]
        assert torch.corrcoef(torch.stack([own.flatten(), torch.from_numpy(expected).flatten()]))[0, 1] > 0.98


def test_integrated_gradients_are_captum_s_for_the_mean_over_the_object(model: nn.Module, image: Tensor) -> None:
    for target in objects(model, image):

        def forward(images: Tensor, region: Tensor = target.region) -> Tensor:
            return (model(images)[:, 1] * region).sum(dim=(1, 2)) / region.sum()

        settings = settings_class("integrated_gradients")(steps=24)
        own = make_explainer("integrated_gradients", model, settings, DENSE).explain(image[None], [target]).maps[0]
        peer = CaptumIntegratedGradients(forward).attribute(
            image[None], torch.zeros(1, 3, *SIZE), n_steps=24, method="gausslegendre"
        )
        expected = peer[0].sum(dim=0).detach().relu()
        torch.testing.assert_close(own.double(), (expected / expected.max()).double(), atol=1e-4, rtol=1e-3)


def test_masks_are_weighed_by_the_soft_dice_of_the_object(model: nn.Module, image: Tensor) -> None:
    from heatlas.engine.methods.rise import RandomMasks

    settings = settings_class("rise")(masks=30, grid=4)
    explainer = make_explainer("rise", model, settings, DENSE)
    target = objects(model, image)[1]
    masks = RandomMasks(image, target, explainer, 7)._masks(slice(0, 30))  # pyright: ignore[reportArgumentType]
    total = torch.zeros(SIZE, dtype=torch.float64)
    for mask in masks:
        with torch.no_grad():
            p = model((image * mask)[None])[0].softmax(dim=0)[1]
        total += 2 * (p * target.region).sum().item() / (p.sum().item() + target.region.sum().item()) * mask
    expected = (total - total.min()) / (total.max() - total.min())
    own = explainer.explain(image[None], [target], seeds=[7]).maps[0]
    torch.testing.assert_close(own.double(), expected, atol=1e-5, rtol=0)


def test_metrics_of_two_objects_in_flight_are_those_of_each_alone(model: nn.Module, image: Tensor) -> None:
    names = (
        "ins_iou",
        "del_iou",
        "ebpg",
        "iou_half",
        "insertion_auc",
        "outside_context",
        "context_class",
        "context_share",
    )
    truth = torch.zeros(SIZE, dtype=torch.bool)
    truth[2:9, 2:9] = truth[9:14, 12:17] = True
    both = objects(model, image)

    def measured(*targets: int) -> list[dict]:
        session = ExplainSession(make_explainer("rise", model, settings_class("rise")(**SMALL["rise"]), DENSE), names)
        entries = [
            entry
            for key, target in enumerate(targets)
            for entry in session.push(key, image, target=target, truth=truth, sample_seed=3)
        ]
        return [entry.metrics for entry in (*entries, *session.finish())]

    together = measured(*both, 1)
    for place, target in enumerate((*both, 1)):
        [alone] = measured(target)
        assert together[place] == pytest.approx(alone, abs=1e-6)
        assert all(value is not None for value in alone.values())
        assert alone["context_class"] == 3
        assert alone["context_share"] == pytest.approx(alone["outside_context"], abs=1e-9)
    assert together[0]["ebpg"] != together[2]["ebpg"], "only the marked object counts"
    # by hand: the whole image shows the object's own pixels, those of the other object are left out
    own = both[0].region & ~both[1].region
    whole = (own & truth).sum() / (own | (truth & object_truth(truth, both[0]))).sum()
    assert together[0]["ins_iou"] < whole + 1e-6


def test_coarse_logits_are_measured_at_the_image_s_size(image: Tensor) -> None:
    model = Colours(coarse=True).eval()
    truth = torch.zeros(SIZE, dtype=torch.bool)
    truth[2:9, 2:9] = True
    names = ("ins_iou", "del_iou", "outside_context", "context_class", "ebpg", "iou_half")
    for target in (1, objects(model, image)[0]):
        session = ExplainSession(make_explainer("rise", model, settings_class("rise")(**SMALL["rise"]), DENSE), names)
        [entry] = [*session.push(0, image, target=target, truth=truth), *session.finish()]
        assert entry.status == "ok"
        assert all(entry.metrics[name] is not None for name in names)
        assert entry.metrics["ins_iou"] > entry.metrics["del_iou"]


def test_what_cannot_tell_objects_apart_says_so(model: nn.Module, image: Tensor) -> None:
    target = objects(model, image)[0]
    with pytest.raises(TargetError, match="lafam gives every object of a class the same map"):
        make_explainer("lafam", model, None, DENSE).explain(image[None], [target])
    classifier = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    with pytest.raises(TargetError, match="of dense models only"):
        make_explainer("rise", classifier, None, Scoring(confidence=SOFTMAX)).explain(image[None], [target])
