"""The score of dense models: by hand, as a definition, and through SISE, RISE and the metrics."""

from __future__ import annotations

import math

import pytest
import torch
from heatlas.engine.explanation import Logits
from heatlas.engine.method_fit import check_fit
from heatlas.engine.methods.registry import make_explainer, settings_class
from heatlas.engine.methods.sise import SISE
from heatlas.engine.requests import Job
from heatlas.engine.scoring.confidence import (
    SEGMENTATION,
    SIGMOID,
    SOFTMAX,
    areas,
    scene_of,
    soft_overlap,
    sum_in_mask,
)
from heatlas.engine.scoring.masked_scorer import Scorer
from heatlas.engine.scoring.scoring_options import Scoring
from heatlas.engine.scoring.whole_image import class_overview
from heatlas.engine.session import ExplainSession
from heatlas.errors import ModelError
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

LOG3 = math.log(3)
HAND = torch.tensor([[[[0.0, 0.0], [0.0, 2.0]], [[LOG3, LOG3], [0.0, 0.0]]]])
"""Two classes on 2x2 pixels: class 1 has 3/4 at the upper two, half at the lower left, little at the lower right."""
ONE, ZERO = torch.tensor([1]), torch.tensor([0])


class TinySegmenter(nn.Module):
    """Background, red, green and blue, by the colour of each pixel; returns torchvision's dict."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.low = nn.Conv2d(3, 6, 3, padding=1)
        self.high = nn.Conv2d(6, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 4, 1)
        with torch.no_grad():
            for conv in (self.low, self.high):
                conv.weight.mul_(0.05)
                conv.weight[[0, 1, 2], [0, 1, 2], 1, 1] = 1.0
                conv.bias.zero_()
            self.head.weight.zero_()
            self.head.weight[[1, 2, 3], [0, 1, 2]] = 6.0
            self.head.bias.copy_(torch.tensor([1.5, 0.0, 0.0, 0.0]))

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        maps = nn.functional.max_pool2d(torch.relu(self.low(images)), 2)
        logits = self.head(torch.relu(self.high(maps)))
        return {
            "out": nn.functional.interpolate(logits, images.shape[2:], mode="bilinear", align_corners=False),
            "aux": maps,
        }


def scene_image() -> torch.Tensor:
    """A red square upper left, a smaller blue one lower right."""
    image = torch.zeros(3, 16, 20)
    image[0, 2:10, 2:10] = 1.0
    image[2, 10:14, 12:18] = 1.0
    return image


# by hand


def test_soft_overlap_by_hand() -> None:
    lower_left, lower_right = 0.5, 1 / (1 + math.exp(2))
    assert scene_of(HAND).tolist() == [[1, 1], [0, 0]]
    total = 0.75 + 0.75 + lower_left + lower_right
    assert soft_overlap(HAND, ONE).item() == pytest.approx(1.5 / (total + 2 - 1.5))
    other = torch.tensor([[[0, 1], [1, 1]]])
    shared = 0.75 + lower_left + lower_right
    assert soft_overlap(HAND, ONE, other).item() == pytest.approx(shared / (total + 3 - shared))
    assert soft_overlap(HAND, ONE, torch.zeros(1, 2, 2, dtype=torch.int64)).item() == 0.0, (
        "the scene has nothing of the class"
    )


def test_the_target_is_the_sum_of_its_logits_in_its_mask() -> None:
    assert sum_in_mask(HAND, ONE).item() == pytest.approx(2 * LOG3)
    assert sum_in_mask(HAND, ZERO).item() == pytest.approx(2.0)
    logits = HAND.clone().requires_grad_()
    [gradient] = torch.autograd.grad(sum_in_mask(logits, ONE).sum(), logits)
    assert gradient[0, 1].tolist() == [[1, 1], [0, 0]]
    assert not gradient[0, 0].any()


def test_the_predicted_class_is_the_largest_that_is_not_background() -> None:
    logits = torch.zeros(1, 4, 4, 4)
    logits[0, 0] = 1
    logits[0, 2, 0, :3] = 5
    logits[0, 3, 1, :2] = 5
    assert areas(logits).argmax() == 2, "11 of 16 pixels are background"
    assert areas(logits).argsort(descending=True).tolist()[:3] == [2, 3, 0]
    assert areas(logits)[1] == float("-inf")
    logits[0, 2:] = 0
    assert areas(logits).argmax() == 0, "there is nothing else"


@given(st.integers(0, 2**31), st.integers(2, 5), st.booleans())
def test_overlap_is_a_share_and_as_the_slow_loop_says(seed: int, classes: int, own: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, 3, 4, generator=generator, dtype=torch.float64) * 3
    scenes = None if own else torch.randint(classes, (2, 3, 4), generator=generator)
    targets = torch.randint(classes, (2,), generator=generator)
    result = soft_overlap(logits, targets, scenes)
    for row in range(2):
        shared = union = mask = 0.0
        for y in range(3):
            for x in range(4):
                values = [math.exp(logits[row, c, y, x]) for c in range(classes)]
                p = values[targets[row]] / sum(values)
                seen = int(logits[row, :, y, x].argmax()) if scenes is None else int(scenes[row, y, x])
                m = float(seen == int(targets[row]))
                shared, union, mask = shared + p * m, union + p + m - p * m, mask + m
        assert result[row].item() == pytest.approx(shared / union if mask else 0.0)
        assert 0 <= result[row] <= 1


# through the engine


def test_the_scene_travels_with_each_job() -> None:
    net, first = TinySegmenter().eval(), scene_image()
    second = first.flip(2)
    with torch.no_grad():
        scenes = [scene_of(net(one[None])["out"]) for one in (first, second)]
        expected = [
            [
                soft_overlap(net((one * share)[None])["out"], torch.tensor([target]), scene[None]).item()
                for share in (1.0, 0.5, 0.0)
            ]
            for one, scene, target in ((first, scenes[0], 1), (second, scenes[1], 3))
        ]
    scorer = Scorer(net, Scoring(batch_size=4, confidence=SEGMENTATION))
    jobs = []
    for one, target in ((first, 1), (second, 3)):

        def fill(start: int, out: torch.Tensor, one: torch.Tensor = one) -> None:
            for place in range(len(out)):
                out[place] = one * (1.0, 0.5, 0.0)[start + place]

        jobs.append(Job(3, target, fill))
        scorer.submit(jobs[-1], like=one)
    scorer.flush()
    for job, values in zip(jobs, expected, strict=True):
        assert job.scores.tolist() == pytest.approx(values, abs=1e-6)


def test_a_map_lies_on_the_object_that_it_explains() -> None:
    net, image = TinySegmenter().eval(), scene_image()[None]
    sise = SISE(net, batch_size=8, confidence=SEGMENTATION)
    result = sise(torch.cat([image, image]), [1, 3])
    assert result.statuses == ["ok", "ok"]
    assert result.predictions.tolist() == [1, 1]
    red, blue = result.maps
    assert red[2:10, 2:10].mean() > 3 * red[10:14, 12:18].mean()
    assert blue[10:14, 12:18].mean() > 3 * blue[2:10, 2:10].mean()
    assert result.confidences[0] > 0.5
    alone = sise(image, 3)
    assert torch.equal(alone.maps[0], blue), "whatever shares its batches"


def test_a_class_that_is_nowhere_is_no_evidence() -> None:
    net = TinySegmenter().eval()
    session = ExplainSession(SISE(net, batch_size=8, confidence=SEGMENTATION), ("drop_pct",))
    [entry] = [*session.push(0, scene_image(), target=2), *session.finish()]
    assert (entry.status, entry.error, entry.confidence) == (
        "no_evidence",
        "the model finds class 2 nowhere in the image",
        0.0,
    )


def test_metrics_and_other_methods_on_masks_use_the_same_score() -> None:
    net, image = TinySegmenter().eval(), scene_image()
    for name in ("sise", "rise"):
        explainer = make_explainer(name, net, None, Scoring(batch_size=8, confidence=SEGMENTATION))
        if name == "rise":
            explainer = make_explainer(
                name, net, settings_class("rise")(masks=64, grid=5), Scoring(batch_size=8, confidence=SEGMENTATION)
            )
        session = ExplainSession(explainer, ("drop_pct", "increase"))
        [entry] = [*session.push(0, image), *session.finish()]
        assert entry.status == "ok"
        assert entry.target == entry.prediction == 1
        top = (entry.map.flatten() >= entry.map.flatten().topk(round(0.15 * entry.map.numel())).values[-1]).reshape(
            entry.map.shape
        )
        assert entry.metrics["drop_pct"] is not None
        with torch.no_grad():
            scene = scene_of(net(image[None])["out"])[None]
            whole, kept = (soft_overlap(net(some[None])["out"], ONE, scene).item() for some in (image, image * top))
        assert entry.confidence == pytest.approx(whole, abs=1e-6)
        assert entry.metrics["drop_pct"] == pytest.approx(100 * max(0, whole - kept) / whole, abs=3), (
            "ties at the border of 15 %"
        )


def test_methods_that_read_classifiers_refuse_dense_models() -> None:
    net, scoring = TinySegmenter().eval(), Scoring(confidence=SEGMENTATION)
    with pytest.raises(
        ModelError, match=r"bee reads the logits of a classifier(.|\n)*methods that fit it: sise, .*grad_cam"
    ):
        check_fit("bee", net, None, scene_image(), scoring)
    with pytest.raises(ModelError, match=r"SISE needs \(1, class\) logits"):
        SISE(net)(scene_image()[None])
    whole = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )  # fmt: skip
    with pytest.raises(ModelError, match=r"SISE needs \(1, class, height, width\) logits of a dense model"):
        SISE(whole, confidence=SEGMENTATION)(scene_image()[None])


def test_rankings_and_logits_of_every_score() -> None:
    net = TinySegmenter().eval()
    ranking = class_overview(net, SEGMENTATION, scene_image()).ranking
    assert ranking.argsort(descending=True).tolist()[:3] == [1, 3, 0]
    assert ranking[2] == float("-inf")
    logits = torch.tensor([0.0, 2.0, -1.0])
    soft, independent = (Logits.of(logits, 1, score) for score in (SOFTMAX, SIGMOID))
    assert soft.confidence == pytest.approx(float(logits.softmax(0)[1]))
    assert independent.confidence == pytest.approx(1 / (1 + math.exp(-2)))
    assert soft.logit == independent.logit == 2.0
    assert (soft.absent, independent.failure) == (False, None)


@pytest.mark.parametrize("name", ["deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"])
def test_torchvision_s_segmentation_models_are_explained(name: str) -> None:
    from torchvision.models import get_model

    torch.manual_seed(0)
    net = get_model(name, weights=None, weights_backbone=None, num_classes=3).eval()
    result = SISE(net, batch_size=8, mu=0.8, confidence=SEGMENTATION)(torch.randn(1, 3, 48, 64))
    assert result.statuses == ["ok"]
    assert result.maps.shape == (1, 48, 64)
    assert 0 < result.confidences[0] <= 1


def test_models_that_cannot_be_differentiated_name_the_methods_that_can() -> None:
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                return self.net(images)

    with pytest.raises(ModelError, match=r"no gradient flows(.|\n)*methods that fit it: lima, occlusion, rise"):
        check_fit("sise", Frozen().eval(), None, scene_image())
