"""Metrics for maps of dense models: by hand, and through the session against a slow loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from heatlas.engine.methods.registry import make_explainer, settings_class
from heatlas.engine.metrics import METRIC_PRESETS, METRICS, Evidence, rank_pixels
from heatlas.engine.metrics.perturbation import blur, step_counts
from heatlas.engine.scoring.confidence import SEGMENTATION, SOFTMAX, scene_of, truth_overlap
from heatlas.engine.scoring.scoring_options import Scoring
from heatlas.engine.session import ExplainSession
from skimage.measure import regionprops
from torch import Tensor, nn

NAMES = ("ins_iou", "del_iou", "outside_context", "iou_half", "bbox_iou_half")


class Segmenter(nn.Module):
    """Background, red, green and blue, by the colour of each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.spread = nn.AvgPool2d(3, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([torch.full_like(images[:, :1], 0.4), self.spread(images)], dim=1) * 6


def scene_image() -> Tensor:
    """A red square upper left, a blue one lower right."""
    image = torch.zeros(3, 16, 20)
    image[0, 2:10, 2:10] = 1.0
    image[2, 10:14, 12:18] = 1.0
    return image


def measured(
    model: nn.Module,
    image: Tensor,
    names: tuple[str, ...],
    *,
    truth: Tensor | None,
    confidence=SEGMENTATION,
    target: int = 1,
):
    explainer = make_explainer(
        "rise", model, settings_class("rise")(masks=40, grid=5), Scoring(batch_size=8, confidence=confidence)
    )
    session = ExplainSession(explainer, names)
    [entry] = [*session.push(0, image, target=target, truth=truth), *session.finish()]
    return entry


def evidence(image_map: Tensor, truth: Tensor | None = None) -> Evidence:
    maps = image_map[None]
    return Evidence(maps, rank_pixels(maps), None if truth is None else truth[None])


def test_half_maximum_overlaps_by_hand() -> None:
    image_map = torch.zeros(6, 8)
    image_map[1:3, 1:5] = 1.0
    image_map[4, 6] = 0.5
    image_map[0, 0] = 0.49
    truth = torch.zeros(6, 8, dtype=torch.bool)
    truth[1:3, 3:7] = True
    assert METRICS["iou_half"].measure(evidence(image_map, truth)).item() == pytest.approx(4 / 13)
    assert METRICS["bbox_iou_half"].measure(evidence(image_map, truth)).item() == pytest.approx(8 / (4 * 6 + 8 - 8))


def test_boxes_are_those_of_skimage() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        image_map = torch.from_numpy(random.random((9, 12)) ** 8)
        truth = torch.from_numpy(random.random((9, 12)) > 0.95)
        if not truth.any():
            continue
        boxes = []
        for region in (image_map >= image_map.max() / 2, truth):
            [box] = regionprops(region.numpy().astype(np.uint8))
            filled = np.zeros((9, 12), bool)
            filled[box.bbox[0] : box.bbox[2], box.bbox[1] : box.bbox[3]] = True
            boxes.append(filled)
        expected = (boxes[0] & boxes[1]).sum() / (boxes[0] | boxes[1]).sum()
        assert METRICS["bbox_iou_half"].measure(evidence(image_map, truth)).item() == pytest.approx(expected)


@pytest.mark.parametrize("name", ["iou_half", "bbox_iou_half"])
def test_constant_maps_and_empty_truths_have_no_value(name: str) -> None:
    truth = torch.zeros(4, 4, dtype=torch.bool)
    varied = torch.arange(16.0).reshape(4, 4)
    assert METRICS[name].measure(evidence(varied, truth)).isnan().all()
    assert METRICS[name].measure(evidence(torch.ones(4, 4), ~truth)).isnan().all()


def test_insertion_and_deletion_follow_the_hard_overlap_with_the_truth() -> None:
    model, image = Segmenter().eval(), scene_image()
    truth = torch.zeros(16, 20, dtype=torch.bool)
    truth[2:10, 2:12] = True
    entry = measured(model, image, NAMES, truth=truth)
    order = rank_pixels(entry.map[None])[0]
    fractions = torch.tensor(step_counts(320), dtype=torch.float64) / 320
    curves = {"ins_iou": [], "del_iou": []}
    for count in step_counts(320):
        shown = torch.zeros(320, dtype=torch.bool)
        shown[order[:count]] = True
        shown = shown.reshape(16, 20)
        for name, given in (("ins_iou", torch.where(shown, image, blur(image))), ("del_iou", image * ~shown)):
            with torch.no_grad():
                own = model(given[None])[0].argmax(dim=0) == 1
            curves[name].append((own & truth).sum() / (own | truth).sum())
    for name, curve in curves.items():
        expected = torch.trapezoid(torch.stack(curve).double(), fractions).item()
        assert entry.metrics[name] == pytest.approx(expected, abs=1e-6)
    assert entry.metrics["ins_iou"] > entry.metrics["del_iou"]


def test_outside_context_is_the_mass_on_other_classes_than_target_and_background() -> None:
    model, image = Segmenter().eval(), scene_image()
    for target in (1, 3):
        entry = measured(model, image, ("outside_context",), truth=None, target=target)
        with torch.no_grad():
            scene = scene_of(model(image[None]))
        mass = entry.map[(scene != target) & (scene != 0)].sum() / entry.map.sum()
        assert entry.metrics["outside_context"] == pytest.approx(mass.item(), abs=1e-6)
        assert 0 < mass < 1


def test_without_truth_or_for_a_classifier_they_are_undefined_and_cost_nothing() -> None:
    model, image = Segmenter().eval(), scene_image()
    plain = measured(model, image, (), truth=None)
    entry = measured(model, image, NAMES, truth=None)
    assert [name for name, value in entry.metrics.items() if value is not None] == ["outside_context"]
    assert entry.n_forwards == plain.n_forwards
    classifier = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    truth = image[0] > 0
    entry = measured(classifier.eval(), image, NAMES, truth=truth, confidence=SOFTMAX)
    assert entry.status == "ok"
    assert [name for name in ("ins_iou", "del_iou", "outside_context") if entry.metrics[name] is not None] == []
    assert entry.metrics["iou_half"] is not None


def test_two_images_in_one_batch_keep_their_own_truths() -> None:
    model, image = Segmenter().eval(), scene_image()
    truths = [torch.zeros(16, 20, dtype=torch.bool) for _ in range(2)]
    truths[0][2:10, 2:10] = True
    truths[1][10:14, 12:18] = True
    explainer = make_explainer(
        "rise", model, settings_class("rise")(masks=20, grid=5), Scoring(batch_size=64, confidence=SEGMENTATION)
    )
    session = ExplainSession(explainer, METRIC_PRESETS["dense"])
    entries = [
        *session.push(0, image, target=1, truth=truths[0], sample_seed=0),
        *session.push(1, image.clone(), target=1, truth=truths[1], sample_seed=0),
        *session.finish(),
    ]
    assert entries[0].metrics["ins_iou"] > 0.5
    assert entries[1].metrics["ins_iou"] == 0


def test_overlap_with_the_truth_by_hand() -> None:
    logits = torch.tensor([[[[1.0, 0.0, 0.0]], [[0.0, 1.0, 1.0]]]])
    truth = torch.tensor([[[0, 0, 1]]], dtype=torch.int16)
    assert truth_overlap(logits, torch.tensor([1]), truth).item() == 0.5
    assert truth_overlap(logits, torch.tensor([0]), truth).item() == 0
    nothing = torch.zeros(1, 1, 3, dtype=torch.int16)
    assert truth_overlap(logits.flip(1) * 0 + torch.tensor([2.0, 1.0])[None, :, None, None], torch.tensor([1]), nothing).item() == 0  # fmt: skip
