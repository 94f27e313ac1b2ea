"""Insertion, deletion and gain: by hand on models of one line, against RISE's own rule, and their invariances."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

from ..support.metric_cases import MeanModel, SumModel, measure_with, variants_of

CURVES = ("insertion_auc", "deletion_auc")
FORWARDED = ("drop_pct", "increase", "average_gain_pct", "insertion_auc", "deletion_auc", "road", "infidelity")


def image_and_map(seed: int, size: tuple[int, int] = (12, 14), count: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, *size, generator=generator), torch.rand(count, *size, generator=generator)


def rise_auc(scores: list[float]) -> float:
    """RISE's normalised area, as its authors compute it for equal steps."""
    return (sum(scores) - scores[0] / 2 - scores[-1] / 2) / (len(scores) - 1)


def test_deletion_by_hand():
    """All pixels alike and p their mean: p falls in a straight line from 0.8 to 0, whatever the order."""
    images, maps = torch.full((1, 1, 4, 5), 0.8), torch.rand(1, 4, 5)

    assert measure_with(MeanModel(), "deletion_auc", images, maps) == pytest.approx([0.4], abs=1e-5)


def test_deletion_takes_the_most_relevant_first():
    images = torch.full((1, 1, 4, 5), 0.02)
    images[0, 0, 2, 3] = 0.9
    maps = torch.rand(1, 4, 5)
    first, last = maps.clone(), maps.clone()
    first[0, 2, 3], last[0, 2, 3] = 2, -1

    value = measure_with(MeanModel(), "deletion_auc", images, first)[0]
    scores = [(0.9 + 0.02 * 19) / 20] + [0.02 * (20 - k) / 20 for k in range(1, 21)]
    assert value == pytest.approx(rise_auc(scores), abs=1e-4)
    scores = [(0.9 + 0.02 * (19 - k)) / 20 for k in range(20)] + [0.0]
    assert measure_with(MeanModel(), "deletion_auc", images, last) == pytest.approx([rise_auc(scores)], abs=1e-4)


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("size", [(4, 5), (12, 14), (7, 9)])
def test_against_rise_s_loop(name: str, size: tuple[int, int]):
    """Slowly: change the image pixel by pixel in order of relevance, forward, and take trapezoids over the true fraction."""
    images, maps = image_and_map(3, size)
    model, pixels = SumModel(0.05), size[0] * size[1]
    start, finish = images[0].clone(), torch.zeros_like(images[0])
    if name == "insertion_auc":
        start, finish = variants_of(name, 1, images[0], maps[0])[0], images[0]
    order = maps[0].flatten().argsort(descending=True, stable=True).tolist()
    edges = [round(step * pixels / 20) for step in range(21)]
    scores, current = [], start.clone()
    for before, after in zip([0, *edges], edges, strict=False):
        for pixel in order[before:after]:
            current[:, pixel // size[1], pixel % size[1]] = finish[:, pixel // size[1], pixel % size[1]]
        scores.append(float(model(current[None]).softmax(dim=1)[0, 0]))
    expected = np.trapezoid(scores, np.array(edges) / pixels)

    assert measure_with(model, name, images, maps) == pytest.approx([expected], abs=1e-6)


def test_a_constant_score_has_itself_as_area():
    """The area is over fractions, so it does not grow with steps or pixels (one library's sums with a step of 1)."""
    for size in ((4, 5), (12, 14)):
        images, maps = image_and_map(1, size)
        for name in CURVES:
            assert measure_with(SumModel(0.0), name, images, maps) == pytest.approx([0.5])


def test_the_blur_is_a_gaussian_of_11_pixels():
    images, maps = image_and_map(5, (32, 30))
    blurred = variants_of("insertion_auc", 1, images[0], maps[0])[0]
    expected = gaussian_blur(images[0], [11, 11], [5.0, 5.0])

    assert torch.allclose(blurred[:, 5:-5, 5:-5], expected[:, 5:-5, 5:-5], atol=1e-6)
    flat = torch.full((3, 32, 30), 0.7)
    assert torch.allclose(variants_of("insertion_auc", 1, flat, maps[0])[0], flat, atol=1e-6), "edges must not darken"


def test_gain_by_hand():
    """p = 1/2 on an image whose sum is 0; the top 15 % of 20 pixels are 3, of value 1: p_T = sigmoid(3)."""
    images, maps = torch.full((1, 1, 4, 5), -3 / 17), torch.rand(1, 4, 5)
    maps[0, 0, :3], images[0, 0, 0, :3] = 2, 1
    kept = 1 / (1 + math.exp(-3))

    assert measure_with(SumModel(), "average_gain_pct", images, maps) == pytest.approx(
        [(kept - 0.5) / 0.5 * 100], rel=1e-5
    )
    assert measure_with(SumModel(), "average_gain_pct", -images, maps) == [0.0]


def test_nothing_can_be_gained_from_certainty():
    images, maps = torch.full((1, 1, 4, 5), 50.0), torch.rand(1, 4, 5)

    assert math.isnan(measure_with(SumModel(), "average_gain_pct", images, maps)[0])


def test_drop_of_a_class_without_probability_is_not_defined():
    images, maps = torch.full((1, 1, 4, 5), -50.0), torch.rand(1, 4, 5)

    assert math.isnan(measure_with(SumModel(), "drop_pct", images, maps)[0])


@pytest.mark.parametrize("name", ["insertion_auc", "deletion_auc", "road", "infidelity"])
@pytest.mark.parametrize("size", [(1, 1), (4, 5)])
def test_a_map_that_ranks_nothing_has_no_value(name: str, size: tuple[int, int]):
    assert math.isnan(measure_with(SumModel(), name, torch.rand(1, 3, *size), torch.full((1, *size), 0.4))[0])


@pytest.mark.parametrize("name", FORWARDED)
@pytest.mark.parametrize("batch_size", [1, 2, 7, 64])
def test_batch_size_neighbours_and_order_do_not_matter(name: str, batch_size: int):
    images, maps = image_and_map(7, (12, 14), count=5)
    model = SumModel(0.02)
    reference = [measure_with(model, name, images[k : k + 1], maps[k : k + 1], samples=[k])[0] for k in range(5)]
    together = measure_with(model, name, images, maps, batch_size=batch_size)
    back = measure_with(model, name, images.flip(0), maps.flip(0), batch_size=batch_size, samples=[4, 3, 2, 1, 0])[::-1]

    assert together == pytest.approx(reference, abs=1e-6)
    assert together == back


@settings(max_examples=15, deadline=None)
@given(
    hnp.arrays(np.float32, (8, 9), elements=st.integers(0, 8).map(float)).filter(lambda map_: map_.min() < map_.max()),
    st.sampled_from([lambda map_: 3 * map_ + 1, lambda map_: map_**3, torch.exp]),
)
def test_ranks_alone_decide(map_: np.ndarray, transform):
    images, _ = image_and_map(11, (8, 9))
    maps = torch.tensor(map_)[None]
    for name in ("drop_pct", "increase", "average_gain_pct", "insertion_auc", "deletion_auc", "road"):
        assert measure_with(SumModel(0.05), name, images, maps) == measure_with(
            SumModel(0.05), name, images, transform(maps)
        )


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.float32, (6, 7), elements=st.sampled_from([0.0, 0.0, 0.0, 0.5, 1.0])))
def test_ties_never_change_how_many_pixels_a_step_is(map_: np.ndarray):
    image = torch.ones(1, 6, 7)
    shown = variants_of("deletion_auc", 1, image, torch.tensor(map_)).sum(dim=(1, 2, 3)).tolist()

    assert shown == [42 - round(step * 42 / 20) for step in range(1, 21)]


class SmallNetwork(nn.Module):
    """A convolution, so that autocast has something to round."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.conv(images).relu().mean(dim=(2, 3)))


@pytest.mark.parametrize("name", ["insertion_auc", "deletion_auc", "road"])
def test_half_precision_forwards_agree_with_float32(name: str):
    """bfloat16 keeps 8 bits of a logit; the areas and differences are summed in float32 at least and stay within a hundredth."""
    images, maps = image_and_map(13, count=4)
    full, half = (
        measure_with(SmallNetwork().eval(), name, images, maps, precision=entry) for entry in ("fp32", "bf16")
    )

    assert full != half, "autocast must have rounded something"
    assert half == pytest.approx(full, abs=0.01)
