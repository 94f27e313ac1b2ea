"""Interventions: regions are filled and pasted as said, controls lie elsewhere, and a planted cue is measured as necessary and sufficient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from heatlas.engine.interventions.effects import measure_removals, measure_transplants
from heatlas.engine.interventions.equal_area import control_regions, correlated, jittered_moves
from heatlas.engine.interventions.prediction_sign import intervention_scorer, signed_confidence
from heatlas.engine.interventions.region_fill import FILL_TEXTS, fill_regions, moved_by, paste_region
from heatlas.engine.scoring.confidence import SIGMOID, SOFTMAX
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.restoration import inpaint_biharmonic
from torch import nn

SIDE = 16


def region_of(top: int, left: int, height: int, width: int, side: int = SIDE) -> torch.Tensor:
    region = torch.zeros(side, side, dtype=torch.bool)
    region[top : top + height, left : left + width] = True
    return region


CORNER = region_of(12, 0, 4, 4)


class CornerModel(nn.Module):
    """Class 1 where the lower left corner is bright; else class 0 or 2 by the brightness of the rest. Knows exactly one mark."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        level, corner = images[:, 0, :10, 6:].mean(dim=(1, 2)), images[:, 0, 12:, :4].mean(dim=(1, 2))
        return torch.stack([-4 * level, 12 * torch.relu(corner - 2), 4 * level], dim=1)


def scene(marked: bool, count: int = 6, level: float = 0.0) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    images = 0.1 * torch.randn(count, 1, SIDE, SIDE, generator=random) + level
    if marked:
        images[:, :, 12:, :4] = 5.0
    return images


def scorer(batch_size: int = 7):
    return intervention_scorer(CornerModel(), SOFTMAX, batch_size=batch_size)


