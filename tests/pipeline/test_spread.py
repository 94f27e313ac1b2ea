"""`heatlas spread`: a dozen decisions reach every image of the class, masks lie on the mark, and people's decisions stay theirs."""

from __future__ import annotations

import re
from pathlib import Path

import heatlas
import numpy as np
import pytest
import torch
from heatlas.engine.features.spatial_features import attention_weighted, hypercolumns
from heatlas.errors import UsageError
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.decisions.rle import decode_mask, encode_mask
from heatlas.pipeline.spread.label_spread import UNKNOWN, principal_points, spread_calibrated, spread_labels
from heatlas.pipeline.spread.mark_detector import (
    detector_by_direction,
    detector_by_painting,
    hot_part,
    place_shape,
    settle_shape,
)
from heatlas.pipeline.spread.spread import spread_decisions
from torch.utils.data import DataLoader

from ..support.marked_store import MARK, SIDE, is_marked, log_shortcuts

TRUTH = np.zeros((SIDE, SIDE), bool)
TRUTH[MARK] = True


def number_of(identity: str) -> int:
    return int(Path(identity).stem)


def decide(store: str, *, painted: int, marked: int = 6, clean: int = 8) -> list[str]:
    """Decisions about some bees, and images of other classes; returns their ids."""
    atlas = heatlas.open(store)
    ids = atlas.table(["id"])["id"].to_pylist()
    own = [identity for identity in ids if is_marked(number_of(identity))][:marked]
    others = [identity for identity in ids if not is_marked(number_of(identity))]
    without = [
        *[name for name in others if name.startswith("bee/")][:4],
        *[name for name in others if not name.startswith("bee/")][:40:10],
    ][:clean]
    atlas.decide(
        [
            {"id": identity, "kind": "shortcut", "mask": encode_mask(TRUTH) if place < painted else None}
            for place, identity in enumerate(own)
        ]
    )
    atlas.decide(without, "core")
    return own + without


def spread_masks(store: str) -> dict[str, np.ndarray]:
    current = heatlas.open(store).decisions().current
    return {
        decision.id: decode_mask(decision.mask)
        for decision in current
        if decision.source == "spread" and decision.mask is not None
    }


def overlap(mask: np.ndarray, other: np.ndarray) -> float:
    return float((mask & other).sum() / (mask | other).sum())


@pytest.mark.parametrize(("painted", "least"), [(6, 0.8), (1, 0.8), (0, 0.15)])
def test_a_dozen_decisions_reach_every_image_and_its_mark(
    store: str, painted: int, least: float, capsys: pytest.CaptureFixture[str]
) -> None:
    decided = decide(store, painted=painted)
    assert main(["spread", store]) == 0
    printed = capsys.readouterr().out
    assert re.search(
        r"bee: 6 shortcut and 8 core decisions spread to \d+ images; 2[01] carry the mark; \d+ masks .* 100 % of 14 decisions are met",
        printed,
    ), printed
    atlas = heatlas.open(store)
    rows = {row["id"]: row["shortcut_probability"] for row in atlas.table(["id", "shortcut_probability"]).to_pylist()}
    known = {identity: chance for identity, chance in rows.items() if chance is not None}
    assert len(known) == (
        90 if painted else len([identity for identity in rows if number_of(identity) % 3 == 1 or identity in decided])
    )
    wrong = [identity for identity, chance in known.items() if (chance > 0.5) != is_marked(number_of(identity))]
    assert len(wrong) <= (0 if painted else 1), wrong
    masks = spread_masks(store)
    assert set(masks) == {identity for identity in rows if is_marked(number_of(identity))} - set(
        decided[:painted]
    ) - set(wrong)
    assert min(overlap(mask, TRUTH) for mask in masks.values()) >= least
    assert atlas.verify().ok


def test_a_second_call_replaces_the_first_and_peoples_decisions_stay(store: str) -> None:
    decided = decide(store, painted=6)
    first = spread_decisions(store)
    atlas = heatlas.open(store)
    wrong = sorted(spread_masks(store))[0]
    atlas.decide(wrong, "core", why="looked at it")
    atlas.decide(
        wrong,
        "undo",
        supersedes=next(d.decision_id for d in atlas.decisions().current if d.id == wrong and d.source == "spread"),
    )
    second = spread_decisions(store)
    assert second.decisions == first.decisions - 1
    current = heatlas.open(store).decisions()
    assert not current.conflicts
    people = [decision for decision in current.current if decision.source != "spread"]
    assert {decision.id for decision in people} == {*decided, wrong}
    assert {(decision.kind, decision.target) for decision in current.current if decision.source == "spread"} == {
        ("shortcut", 1)
    }
    assert wrong not in spread_masks(store)
    rows = {row["id"]: row for row in second.rows.to_pylist()}
    assert rows[wrong]["shortcut_probability"] == 0
    assert rows[decided[0]]["mask_by"] == "person"
    assert all(row["propagated_from"] in {*decided, wrong} for row in rows.values() if row["propagated_from"])


