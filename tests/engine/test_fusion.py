"""Selection, masks, scoring and fusion with numbers worked out by hand, and Otsu's threshold against scikit-image's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from heatlas.engine.methods.sise import SISE
from heatlas.engine.sise.fusion import fuse, otsu_thresholds
from heatlas.engine.sise.masks import above_share, extremes, min_max, upsample, upsampled_sums, varying
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from skimage.filters import threshold_otsu
from torch import Tensor, nn

from ..support import reference

LN2 = math.log(2)


class TwoMaps(nn.Module):
    """The image's channels are the feature maps; the margin is ln 2 * (weights . sums of the maps + bias)."""

    layers = ("maps",)

    def __init__(self, weights: list[float], bias: float):
        super().__init__()
        self.maps = nn.Conv2d(len(weights), len(weights), 1)
        self.head = nn.Linear(len(weights), 2)
        with torch.no_grad():
            self.maps.weight.copy_(torch.eye(len(weights))[:, :, None, None])
            self.maps.bias.zero_()
            self.head.weight.copy_(torch.tensor([weights, [0.0] * len(weights)]) * LN2)
            self.head.bias.copy_(torch.tensor([bias, 0.0]) * LN2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.maps(images).sum(dim=(2, 3)))


class LowAndHigh(nn.Module):
    """One map at full size, its 2x2 means below it; the margin is ln 2 * (sum of the means + bias)."""

    layers = ("low", "high")

    def __init__(self, bias: float):
        super().__init__()
        self.low, self.high, self.head = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 2, stride=2), nn.Linear(1, 2)
        with torch.no_grad():
            for layer, weight in ((self.low, 1.0), (self.high, 0.25)):
                layer.weight.fill_(weight)
                layer.bias.zero_()
            self.head.weight.copy_(torch.tensor([[LN2], [0.0]]))
            self.head.bias.copy_(torch.tensor([bias * LN2, 0.0]))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.high(self.low(images)).sum(dim=(2, 3)))


def both(
    model: nn.Module, layers: tuple[str, ...], image: list, mu: float = 0.0
) -> list[tuple[np.ndarray, list[int], float, str]]:
    """(map, mask counts, score, status) for class 0, from the engine and from the oracle."""
    images = torch.tensor([image])
    mine = SISE(model, layers=layers, mu=mu)(images, [0])
    theirs = reference.sise(model, layers, images[0], 0, mu=mu)
    return [
        (mine.maps[0].double().numpy(), mine.mask_counts[0].tolist(), float(mine.confidences[0]), mine.statuses[0]),
        (theirs.map, theirs.mask_counts, theirs.score, theirs.status),
    ]


# P and Q, (0 2 / 0 2) and (0 0 / 4 4), give the masks (0 1 / 0 1) and (0 0 / 1 1), each of sum 2.
LEFT_RIGHT_AND_BELOW = [[[0.0, 2.0], [0.0, 2.0]], [[0.0, 0.0], [4.0, 4.0]]]


def test_scoring_by_hand():
    """Margins / ln 2: whole 4 + 2 - 4 = 2, first mask 4 + 1 - 4 = 1, second mask 2 + 2 - 4 = 0: Psi = 4/5, 2/3, 1/2.

    V = 1/2 (2/3 m1 / 2 + 1/2 m2 / 2) = m1 / 6 + m2 / 8 = (0 4 / 3 7) / 24, min-maxed (0 4 / 3 7) / 7.
    """
    for map_, counts, score, status in both(TwoMaps([1.0, 0.25], -4.0), TwoMaps.layers, LEFT_RIGHT_AND_BELOW):
        assert status == "ok"
        assert counts == [2]
        assert score == pytest.approx(4 / 5, abs=1e-6)
        np.testing.assert_allclose(map_, np.array([[0, 4], [3, 7]]) / 7, atol=1e-6)


def test_each_mask_is_weighed_by_its_own_mass():
    """P = (0 2 / 0 0) has mass 1, Q as above has mass 2; margins / ln 2 with -1: first 2 - 1 = 1, second 0 + 1 = 1, Psi = 2/3.

    V = 1/2 (2/3 m1 + 2/3 m2 / 2) = (0 2 / 1 1) / 6, min-maxed (0 1 / 1/2 1/2).
    """
    for map_, counts, _, _ in both(
        TwoMaps([1.0, 0.25], -1.0), TwoMaps.layers, [[[0.0, 2.0], [0.0, 0.0]], [[0.0, 0.0], [4.0, 4.0]]]
    ):
        assert counts == [2]
        np.testing.assert_allclose(map_, [[0, 1], [0.5, 0.5]], atol=1e-6)