@given(st.integers(0, 12), st.integers(0, 12), st.integers(1, 6), st.integers(1, 6), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_control_regions_have_the_shape_and_lie_elsewhere(
    top: int, left: int, height: int, width: int, seed: int
) -> None:
    region = region_of(top, left, height, width)
    controls = control_regions(region, torch.Generator().manual_seed(seed), count=8)
    area = int(region.sum())
    assert len(controls) == 8
    assert len({tuple(control.flatten().tolist()) for control in controls}) == 8
    for control in controls:
        assert int(control.sum()) == area
        assert int((control & region).sum()) <= 0.1 * area
        rows, columns = (control.any(dim=1 - axis).nonzero()[:, 0] for axis in (0, 1))
        box = region.any(dim=1).sum() * region.any(dim=0).sum()
        assert (rows[-1] - rows[0] + 1) * (
            columns[-1] - columns[0] + 1
        ) == box  # one piece: it does not continue at an edge


def test_regions_that_leave_no_room_have_no_controls_and_broken_ones_wrap() -> None:
    generator = torch.Generator().manual_seed(0)
    assert len(control_regions(torch.ones(SIDE, SIDE, dtype=torch.bool), generator)) == 0
    assert len(control_regions(torch.zeros(SIDE, SIDE, dtype=torch.bool), generator)) == 0
    frame = region_of(0, 0, SIDE, SIDE)
    frame[1:-1, 1:-1] = False  # its bounding box cannot move
    wrapped = control_regions(frame, generator)
    assert all(int(control.sum()) == int(frame.sum()) for control in wrapped)
    column = region_of(0, 0, SIDE, 3)
    assert all(not bool((control & column).any()) for control in control_regions(column, generator))


def test_controls_keep_away_from_the_mass_of_a_map() -> None:
    region, peak = region_of(6, 6, 3, 3), torch.zeros(SIDE, SIDE)
    peak[:, 8:] = 1.0
    controls = control_regions(region, torch.Generator().manual_seed(0), avoid=peak)
    assert all(float(peak[control].sum()) <= 3 for control in controls)
    assert float(correlated(region, peak)[0, 0]) == pytest.approx(float(peak[region].sum()))


@pytest.mark.parametrize("fill", FILL_TEXTS)
def test_fills_change_the_region_only_and_take_a_bright_mark_away(fill: str) -> None:
    images = scene(marked=True, level=1.0)
    regions = CORNER.expand(len(images), SIDE, SIDE)
    filled = fill_regions(images, regions, fill)  # pyright: ignore[reportArgumentType]
    kept = ~regions[:, None].expand_as(images)
    assert torch.equal(filled[kept], images[kept])
    level = float(filled[:, 0, 12:, :4].mean())
    assert (
        level == pytest.approx(1.0, abs=0.15) if fill != "blur" else level < 3
    )  # a blur keeps some of the mark's own colour
    assert torch.equal(fill_regions(images, torch.zeros_like(regions), fill), images)  # pyright: ignore[reportArgumentType]


def test_a_hole_is_filled_as_scikit_image_fills_it() -> None:
    down, right = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")
    smooth = (0.5 * down + 0.3 * right)[None, None]
    region = region_of(10, 12, 8, 7, 32)
    oracle = torch.from_numpy(inpaint_biharmonic(smooth[0, 0].numpy(), region.numpy()))
    for fill in ("surround", "impute"):
        filled = fill_regions(smooth, region[None], fill)[0, 0]
        assert float((filled - oracle)[region].abs().max()) < 0.15, fill


def test_a_fill_of_ones_own_is_called_and_checked() -> None:
    images, regions = scene(True), CORNER.expand(6, SIDE, SIDE)
    assert torch.equal(
        fill_regions(images, regions, lambda batch, where: batch * 0)[:, :, 12:, :4], torch.zeros(6, 1, 4, 4)
    )
    with pytest.raises(ValueError, match="must return images of shape"):
        fill_regions(images, regions, lambda batch, where: batch[:1])
    with pytest.raises(ValueError, match="surround, mean, blur, impute"):
        fill_regions(images, regions, "grey")  # pyright: ignore[reportArgumentType]


def test_what_is_pasted_arrives_where_it_is_moved_to() -> None:
    donor, receivers = scene(True, 1)[0], scene(False, 2)
    moves = torch.tensor([[-3, 2], [0, 0]])
    pasted = paste_region(receivers, donor, CORNER, moves, feather=0)
    assert torch.equal(pasted[0, :, 9:13, 2:6], donor[:, 12:, :4])
    assert torch.equal(pasted[1, :, 12:, :4], donor[:, 12:, :4])
    outside = ~region_of(9, 2, 4, 4)
    assert torch.equal(pasted[0, 0][outside], receivers[0, 0][outside])
    soft = paste_region(receivers, donor, CORNER, None, feather=1.0)
    torch.testing.assert_close(soft[:, :, 12:, :4], donor[:, 12:, :4].expand(2, 1, 4, 4))
    assert torch.equal(soft[:, :, :6], receivers[:, :, :6])
    assert torch.equal(moved_by(donor, 0, 0), donor)
    assert not moved_by(donor, SIDE, 0).any()


def test_moves_keep_the_region_inside() -> None:
    moves = jittered_moves(CORNER, 200, 3, torch.Generator().manual_seed(0))
    assert {int(down) for down, _ in moves} == {-3, -2, -1, 0}
    assert {int(right) for _, right in moves} == {0, 1, 2, 3}


@pytest.mark.parametrize("confidence", [SOFTMAX, SIGMOID])
def test_the_sign_says_whether_the_class_is_predicted(confidence) -> None:
    logits = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(50) % 4
    signed = signed_confidence(confidence).value(logits, targets)
    torch.testing.assert_close(signed.abs(), confidence.value(logits, targets))
    assert torch.equal(signed > 0, logits.argmax(dim=1) == targets)


def test_a_mark_that_decides_is_necessary_and_another_place_is_not() -> None:
    images, targets = scene(True), [1] * 6
    marked = measure_removals(scorer(), images, CORNER.expand(6, SIDE, SIDE), targets)
    assert (marked.necessity > 0.6).all()
    assert marked.predicted.all()
    assert marked.lost.all()
    assert (marked.lost_control == 0).all()
    elsewhere = measure_removals(scorer(), images, region_of(0, 8, 4, 4).expand(6, SIDE, SIDE), targets)
    assert (elsewhere.drop < 0.05).all()
    assert not elsewhere.lost.any()
    assert (elsewhere.necessity < 0.05).all()


def test_removals_are_those_of_plain_forwards_whatever_the_batch() -> None:
    images, targets = scene(True) + torch.arange(6.0)[:, None, None, None] * 0.1, [0, 1, 2, 0, 1, 2]
    regions = CORNER.expand(6, SIDE, SIDE)
    model = CornerModel()
    plain = model(fill_regions(images, regions, "mean")).softmax(dim=1)[torch.arange(6), torch.tensor(targets)]
    first, second = (
        measure_removals(scorer(size), images, regions, targets, fill="mean", seeds=[9] * 6) for size in (1, 64)
    )
    np.testing.assert_allclose(first.removed, plain.numpy(), atol=1e-6)
    for name in ("whole", "removed", "control", "lost_control"):
        np.testing.assert_allclose(getattr(first, name), getattr(second, name), atol=1e-6)


def test_a_region_without_room_for_controls_says_so() -> None:
    numbers = measure_removals(scorer(), scene(True, 2), torch.ones(2, SIDE, SIDE, dtype=torch.bool), [1, 1])
    assert np.isnan(numbers.necessity).all()
    assert np.isfinite(numbers.drop).all()


def test_a_pasted_mark_makes_other_images_the_class_and_a_clean_region_does_not() -> None:
    receivers, chosen = scene(False, 5, level=0.5), np.array([[0, 1, 2], [2, 3, 4], [0, 2, 4]])
    regions = CORNER.expand(3, SIDE, SIDE)
    marked = measure_transplants(scorer(), scene(True, 3), regions, 1, receivers, chosen)
    assert (marked.rise > 0.6).all()
    assert marked.turned.all()
    assert (np.abs(marked.control_rise) < 0.1).all()
    assert not marked.turned_control.any()
    clean = measure_transplants(scorer(), scene(False, 3), regions, 1, receivers, chosen)
    assert (np.abs(clean.rise) < 0.1).all()
    assert not clean.turned.any()
    plain = CornerModel()(receivers).softmax(dim=1)[:, 1].numpy()
    np.testing.assert_allclose(marked.before, plain[chosen], atol=1e-6)


def test_what_hides_a_receivers_own_mark_is_not_called_sufficient() -> None:
    """Any patch over the mark makes a marked image another class: the control, pasted at the same place, shows it."""
    receivers, chosen = scene(True, 4, level=0.5), np.array([[0, 1, 2, 3]] * 2)
    hiding = measure_transplants(
        scorer(), scene(False, 2), CORNER.expand(2, SIDE, SIDE), 2, receivers, chosen, jitter=0
    )
    assert (hiding.rise > 0.5).all()
    assert hiding.turned.all()
    assert (np.abs(hiding.sufficiency) < 0.05).all()
    assert hiding.turned_control.all()


def test_no_images_give_no_numbers() -> None:
    none = torch.zeros(0, 1, SIDE, SIDE)
    assert measure_removals(scorer(), none, torch.zeros(0, SIDE, SIDE, dtype=torch.bool), []).necessity.shape == (0,)