def test_decisions_that_say_nothing_are_said_to_say_nothing(store: str) -> None:
    """A wrong plant: half of ants are called marked at random."""
    atlas = heatlas.open(store)
    ants = [identity for identity in atlas.table(["id"])["id"].to_pylist() if identity.startswith("ant/")]
    atlas.decide(ants[:20:2], "shortcut")
    atlas.decide(ants[1:20:2], "core")
    spread = spread_decisions(store)
    held_out = re.search(r"Held out, (\d+) % of 20 .*Brier score ([\d.]+)", spread.texts[0])
    assert held_out is not None
    assert int(held_out[1]) < 80
    assert float(held_out[2]) > 0.15


def test_too_few_decisions_are_refused(store: str) -> None:
    with pytest.raises(UsageError, match="nobody decided `shortcut`"):
        spread_decisions(store)
    decide(store, painted=1, clean=2)
    with pytest.raises(UsageError, match=r"6 shortcut and 2 core or ok decisions .* 3 of each are needed"):
        spread_decisions(store)
    with pytest.raises(UsageError, match="in these classes"):
        spread_decisions(store, classes=["cat"])
    with pytest.raises(UsageError, match="neighbours must be at least 1"):
        spread_decisions(store, neighbours=0)


def test_masks_of_another_size_are_refused(store: str) -> None:
    decide(store, painted=0)
    log_shortcuts(store, ["bee/001.png"], np.ones((SIDE, 2 * SIDE), bool))
    with pytest.raises(UsageError, match=re.escape("has 48 x 24 pixels, the upright image 24 x 24")):
        spread_decisions(store)
    with pytest.raises(UsageError, match=re.escape("has 48 x 24 pixels, the upright image 24 x 24")):
        list(heatlas.MaskedDataset(store, masked_only=True))


def test_a_masked_data_set_feeds_a_trainer(store: str) -> None:
    decide(store, painted=6)
    spread_decisions(store)
    atlas = heatlas.open(store)
    atlas.decide("ant/000.png", "drop")
    atlas.decide("cat/002.png", "relabel", label_name="bee")
    data = heatlas.MaskedDataset(store)
    assert len(data) == 89
    assert data.labels[data.ids.index("cat/002.png")] == 1
    assert sum(data.has_mask) == 21
    images, labels, masks = next(iter(DataLoader(data, batch_size=len(data))))
    assert images.shape == (89, 3, SIDE, SIDE)
    assert labels.tolist() == data.labels
    assert (masks.flatten(1).any(dim=1)).tolist() == data.has_mask
    marked = masks[torch.tensor(data.has_mask)]
    assert min(overlap(mask.numpy(), TRUTH) for mask in marked) >= 0.8
    flipped = heatlas.MaskedDataset(
        store, masked_only=True, transform=lambda image, mask: (image.flip(-1), mask.flip(-1))
    )
    assert len(flipped) == 21
    assert torch.equal(flipped[0][2].flip(-1), data[data.ids.index(flipped.ids[0])][2])
    with pytest.raises(UsageError, match="has a mask"):
        heatlas.MaskedDataset(store, kind="core", masked_only=True)
    with pytest.raises(UsageError, match="shortcut or core"):
        heatlas.MaskedDataset(store, kind="label")  # pyright: ignore[reportArgumentType]


def test_labels_spread_as_the_closed_form_says() -> None:
    """Zhou's fixed point (I - a S)^-1 Y on the graph of nearest neighbours, written down directly."""
    random = np.random.default_rng(0)
    points = np.concatenate([random.normal(0, 1, (30, 2)), random.normal(4, 1, (30, 2))])
    labels = np.full(60, UNKNOWN)
    labels[[0, 5, 9]], labels[[30, 44]] = 0, 1
    shares = spread_labels(points, labels, neighbours=8)
    from sklearn.neighbors import kneighbors_graph

    graph = np.asarray(kneighbors_graph(points, 8, mode="connectivity", include_self=True).todense())
    np.fill_diagonal(graph, 0)
    degree = np.sqrt(np.maximum(graph.sum(axis=0), 1e-300))  # scipy's normalised Laplacian: by columns
    start = np.stack([labels == 0, labels == 1], axis=1) * 1.0
    fixed = np.linalg.solve(np.eye(60) - 0.2 * graph / degree[:, None] / degree[None, :], 0.8 * start)
    usable = fixed.sum(axis=1) > 1e-3
    assert usable.sum() > 30
    assert ((shares > 0.5) == (fixed[:, 1] > fixed[:, 0]))[usable].mean() > 0.97