@pytest.mark.parametrize(("mu", "kept"), [(0.0, 2), (0.2, 2), (0.25, 1), (0.3, 1), (0.9, 1)])
def test_selection_by_hand_is_strict(mu: float, kept: int):
    """alpha = ln 2 * (4, 1): the second map survives below mu = 1/4 and not at it."""
    for map_, counts, _, _ in both(TwoMaps([1.0, 0.25], -4.0), TwoMaps.layers, LEFT_RIGHT_AND_BELOW, mu):
        assert counts == [kept]
        if kept == 1:
            np.testing.assert_allclose(map_, [[0, 1], [0, 1]], atol=1e-6)


def test_a_map_that_lowers_the_score_is_not_selected():
    for _, counts, _, status in both(TwoMaps([1.0, -0.25], 0.0), TwoMaps.layers, LEFT_RIGHT_AND_BELOW):
        assert (counts, status) == ([1], "ok")


def test_a_constant_map_makes_no_mask_and_sets_no_beta():
    """alpha = ln 2 * (4, 1, 8) with the third map constant: beta = 4, so at mu = 0.4 and 0.6 the first is left alone."""
    image = [*LEFT_RIGHT_AND_BELOW, [[0.5, 0.5], [0.5, 0.5]]]
    model = TwoMaps([1.0, 0.25, 2.0], -4.0)
    for mu, counts, status in ((0.0, [2], "ok"), (0.4, [1], "ok"), (0.6, [1], "ok")):
        for map_, result, _, said in both(model, TwoMaps.layers, image, mu):
            assert (result, said) == (counts, status)
            assert map_.any() == (status == "ok")


def test_fusion_by_hand_end_to_end():
    """I = (0 1 2 4 / 1 3 0 2): V_1 = I / 4; the means 1.25 and 2 give V_2 = (0 .25 .75 1) in both rows, whose Otsu split
    is between .25 and .75; S / 2 = (V_1 + V_2) / 2 in the two right columns, 0 elsewhere. Margin / ln 2 = 3.25 - .25: 8/9."""
    for map_, counts, score, _ in both(
        LowAndHigh(-0.25), LowAndHigh.layers, [[[0.0, 1.0, 2.0, 4.0], [1.0, 3.0, 0.0, 2.0]]]
    ):
        assert counts == [1, 1]
        assert score == pytest.approx(8 / 9, abs=1e-6)
        np.testing.assert_allclose(map_, [[0, 0, 0.625, 1], [0, 0, 0.375, 0.75]], atol=1e-6)


def test_fuse_by_hand():
    """Otsu's threshold of every map after the first is in its lowest bin, so each zero of V_2 and V_3 closes its pixel."""
    maps = torch.tensor([[[0.0, 0.25], [0.5, 1.0]], [[1.0, 0.0], [0.0, 0.75]], [[0.0, 1.0], [0.0, 1.0]]])
    assert torch.equal(fuse(maps[:1]), maps[0])
    assert torch.equal(fuse(maps[:2]), torch.tensor([[1.0, 0.0], [0.0, 1.75]]))
    assert torch.equal(fuse(maps), torch.tensor([[0.0, 1.0], [0.0, 2.75]]))
    np.testing.assert_array_equal(reference.fused(list(maps.double().numpy()))[0], [[0.0, 1.0], [0.0, 2.75]])


def test_the_gate_is_strict():
    """A pixel whose V_l is exactly the threshold stays closed."""
    values = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]], dtype=torch.float64)
    threshold = float(otsu_thresholds(values)[0])
    at = torch.tensor([[0.0, threshold, 1.0, 1.0]], dtype=torch.float64)
    assert float(otsu_thresholds(at[None])[0]) == threshold
    assert fuse(torch.stack([torch.ones_like(at), at])).tolist() == [[0.0, 0.0, 2.0, 2.0]]


def test_masks_are_upsampled_first_and_min_maxed_then():
    """(0 1 0) at twice the width is (0 .25 .75 .75 .25 0), whose largest value becomes 1."""
    full = upsample(torch.tensor([[[0.0, 1.0, 0.0]]]), (2, 6))
    mask = min_max(full, *extremes(full))[0]
    expected = [[0, 1 / 3, 1, 1, 1 / 3, 0]] * 2
    np.testing.assert_allclose(mask.numpy(), expected, atol=1e-7)
    np.testing.assert_allclose(reference.mask_of(np.array([[0.0, 1.0, 0.0]]), 2, 6), expected, atol=1e-12)


