"""SISE against the oracle: the same equations once more, literally and in float64 (`reference.py`)."""

from __future__ import annotations

import copy
from functools import cache

import numpy as np
import pytest
import torch
from heatlas.engine.explanation import Explanations
from heatlas.engine.methods.sise import SISE
from torch import Tensor, nn

from ..support import reference
from ..support.oracle_nets import ARCHITECTURES, ThreeBlocks, architecture, images_like, three_blocks
from ..support.reference import ReferenceMap

MAP_TOLERANCE = 1e-3
EXACT_TOLERANCE = 1e-6
"""For engines that compute in float64: then only the order of sums differs."""
SCORE_TOLERANCE = 1e-4
GATE_TOLERANCE = 1e-6
"""Pixels whose V_l is nearer than this to its Otsu threshold are not compared: the gate is a step, so that the last float
bit decides between S + V_l and 0 there."""
SELECTION_GAP = 1e-5
"""A case is only fair if every alpha is farther than this from eq. 7's bound: else float32 may keep another map."""


def assert_agrees(
    model: nn.Module,
    names: tuple[str, ...],
    images: Tensor,
    targets: list[int] | None = None,
    *,
    mu: float = 0.0,
    **settings,
) -> None:
    """SISE's every output equals the oracle's, image by image."""
    result = SISE(model, mu=mu, keep_layers=True, **settings)(images, targets)
    assert result.maps.shape == (len(images), *images.shape[2:])
    for row, image in enumerate(images):
        oracle = reference.sise(model, names, image, None if targets is None else targets[row], mu=mu)
        assert oracle.selection_gap(mu) > SELECTION_GAP, "the case is a coin flip; choose another seed"
        assert_row_equals(result, row, oracle)


def assert_row_equals(result: Explanations, row: int, oracle: ReferenceMap, tolerance: float = MAP_TOLERANCE) -> None:
    assert result.statuses[row] == oracle.status
    assert int(result.targets[row]) == oracle.target
    assert int(result.predictions[row]) == oracle.prediction
    assert float(result.confidences[row]) == pytest.approx(oracle.score, abs=SCORE_TOLERANCE)
    assert result.mask_counts[row].tolist() == oracle.mask_counts
    assert result.maps.dtype == torch.float32
    if oracle.status != "ok":
        assert not result.maps[row].any()
        return
    assert result.layer_maps is not None
    assert len(result.layer_maps[row]) == len(oracle.layer_maps)
    for mine, theirs in zip(result.layer_maps[row].double().numpy(), oracle.layer_maps, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=tolerance, rtol=0)
    unstable = oracle.gated_near(GATE_TOLERANCE)
    assert unstable.mean() < 0.01
    map_ = result.maps[row].double().numpy()
    np.testing.assert_allclose(map_[~unstable], oracle.map[~unstable], atol=tolerance, rtol=0)
    assert map_.min() >= 0
    assert map_.max() <= 1


def case(name: str) -> tuple[nn.Module, Tensor, ReferenceMap]:
    """Model, images `(1, channel, height, width)` and what the oracle says of them; the layers are the specification's."""
    model, images = architecture(name), images_like(1, 3, ARCHITECTURES[name].size, seed=ARCHITECTURES[name].image_seed)
    return model, images, oracle_map(name)


@cache
def oracle_map(name: str) -> ReferenceMap:
    """Kept for several tests; the networks are not, because together they take a gigabyte."""
    arch = ARCHITECTURES[name]
    images = images_like(1, 3, arch.size, seed=arch.image_seed)
    return reference.sise(architecture(name), arch.layers, images[0], mu=arch.mu)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architecture_equals_the_oracle(name: str):
    """The algorithm, on layers that the engine has to find by itself, with forwards in float64."""
    model, images, oracle = case(name)
    result = SISE(copy.deepcopy(model).double(), mu=ARCHITECTURES[name].mu, batch_size=32, keep_layers=True)(
        images.double()
    )
    assert min(oracle.mask_counts) >= 1
    assert_row_equals(result, 0, oracle, EXACT_TOLERANCE)


@pytest.mark.parametrize("name", [name for name, arch in ARCHITECTURES.items() if arch.image_seed])
def test_architecture_in_float32_equals_the_oracle(name: str):
    """The numbers, with forwards in float32, on networks and images where float32 is good enough for any implementation."""
    model, images, oracle = case(name)
    assert_row_equals(SISE(model, mu=ARCHITECTURES[name].mu, batch_size=32, keep_layers=True)(images), 0, oracle)


