"""Measure a group of rows: remove its regions, paste them into other classes' images, and do the same with what should not matter.

Two nulls stand beside every number: control regions of equal area in the same images, and the same region in images of other classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ...engine.interventions.effects import (
    Removals,
    Transplants,
    measure_changes,
    measure_removals,
    measure_transplants,
)
from ...engine.interventions.region_fill import RegionFill
from ...engine.scoring.masked_scorer import Scorer
from ..decisions.upright_masks import WHOLE_SHARE
from ..features.cue_transfer import given_cue, most_needed_patch
from .enlarged_maps import maps_of_rows
from .groups_of_rows import FEWEST_IMAGES, ExplainedRow, RowGroup
from .places import Region

if TYPE_CHECKING:
    from ..features.compute import StoredModel
    from ..store.reader import StoreReader

POOL = 48
"""Images of other classes that regions are pasted into."""
CHUNK = 32
"""Images in memory, with their variants, at a time."""
HALVES = 4
"""Random halves that a cue is compared with."""


@dataclass(frozen=True, kw_only=True)
class InterventionPlan:
    """How many of what, and with what a region is filled."""

    images: int = 64
    """Rows of a group, an even sample by a digest of the id."""
    receivers: int = 8
    """Images of other classes that each region is pasted into."""
    controls: int = 8
    """Control regions per image."""
    fill: RegionFill = "surround"
    seed: int = 0


@dataclass(frozen=True, eq=False)
class GroupEffects:
    """What was measured of one group."""

    group: RowGroup
    rows: tuple[ExplainedRow, ...]
    """Those that could be read, in the order of the numbers."""
    removals: Removals
    null_removals: Removals
    """The same regions removed from images of other classes, for what those are."""
    rises: Float[np.ndarray, " donor"]
    """Mean rise of the class's confidence in receivers, by donor; of a cue that is no region, by receiver."""
    control_rises: Float[np.ndarray, " donor"]
    null_rises: Float[np.ndarray, " other"]
    """The same with regions taken from images of other classes."""
    null_control_rises: Float[np.ndarray, " other"]
    turned: float
    """Share of (donor, receiver) pairs that become the class."""
    turned_control: float
    turned_null: float
    turned_by_class: dict[int, tuple[float, int]] = field(default_factory=dict)
    """Share and number of pairs by the receivers' predicted class."""
    per_donor: bool = True
    """Whether `rises` belong to the rows."""