def test_negative_maps_reach_from_0_to_1_too():
    full = upsample(torch.tensor([[[-3.0, 1.0]]]), (1, 4))
    np.testing.assert_allclose(min_max(full, *extremes(full))[0].numpy(), [[0, 0.25, 0.75, 1]], atol=1e-7)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 30), st.integers(1, 30), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_upsampling_equals_the_oracle(h: int, w: int, height: int, width: int, seed: int):
    height, width = max(h, height), max(w, width)
    native = torch.randn(1, h, w, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected = reference.upsampled(native[0].numpy(), height, width)
    np.testing.assert_allclose(upsample(native, (height, width))[0].numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(upsampled_sums(native, (height, width)).numpy(), [expected.sum()], atol=1e-10)


@pytest.mark.parametrize("value", [0.0, 0.1, -1 / 3, 1e30])
def test_a_constant_map_is_never_selected(value: float):
    """Also where upsampling rounds: 0.1 interpolated with itself need not be 0.1."""
    maps = torch.full((1, 3, 5), value)
    assert above_share(varying(maps), torch.tensor([1.0], dtype=torch.float64), 0.0, "kept").tolist() == [False]
    assert reference.mask_of(maps[0].double().numpy(), 17, 31) is None


# --------------------------------------------------------------------------------------------------------- Otsu's threshold

COUNTS = st.integers(2, 400)
PALETTES = st.lists(st.floats(-1e3, 1e3, allow_subnormal=False), min_size=2, max_size=6, unique=True)


def assert_equals_skimage(values: np.ndarray) -> None:
    try:
        expected = float(threshold_otsu(values))
    except ValueError:  # numpy cannot cut the range into 256 different bins
        assume(False)
        return
    assert float(otsu_thresholds(torch.from_numpy(values)[None])[0]) == expected


@given(st.integers(0, 10**6), COUNTS, st.sampled_from(["uniform", "normal", "squares", "rounded"]))
@settings(max_examples=200, deadline=None)
def test_otsu_equals_skimage_bit_for_bit_on_random_maps(seed: int, count: int, kind: str):
    random = np.random.default_rng(seed)
    values = random.normal(size=(1, count)) if kind == "normal" else random.random((1, count))
    values = {"squares": values**2, "rounded": np.round(values, 1)}.get(kind, values)
    assert_equals_skimage(values)


@given(PALETTES, st.data())
@settings(max_examples=200, deadline=None)
@example([0.0, 1.0], None)
@example([0.0, 0.5, 1.0], None)
def test_otsu_equals_skimage_on_maps_of_few_values(palette: list[float], data: st.DataObject | None):
    """Ties everywhere: between pixels, on the edges of bins, and between thresholds of equal variance."""
    picks = (
        [*range(len(palette))]
        if data is None
        else data.draw(st.lists(st.integers(0, len(palette) - 1), min_size=2, max_size=80))
    )
    assert_equals_skimage(np.array([[palette[pick] for pick in picks]]))


@given(st.floats(0.1, 10), st.integers(0, 10**6), st.sampled_from([1e-3, 1e-6, 1e-9, 1e-12]))
@settings(max_examples=100, deadline=None)
def test_otsu_equals_skimage_on_nearly_constant_maps(level: float, seed: int, spread: float):
    values = level + spread * np.random.default_rng(seed).random((4, 9))
    assert_equals_skimage(values)


@given(st.lists(st.integers(0, 256), min_size=2, max_size=300))
@settings(max_examples=100, deadline=None)
def test_otsu_equals_skimage_where_every_pixel_lies_on_the_edge_of_a_bin(steps: list[int]):
    assert_equals_skimage(np.array([[0.0, 1.0, *(step / 256 for step in steps)]]))


@given(
    st.floats(-5, 5),
    st.floats(0.01, 10),
    st.lists(st.tuples(st.integers(0, 256), st.integers(-1, 1)), min_size=2, max_size=200),
)
@settings(max_examples=300, deadline=None)
def test_otsu_equals_skimage_one_bit_beside_the_edges_of_bins(low: float, width: float, picks: list[tuple[int, int]]):
    edges = np.linspace(low, low + width, 257)
    beside = [np.nextafter(edges[step], side * np.inf) if side else edges[step] for step, side in picks]
    assert_equals_skimage(np.array([[edges[0], edges[-1], *np.clip(beside, edges[0], edges[-1])]]))


@given(st.integers(0, 10**6), st.integers(2, 12))
@settings(max_examples=60, deadline=None)
def test_otsu_equals_skimage_on_large_symmetric_maps(seed: int, levels: int):
    """Values v and 1 - v in equal numbers: two thresholds separate them equally well but for rounding."""
    half = np.random.default_rng(seed).integers(0, levels + 1, size=(90, 91)) / levels
    assert_equals_skimage(np.concatenate([half, 1 - half]))


def test_otsu_of_several_maps_is_that_of_each():
    maps = torch.rand(5, 9, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 2
    expected = [float(threshold_otsu(entry.numpy())) for entry in maps]
    assert otsu_thresholds(maps).tolist() == expected
    assert len(set(expected)) == 5


def test_otsu_of_a_constant_map_is_its_value():
    assert otsu_thresholds(torch.full((1, 3, 3), 0.3, dtype=torch.float64)).tolist() == [0.3]