@pytest.mark.parametrize("seed", range(6))
def test_three_blocks_equals_the_oracle_for_several_seeds(seed: int):
    model = three_blocks(seed)
    assert_agrees(model, ThreeBlocks.layers, images_like(2, 3, (24, 24), seed=seed + 1), mu=0.0)


@pytest.mark.parametrize("size", [(24, 24), (32, 20), (13, 29), (25, 25), (8, 40)])
def test_any_size_equals_the_oracle(size: tuple[int, int]):
    model = three_blocks(11, size=size)
    assert_agrees(model, ThreeBlocks.layers, images_like(2, 3, size, seed=5))


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_any_channel_count_equals_the_oracle(channels: int):
    model = three_blocks(3, channels=channels)
    assert_agrees(model, ThreeBlocks.layers, images_like(2, channels, (24, 20), seed=6))


@pytest.mark.parametrize("mu", [0.0, 0.1, 0.3, 0.5, 0.75, 0.95])
def test_any_mu_equals_the_oracle(mu: float):
    model = three_blocks(4, widths=(16, 24, 32))
    assert_agrees(model, ThreeBlocks.layers, images_like(2, 3, (24, 24), seed=7), mu=mu)


def test_larger_mu_keeps_fewer_maps():
    """The grid of mu above would prove little if every mu kept the same maps."""
    model, image = three_blocks(4, widths=(16, 24, 32)), images_like(2, 3, (24, 24), seed=7)[0]
    counts = [sum(reference.sise(model, ThreeBlocks.layers, image, mu=mu).mask_counts) for mu in (0.0, 0.3, 0.75)]
    assert counts[0] > counts[1] > counts[2] >= 3


@pytest.mark.parametrize("target", range(10))
def test_any_target_equals_the_oracle(target: int):
    model = three_blocks(5)
    assert_agrees(model, ThreeBlocks.layers, images_like(2, 3, (20, 24), seed=8), [target, (target + 3) % 10])


@pytest.mark.parametrize("classes", [2, 3, 100])
def test_any_class_count_equals_the_oracle(classes: int):
    model = three_blocks(6, classes=classes)
    assert_agrees(model, ThreeBlocks.layers, images_like(2, 3, (24, 24), seed=9))


@pytest.mark.parametrize("layers", [("relu1",), ("relu3",), ("relu1", "relu3"), ("conv1", "conv2", "conv3")])
def test_named_layers_equal_the_oracle(layers: tuple[str, ...]):
    """The convolutions are captured although an in-place ReLU overwrites their output."""
    model = three_blocks(7, widths=(12, 12, 12))
    assert_agrees(model, layers, images_like(2, 3, (24, 24), seed=10), layers=layers)


def test_frozen_parameters_equal_the_oracle():
    model = three_blocks(8).requires_grad_(False)
    assert_agrees(model, ThreeBlocks.layers, images_like(2, 3, (24, 24), seed=11))


def test_a_float64_model_equals_the_oracle_much_more_closely():
    model = three_blocks(9).double()
    image = images_like(1, 3, (24, 24), seed=12).double()
    assert_row_equals(
        SISE(model, keep_layers=True)(image), 0, reference.sise(model, ThreeBlocks.layers, image[0]), EXACT_TOLERANCE
    )


@pytest.mark.parametrize("seed", range(3))
def test_both_forms_of_the_selection_gradient_keep_the_same_maps(seed: int):
    """The oracle on itself: dp = p (1 - p) dmargin, so eq. 7 keeps the same channels for every mu."""
    model, image = three_blocks(seed, widths=(16, 16, 16)), images_like(1, 3, (24, 24), seed=seed)[0].double()
    taps, output = reference.taps_of(model, ThreeBlocks.layers)
    for target in (0, 4, 9):
        probability = reference.alphas_of(taps, output, image, target, ThreeBlocks.layers, "probability")
        margin = reference.alphas_of(taps, output, image, target, ThreeBlocks.layers, "margin")
        p = reference.probability(taps, output, image, target)
        for entry, other in zip(probability, margin, strict=True):
            np.testing.assert_allclose(entry, p * (1 - p) * other, rtol=1e-6, atol=1e-12)
            for mu in (0.0, 0.3, 0.75):
                assert reference.selected(entry, mu) == reference.selected(other, mu)