@dataclass(frozen=True, eq=False)
class ImageBench:
    """Model, images and maps that all groups share."""

    model: StoredModel
    scorer: Scorer
    atlas: StoreReader
    method: str
    rows: Sequence[ExplainedRow]
    plan: InterventionPlan

    def measure(self, group: RowGroup) -> GroupEffects | None:
        """The effects of a group; None where fewer than `FEWEST_IMAGES` of its images, or of other classes' images, can be read."""
        rows, images = self._read(self._sample(group.rows, self.plan.images))
        others, null_images = self._read(
            self._sample(self._others(group.target), min(self.plan.images, max(len(rows), 2 * FEWEST_IMAGES)))
        )
        pool, receivers = self._read(self._spread_over_classes(self._others(group.target)))
        if min(len(rows), len(others), len(pool)) < FEWEST_IMAGES:
            return None
        if group.region_of is None and group.cue != "patch":
            return self._measure_cue(group, (rows, images), (others, null_images), (pool, receivers))
        regions = (
            self._patches(images, group.target)
            if group.region_of is None
            else _stacked([group.region_of(row.id) for row in rows])
        )
        kept = [
            place
            for place, share in enumerate(regions.flatten(1).float().mean(dim=1).tolist())
            if 0 < share <= WHOLE_SHARE
        ]
        if len(kept) < FEWEST_IMAGES:
            return None
        rows, images, regions = tuple(rows[place] for place in kept), images[kept], regions[kept]
        places = torch.arange(len(others)) % len(rows)
        return self._measure_regions(
            group, (rows, images, regions), (others, null_images, regions[places]), (pool, receivers)
        )

    def _measure_regions(
        self,
        group: RowGroup,
        own: tuple[tuple[ExplainedRow, ...], Tensor, Tensor],
        null: tuple[tuple[ExplainedRow, ...], Tensor, Tensor],
        pool: tuple[tuple[ExplainedRow, ...], Tensor],
    ) -> GroupEffects:
        own_chosen, null_chosen = (
            self._receivers(len(part[0]), len(pool[0]), group.target, number) for number, part in enumerate((own, null))
        )
        transplants = self._transplants(own, group.target, pool[1], own_chosen)
        others = self._transplants(null, group.target, pool[1], null_chosen)
        return GroupEffects(
            group, own[0], self._removals(own), self._removals(null),
            transplants.rise, transplants.control_rise, others.rise, others.control_rise,
            float(transplants.turned.mean()), float(np.nanmean(transplants.turned_control)) if np.isfinite(transplants.control).any() else np.nan,
            float(others.turned.mean()), _by_class(transplants, own_chosen, pool[0]),
        )  # fmt: skip

    def _removals(self, part: tuple[tuple[ExplainedRow, ...], Tensor, Tensor]) -> Removals:
        rows, images, regions = part
        pieces = [
            measure_removals(
                self.scorer, self._moved(images[chunk]), regions[chunk].to(self.model.device), [row.target for row in rows[chunk]], fill=self.plan.fill,
                controls=self.plan.controls, avoid=self._maps(rows[chunk]), seeds=[_seed(row.id, self.plan.seed) for row in rows[chunk]],
            )
            for chunk in _chunks(len(rows))
        ]  # fmt: skip
        return Removals(
            *(np.concatenate([getattr(piece, name) for piece in pieces]) for name in Removals.__dataclass_fields__)
        )

    def _transplants(
        self, part: tuple[tuple[ExplainedRow, ...], Tensor, Tensor], target: int, receivers: Tensor, chosen: np.ndarray
    ) -> Transplants:
        rows, images, regions = part
        moved = self._moved(receivers)
        pieces = [
            measure_transplants(
                self.scorer, self._moved(images[chunk]), regions[chunk].to(self.model.device), target, moved, chosen[chunk],
                avoid=self._maps(rows[chunk]), seeds=[_seed(row.id, self.plan.seed) for row in rows[chunk]],
            )
            for chunk in _chunks(len(rows))
        ]  # fmt: skip
        return Transplants(
            *(np.concatenate([getattr(piece, name) for piece in pieces]) for name in Transplants.__dataclass_fields__)
        )

    def _measure_cue(
        self,
        group: RowGroup,
        own: tuple[tuple[ExplainedRow, ...], Tensor],
        null: tuple[tuple[ExplainedRow, ...], Tensor],
        pool: tuple[tuple[ExplainedRow, ...], Tensor],
    ) -> GroupEffects | None:
        """A cue that is no region: what the carriers have on average is taken from them and given to others; random halves are controls."""
        carriers = {row.id for row in group.rows}
        others = group.rest or [row for row in self._predicted(group.target) if row.id not in carriers]
        _, rest = self._read(self._sample(others, self.plan.images))
        if len(rest) < FEWEST_IMAGES or group.cue is None:
            return None
        random, kind = np.random.default_rng(self.plan.seed), group.cue
        whole = torch.cat([own[1], rest])
        halves = []
        for _ in range(HALVES):
            order = torch.from_numpy(random.permutation(len(whole)))
            halves.append((whole[order[: len(own[1])]], whole[order[len(own[1]) :]]))
        removals = self._changes(own, kind, own[1], rest, halves)
        null_removals = self._changes(null, kind, own[1], rest, halves)
        targets = [group.target] * len(pool[0])

        def given(carriers: Tensor, others: Tensor) -> Tensor:
            return given_cue(pool[1], carriers, others)[kind]

        rises = measure_changes(
            self.scorer,
            self._moved(pool[1]),
            self._moved(given(own[1], rest)),
            self._moved(torch.stack([given(*half) for half in halves])),
            targets,
        )
        middle = len(null[1]) // 2
        null_given = measure_changes(
            self.scorer,
            self._moved(pool[1]),
            self._moved(given(null[1][:middle], null[1][middle:])),
            self._moved(pool[1][None]),
            targets,
        )
        classes = np.array([row.prediction for row in pool[0]])
        by_class = {
            int(index): (float(rises.gained[classes == index].mean()), int((classes == index).sum()))
            for index in np.unique(classes)
        }
        return GroupEffects(
            group, own[0], removals, null_removals, -rises.drop, -rises.control_drop, -null_given.drop, -null_given.control_drop,
            float(rises.gained.mean()), float(rises.gained_control.mean()), float(null_given.gained.mean()), by_class, per_donor=False,
        )  # fmt: skip

    def _changes(
        self,
        part: tuple[tuple[ExplainedRow, ...], Tensor],
        kind: str,
        carriers: Tensor,
        rest: Tensor,
        halves: Sequence[tuple[Tensor, Tensor]],
    ) -> Removals:
        rows, images = part
        changed = given_cue(images, rest, carriers)[kind]
        controls = torch.stack([given_cue(images, second, first)[kind] for first, second in halves])
        return measure_changes(
            self.scorer, self._moved(images), self._moved(changed), self._moved(controls), [row.target for row in rows]
        )

    def _patches(self, images: Tensor, target: int) -> Tensor:
        """The patch that each image's class hangs on, as a region."""
        regions = torch.zeros(len(images), *images.shape[-2:], dtype=torch.bool)
        for region, image in zip(regions, images, strict=True):
            top, left, side = most_needed_patch(image, self.model.confidences, target)
            region[top : top + side, left : left + side] = True
        return regions

    def _receivers(self, count: int, pool: int, target: int, number: int) -> np.ndarray:
        random = np.random.default_rng([self.plan.seed, target, number])
        many = min(self.plan.receivers, pool)
        return np.stack([random.choice(pool, many, replace=False) for _ in range(count)])

    def _predicted(self, target: int) -> list[ExplainedRow]:
        return [row for row in self.rows if row.target == row.prediction == target]

    def _others(self, target: int) -> list[ExplainedRow]:
        """Rows that explain a prediction of another class, of images that are not labelled as the class either."""
        return [row for row in self.rows if row.target == row.prediction != target and row.label != target]

    def _sample(self, rows: Sequence[ExplainedRow], most: int) -> list[ExplainedRow]:
        return sorted(rows, key=lambda row: _seed(row.id, self.plan.seed))[:most]

    def _spread_over_classes(self, rows: Sequence[ExplainedRow]) -> list[ExplainedRow]:
        """A sample in which classes take turns."""
        turns: dict[int, int] = {}
        ranked = []
        for row in self._sample(rows, len(rows)):
            turns[row.prediction] = turns.get(row.prediction, 0) + 1
            ranked.append((turns[row.prediction], row.prediction, row))
        return [row for _, _, row in sorted(ranked, key=lambda entry: entry[:2])[:POOL]]

    def _read(self, rows: Sequence[ExplainedRow]) -> tuple[tuple[ExplainedRow, ...], Tensor]:
        """The rows whose images can be read, and their images on the CPU."""
        by_id = self.model.samples_by_id
        wanted = {row.id: row for row in rows}
        batches = list(self.model.batches(tuple(by_id[row.id] for row in rows if row.id in by_id)))
        read = tuple(wanted[sample.id] for samples, _ in batches for sample in samples)
        return read, torch.cat([images for _, images in batches]) if batches else torch.zeros(0)

    def _maps(self, rows: Sequence[ExplainedRow]) -> Tensor | None:
        """Stored maps at input size, for control regions to keep away from; None where the store has none."""
        maps = maps_of_rows(self.atlas, self.method, rows, self.model.preprocess.size)
        return None if maps is None else torch.from_numpy(maps)

    def _moved(self, images: Tensor) -> Tensor:
        return images.to(self.model.device)


def _stacked(regions: Sequence[Region]) -> Tensor:
    return torch.from_numpy(np.stack(regions))


def _seed(identity: str, seed: int) -> int:
    """Belongs to an image: the same in any store and order."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{identity}".encode("utf-8", "surrogateescape")).digest()[:6], "big")


def _chunks(count: int) -> Iterator[slice]:
    return (slice(start, start + CHUNK) for start in range(0, count, CHUNK))


def _by_class(
    transplants: Transplants, chosen: np.ndarray, pool: Sequence[ExplainedRow]
) -> dict[int, tuple[float, int]]:
    classes = np.array([row.prediction for row in pool])[chosen]
    return {
        int(index): (float(transplants.turned[classes == index].mean()), int((classes == index).sum()))
        for index in np.unique(classes)
    }
