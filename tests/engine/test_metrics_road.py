"""ROAD: the imputation against a dense solver and against pytorch-grad-cam's, the metric by hand, and ties."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from heatlas.engine.metrics.imputation import impute
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ..support.metric_cases import SumModel, measure_with, variants_of

WEIGHTS = {(dy, dx): 1 / 6 if 0 in (dy, dx) else 1 / 12 for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)}


def dense_fill(image: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """The system of Rong et al. written out pixel by pixel and solved directly; image `(channel, height, width)`."""
    height, width = removed.shape
    unknown = {place: number for number, place in enumerate(zip(*removed.nonzero(), strict=True))}
    matrix, right = np.zeros((len(unknown), len(unknown))), np.zeros((len(unknown), len(image)))
    for (y, x), row in unknown.items():
        for (dy, dx), weight in WEIGHTS.items():
            if 0 <= y + dy < height and 0 <= x + dx < width:
                matrix[row, row] += weight
                if (y + dy, x + dx) in unknown:
                    matrix[row, unknown[y + dy, x + dx]] -= weight
                else:
                    right[row] += weight * image[:, y + dy, x + dx]
    filled = image.astype(np.float64)
    if unknown:
        filled[:, removed] = np.linalg.solve(matrix, right).T
    return filled


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))).filter(lambda removed: not removed.all()),
    st.integers(0, 1000),
)
def test_imputation_against_a_dense_solver(removed: np.ndarray, seed: int):
    image = np.random.default_rng(seed).normal(size=(2, *removed.shape)).astype(np.float32)
    filled, solved = impute(torch.tensor(image), torch.tensor(removed)[None])

    assert solved.tolist() == [True]
    assert np.abs(filled[0].numpy() - dense_fill(image, removed)).max() < 1e-4


@pytest.mark.filterwarnings("ignore")
def test_imputation_against_pytorch_grad_cam():
    road = pytest.importorskip("pytorch_grad_cam.metrics.road", reason="pip install grad-cam")
    image = torch.randn(3, 24, 20, generator=torch.Generator().manual_seed(0))
    removed = torch.rand(24, 20, generator=torch.Generator().manual_seed(1)) < 0.6
    removed[4:15, 2:13] = True
    theirs = road.NoisyLinearImputer(noise=0)(image, (~removed).float())
    ours, solved = impute(image, removed[None])

    assert bool(solved.all())
    assert torch.allclose(ours[0], theirs, atol=1e-4)


def test_a_hole_in_a_plane_is_filled_with_the_plane():
    plane = (2 * torch.arange(12.0)[:, None] - 3 * torch.arange(10.0)[None])[None]
    removed = torch.zeros(1, 12, 10, dtype=torch.bool)
    removed[0, 2:9, 3:8] = True

    assert torch.allclose(impute(plane, removed)[0][0], plane, atol=1e-4)


def test_one_pixel_by_hand():
    image = torch.tensor([[[1.0, 2.0, 1.0], [4.0, 99.0, 4.0], [1.0, 2.0, 1.0]]])
    removed = torch.zeros(1, 3, 3, dtype=torch.bool)
    removed[0, 1, 1] = True

    assert impute(image, removed)[0][0, 0, 1, 1].item() == pytest.approx((2 + 2 + 4 + 4) / 6 + 4 * 1 / 12, abs=1e-5)


def test_kept_pixels_keep_their_bits_and_get_no_noise():
    image = torch.randn(3, 8, 8)
    removed = torch.rand(4, 8, 8) < 0.5
    filled, _ = impute(image, removed, torch.full((4, 3, 8, 8), 7.0))
    plain, _ = impute(image, removed)

    assert torch.equal(filled.where(~removed[:, None], 0), image.expand(4, -1, -1, -1).where(~removed[:, None], 0))
    assert torch.allclose((filled - plain).where(removed[:, None], 7), torch.tensor(7.0), atol=1e-5)


def test_an_unsolved_system_says_so():
    image, removed = torch.randn(1, 32, 32), torch.ones(2, 32, 32, dtype=torch.bool)
    removed[0, 0, 0] = removed[0, 31, 31] = False

    assert impute(image, removed, max_steps=1)[1].tolist() == [False, False]
    assert impute(image, removed)[1].tolist() == [True, False], "an image without any pixel left cannot be filled"


def test_variants_do_not_depend_on_each_other():
    image, removed = torch.randn(3, 16, 16), torch.rand(3, 16, 16) < torch.tensor([0.1, 0.5, 0.9])[:, None, None]
    together, _ = impute(image, removed)

    for place in range(3):
        assert torch.equal(impute(image, removed[place : place + 1])[0][0], together[place])


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.float32, (10, 10), elements=st.sampled_from([0.0, 0.0, 0.0, 0.0, 0.5, 1.0])))
def test_exactly_the_share_is_removed_however_many_tie(map_: np.ndarray):
    image = torch.full((1, 10, 10), 5.0)  # imputation gives back 5, and noise marks what was removed
    variants = variants_of("road", 0, image, torch.tensor(map_))

    assert (variants != 5).sum(dim=(1, 2, 3)).tolist() == [20, 40, 60, 80, 20, 40, 60, 80]


def test_most_and_least_relevant_pixels_are_removed():
    map_ = torch.arange(100.0).view(10, 10)
    changed = variants_of("road", 0, torch.full((1, 10, 10), 5.0), map_)[:, 0] != 5

    assert torch.equal(changed[0], map_ >= 80)
    assert torch.equal(changed[7], map_ < 80)


@pytest.mark.filterwarnings("ignore")
def test_pytorch_grad_cam_removes_everything_where_most_of_the_map_ties():
    """Its mask is `map < percentile`: where the percentile is the tied 0, no pixel is kept, so "20 %" removes all."""
    theirs = pytest.importorskip("pytorch_grad_cam.metrics.perturbation_confidence", reason="pip install grad-cam")
    map_ = torch.zeros(10, 10)
    map_[3:5, 3:9] = 1  # 88 of 100 pixels tie at 0
    kept = theirs.RemoveMostRelevantFirst(80, lambda image, mask: mask)(torch.ones(3, 10, 10), map_)
    changed = variants_of("road", 0, torch.full((1, 10, 10), 5.0), map_)[0, 0] != 5

    assert kept.sum() == 0
    assert changed.sum() == 20


def test_the_metric_on_an_image_whose_bright_square_makes_the_class():
    images = torch.zeros(1, 3, 16, 16)
    images[0, :, 4:9, 4:9] = 1
    right = images[:, 0] + 0.01 * torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0))
    model = SumModel(0.1)
    good, bad = measure_with(model, "road", images, right)[0], measure_with(model, "road", images, 1 - right)[0]

    assert good > 0.1
    assert good == pytest.approx(-bad, abs=0.01), "only the noise differs when least and most relevant change places"


def test_noise_belongs_to_the_sample():
    images, maps = torch.rand(1, 3, 8, 8), torch.rand(1, 8, 8)
    first, again, other, reseeded = (
        variants_of("road", 0, images[0], maps[0], sample=sample, seed=seed)
        for sample, seed in ((1, 0), (1, 0), (2, 0), (0, 1))
    )

    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, reseeded), "(seed 0, sample 1) and (seed 1, sample 0) are different streams"


def test_a_two_pixel_image_keeps_one():
    value = measure_with(SumModel(), "road", torch.rand(1, 3, 1, 2), torch.tensor([[[0.0, 1.0]]]))[0]

    assert math.isfinite(value)
