"""Gradient and forward methods over models that give every pixel its class, against other implementations of the same definition."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from captum.attr import IntegratedGradients as CaptumIntegratedGradients
from heatlas.engine.methods.layer_gradients import predicted_where_negative, target_logits
from heatlas.engine.methods.registry import make_explainer, settings_class, usable_methods
from heatlas.engine.scoring.confidence import DICE, SEGMENTATION, mean_in_mask, scene_of, soft_dice
from heatlas.engine.scoring.scoring_options import Scoring
from heatlas.errors import ModelError
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, LayerCAM
from pytorch_grad_cam.utils.model_targets import SemanticSegmentationTarget
from torch import Tensor, nn

SIZE = (16, 20)
DENSE = Scoring(batch_size=8, confidence=SEGMENTATION)
GRADIENTS = ("grad_cam", "grad_cam_pp", "layer_cam", "refine_cam", "winsor_cam", "integrated_gradients", "expected_gradients")  # fmt: skip


class Segmenter(nn.Module):
    """Four classes at half the resolution, enlarged; curved activations, so that gradients differ from place to place."""

    def __init__(self, seed: int = 0):
        super().__init__()
        torch.manual_seed(seed)
        self.low, self.high, self.head = (
            nn.Conv2d(3, 6, 3, padding=1),
            nn.Conv2d(6, 8, 3, padding=1),
            nn.Conv2d(8, 4, 1),
        )
        self.pool = nn.MaxPool2d(2)

    def forward(self, images: Tensor) -> Tensor:
        maps = torch.relu(self.high(self.pool(torch.tanh(self.low(images)))))
        return nn.functional.interpolate(4 * self.head(maps), images.shape[2:], mode="bilinear", align_corners=False)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return Segmenter().eval()


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(4))


@pytest.fixture(scope="module")
def target(model: nn.Module, image: Tensor) -> int:
    """The largest class that is not background."""
    with torch.no_grad():
        return int(predicted_where_negative(torch.tensor([-1]), model(image))[0])


def own_mask(model: nn.Module, image: Tensor, target: int) -> Tensor:
    with torch.no_grad():
        return scene_of(model(image)) == target


@pytest.mark.parametrize(
    ("name", "peer"), [("grad_cam", GradCAM), ("grad_cam_pp", GradCAMPlusPlus), ("layer_cam", LayerCAM)]
)
def test_cams_are_those_of_pytorch_grad_cam_for_the_same_mask(
    name: str, peer: Callable, model: Segmenter, image: Tensor, target: int
) -> None:
    explainer = make_explainer(name, model, settings_class(name)(layer="high"), DENSE)
    own = explainer.explain(image, target).maps[0]
    mask = own_mask(model, image, target).numpy().astype("float32") / own_mask(model, image, target).sum().item()
    with peer(model=model, target_layers=[model.high]) as cam:
        expected = cam(input_tensor=image.clone(), targets=[SemanticSegmentationTarget(target, mask)])[0]
    assert own.max() > 0.9
    agreement = torch.corrcoef(torch.stack([own.flatten(), torch.from_numpy(expected).flatten()]))[0, 1]
    # the peer enlarges with OpenCV and takes the least value off; Grad-CAM++ is not linear in the logit's scale
    assert agreement > 0.98


def test_integrated_gradients_are_captum_s_for_the_mean_over_the_frozen_mask(
    model: nn.Module, image: Tensor, target: int
) -> None:
    mask = own_mask(model, image, target)

    def forward(images: Tensor) -> Tensor:
        return (model(images)[:, target] * mask).sum(dim=(1, 2)) / mask.sum()

    explainer = make_explainer("integrated_gradients", model, settings_class("integrated_gradients")(steps=24), DENSE)
    own = explainer.attribution(image, torch.tensor([target]))[0]  # pyright: ignore[reportAttributeAccessIssue]
    peer = CaptumIntegratedGradients(forward).attribute(
        image, torch.zeros_like(image), n_steps=24, method="gausslegendre"
    )
    torch.testing.assert_close(own, peer[0].sum(dim=0).detach().to(own), atol=1e-5, rtol=1e-3)
    with torch.no_grad():
        change = forward(image) - forward(torch.zeros_like(image))
    assert own.sum().item() == pytest.approx(change.item(), abs=0.02)


def test_occlusion_measures_the_fall_of_the_confidence_in_what_the_whole_image_shows(
    model: nn.Module, image: Tensor, target: int
) -> None:
    settings = settings_class("occlusion")(positions=3, window=0.4)
    explainer = make_explainer("occlusion", model, settings, DENSE)
    raw = explainer.raw(image, torch.tensor([target])).maps[0]  # pyright: ignore[reportAttributeAccessIssue]
    with torch.no_grad():
        scene = scene_of(model(image))[None]
        hidden = image.clone()
        hidden[:, :, :6, :8] = 0
        classes = torch.tensor([target])
        falls = [SEGMENTATION.value(model(given), classes, scene).item() for given in (image, hidden)]
    assert raw[0, 0].item() == pytest.approx(falls[0] - falls[1], abs=1e-6), "the corner lies in one square only"


@pytest.mark.parametrize("name", [name for name, method in usable_methods().items() if method.dense])
def test_methods_for_dense_models_explain_a_class_of_their_own_choice_and_any_other(
    name: str, model: nn.Module, image: Tensor, target: int
) -> None:
    small = {"rise": {"masks": 40}, "occlusion": {"positions": 4}, "lima": {"grid": 3}, "expected_gradients": {"samples": 6}}  # fmt: skip
    explainer = make_explainer(name, model, settings_class(name)(**small.get(name, {})), DENSE)
    other = next(int(index) for index in scene_of(model(image).detach()).unique() if int(index) != target)
    results = explainer.explain(torch.cat([image, image]), [target, other])
    assert results.statuses == ["ok", "ok"], results.errors
    assert results.predictions.tolist() == [target, target]
    if name != "lafam":
        assert not torch.allclose(results.maps[0], results.maps[1], atol=1e-3)
    alone = explainer.explain(image, other, seeds=[1])
    torch.testing.assert_close(alone.maps[0], results.maps[1], atol=1e-4, rtol=0)
    assert explainer.explain(image).targets.tolist() == [target]


def test_enough_methods_take_dense_models() -> None:
    dense = {name for name, method in usable_methods().items() if method.dense}
    assert dense >= {*GRADIENTS, "sise", "ada_sise", "rise", "score_cam", "occlusion", "lima", "lafam"}


@pytest.mark.parametrize("name", ["bee", "daam", "agf", "ucag"])
def test_methods_whose_definition_is_about_one_class_per_image_refuse(name: str, model: nn.Module) -> None:
    with pytest.raises(ModelError, match="reads the logits of a classifier"):
        make_explainer(name, model, None, DENSE)


def test_a_class_that_is_nowhere_has_no_evidence_in_gradients_either(model: nn.Module, image: Tensor) -> None:
    class Lacking(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.cat([model(images), model(images)[:, :1] - 100], dim=1)

    explainer = make_explainer("integrated_gradients", Lacking().eval(), None, DENSE)
    result = explainer.explain(image, 4)
    assert result.statuses == ["no_evidence"]
    assert result.errors == ["the model finds class 4 nowhere in the image"]


# definitions


def test_soft_dice_is_the_slow_formula_and_ranks_as_the_overlap(model: nn.Module, image: Tensor, target: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 5, 6, generator=generator) * 3
    scenes = torch.randint(4, (3, 5, 6), generator=generator)
    targets = torch.tensor([0, 3, 1])
    shares = logits.softmax(dim=1)
    for row, value in enumerate(soft_dice(logits, targets, scenes)):
        p, mask = shares[row, targets[row]], (scenes[row] == targets[row]).float()
        assert value.item() == pytest.approx((2 * (p * mask).sum() / (p.sum() + mask.sum())).item(), abs=1e-6)
    settings = settings_class("rise")(masks=60)
    maps = [
        make_explainer("rise", model, settings, Scoring(confidence=confidence)).explain(image, target).maps[0]
        for confidence in (DICE, SEGMENTATION)
    ]
    assert torch.corrcoef(torch.stack([each.flatten() for each in maps]))[0, 1] > 0.95
    assert not torch.equal(maps[0], maps[1])


def test_the_mean_over_the_mask_is_frozen() -> None:
    logits = torch.tensor([[[[0.0, 0.0]], [[3.0, -1.0]]]], requires_grad=True)
    value = mean_in_mask(logits, torch.tensor([1]))
    assert value.item() == 3.0
    [gradient] = torch.autograd.grad(value.sum(), logits)
    assert gradient.tolist() == [[[[0, 0]], [[1, 0]]]]
    scenes = torch.tensor([[[1, 1]]])
    assert target_logits(logits, torch.tensor([1]), scenes).item() == 1.0
    assert mean_in_mask(logits, torch.tensor([1]), torch.zeros(1, 1, 2)).item() == 0