def test_probabilities_are_calibrated_on_what_was_held_out() -> None:
    random = np.random.default_rng(0)
    truth = np.arange(200) % 2
    points = principal_points(random.normal(0, 1, (200, 10)) + 3 * truth[:, None])
    labels = np.where(np.arange(200) < 40, truth, UNKNOWN)
    spread = spread_calibrated(points, labels)
    assert ((spread.probability > 0.5) == truth).mean() > 0.97
    assert spread.accuracy > 0.9
    noise = spread_calibrated(principal_points(random.normal(0, 1, (200, 10))), labels)
    assert noise.accuracy < 0.75
    assert noise.brier > 0.2
    helped = spread_calibrated(
        principal_points(random.normal(0, 1, (200, 10))), labels, lambda usable, asked: truth[asked] + 0.0
    )
    assert helped.accuracy > 0.95
    assert ((helped.probability > 0.5) == truth).mean() > 0.95


def scene(marked: bool, number: int, top: int = 10, left: int = 3) -> np.ndarray:
    """Hypercolumns of noise; the mark is a square in two of five channels."""
    values = np.random.default_rng(number).normal(0, 0.3, (5, 20, 20)).astype(np.float32)
    if marked:
        values[:2, top : top + 5, left : left + 5] += 2.0
    return values


def region(top: int = 10, left: int = 3) -> np.ndarray:
    mask = np.zeros((40, 40), bool)
    mask[2 * top : 2 * top + 10, 2 * left : 2 * left + 10] = True
    return mask


def test_a_painted_mark_is_found_again_at_another_place() -> None:
    detector = detector_by_painting([scene(True, 0)], [region()], [scene(False, number) for number in (1, 2)])
    assert detector is not None
    placed, fit = place_shape(detector.logits(scene(True, 5, 2, 12)), detector.shapes)
    assert overlap(placed, region(2, 12)) > 0.8
    assert fit > 0.5
    assert place_shape(detector.logits(scene(False, 6)), detector.shapes)[1] < 0.25
    assert detector_by_painting([scene(True, 0)], [np.zeros((40, 40), bool)], []) is None


@pytest.mark.parametrize("shift", [(0, 0), (1, 2), (-3, 1), (2, -3)])
def test_a_painted_mark_is_settled_to_the_pixel(shift: tuple[int, int]) -> None:
    """The detector's cells are 4 pixels wide; the mark's bars are 1."""
    random = np.random.default_rng(0)
    mark = np.tile(np.array([1.0, -1, -1, 1, 1, -1, 1, -1]), (3, 6, 1))
    shape = np.zeros((40, 40), bool)
    shape[16:22, 12:20] = True
    example, image = random.normal(0, 0.2, (2, 3, 40, 40))
    example[:, 16:22, 12:20] = mark
    top, left = 16 + shift[0], 12 + shift[1]
    image[:, top : top + 6, left : left + 8] = 0.9 * mark
    truth = np.roll(shape, shift, (0, 1))
    logits = (
        12
        * np.asarray(
            torch.nn.functional.interpolate(torch.from_numpy(truth)[None, None].float(), (10, 10), mode="area")[0, 0]
        )
        - 6
    )
    assert overlap(settle_shape(logits, [shape], image, [example]), truth) == 1
    unlike = random.normal(0, 1, (3, 40, 40))
    assert np.array_equal(settle_shape(logits, [shape], unlike, [example]), place_shape(logits, [shape])[0])


def test_a_direction_finds_what_nobody_painted() -> None:
    marked, clean = (
        [scene(True, number, 2 + number, 9) for number in range(8)],
        [scene(False, 20 + number) for number in range(8)],
    )
    detector = detector_by_direction(marked, clean)
    assert detector is not None
    assert set(np.flatnonzero(detector.weights)) <= {0, 1}
    assert overlap(hot_part(detector.logits(scene(True, 50, 12, 4)), (40, 40)), region(12, 4)) > 0.4
    assert not hot_part(np.full((4, 4), -1.0), (8, 8)).any()
    assert detector_by_direction(marked[:1], clean) is None


def test_features_are_weighted_by_the_map() -> None:
    features, maps = torch.zeros(2, 3, 4, 4), torch.zeros(2, 8, 8)
    features[:, :, :2] = 1.0
    maps[0, :4] = 0.7
    weighted = attention_weighted(features, maps)
    assert weighted[0].tolist() == pytest.approx([1, 1, 1, 0, 0, 0])
    assert weighted[1].tolist() == pytest.approx([0.5] * 6)
    columns = hypercolumns(torch.zeros(1, 3, 8, 8), [torch.ones(1, 2, 4, 4), torch.full((1, 5, 2, 2), 2.0)])
    assert columns.shape == (1, 10, 4, 4)
    assert columns[0, :, 0, 0].tolist() == [0] * 3 + [1] * 2 + [2] * 5
