"""Find cues that some images of a class share and that decide for the class by themselves: stickers, frames, colour casts, textures.

Candidates are ways to split the class in two (`cue_splits`). The verdict is by intervention: what distinguishes the one half from the other is
given to images of other classes (`cue_transfer`); a cue is what makes the model see the class there. A patch that an image hangs on is pasted from
wherever it is, so that a mark needs no fixed place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from .cue_splits import candidate_splits, describe_images, separation, sharpened
from .cue_thresholds import LEAST_TRANSFER
from .cue_transfer import Predict, given_cue, patch_transfers

LEAST_SEPARATION = 3.0
"""Separation of carriers and rest from which on there are two groups; a normal distribution cut in half has 2.65."""
FEWEST_IMAGES = 20
"""Correct predictions without which a class is not judged."""
MOST_IMAGES = 300
"""Images of a class whose pixels are compared."""
MOST_CLASSES = 50
OTHERS = 48
"""Images of other classes that are given the cue."""
SCREENING = 24
"""How many of them are given every candidate."""
PATCHED = 32
"""Images of a class whose most needed patch is looked for."""
FEWEST_PATCHES = 4
"""Of them, on either side of a split."""
RANDOM_SPLITS = 5
Images = Callable[[Int[np.ndarray, " row"]], Float[Tensor, "row channel height width"]]


@dataclass(frozen=True, eq=False)
class Cue:
    """The strongest candidate of one class."""

    label: int
    rows: Int[np.ndarray, " member"]
    """Images that carry it, by row number."""
    share: float
    """Of the class's correct predictions."""
    kind: str
    """What was given to the other images, one of `LEAST_TRANSFER`."""
    transfer: float
    """Mean rise of the class's confidence in other classes' images that are given the cue, in [-1, 1]."""
    chance: float
    """The largest such rise for random halves of the class of the same size."""
    separation: float
    """How far carriers and rest lie apart, as `cue_splits.separation`."""
    all_rows: Int[np.ndarray, " row"]
    """All images labelled as the class, by row number."""
    carries: Float[np.ndarray, " row"]
    """How sure it is that each of them carries the cue, in [0, 1]."""

    @property
    def strength(self) -> float:
        """`transfer` in units of what counts."""
        return self.transfer / LEAST_TRANSFER[self.kind]

    @property
    def guilty(self) -> bool:
        return self.strength >= 1 and self.transfer > 2 * max(self.chance, 0) and self.separation >= LEAST_SEPARATION


@dataclass(frozen=True, eq=False)
class CueSearch:
    """What was found in every class."""

    cues: tuple[Cue, ...]
    """The strongest candidate of each judged class, guilty and strong ones first; most are not guilty."""
    skipped: Mapping[int, str] = field(default_factory=dict)
    """Classes that were not judged, and why."""
    why_none: str = ""
    """Why no class at all was looked at; empty where they were."""


def find_cues(
    features: Float[np.ndarray, "row feature"],
    labels: Int[np.ndarray, " row"],
    predictions: Int[np.ndarray, " row"],
    images: Images,
    predict: Predict,
    *,
    seed: int = 0,
) -> CueSearch:
    """Look for a cue in every class.

    Args:
        features: Of the classifying layer.
        labels: Class indices; negative ones are left out.
        predictions: Class indices.
        images: Gives the network's input for row numbers.
        predict: Confidences of inputs.
        seed: Seed of the samples and components.
    """
    classes, counts = np.unique(labels[(labels == predictions) & (labels >= 0)], return_counts=True)
    skipped = {int(label): f"{count} correct predictions, {FEWEST_IMAGES} are needed"
               for label, count in zip(classes, counts, strict=True) if count < FEWEST_IMAGES}  # fmt: skip
    able = [
        int(label)
        for label, _ in sorted(zip(classes, counts, strict=True), key=lambda pair: -pair[1])
        if int(label) not in skipped
    ]
    skipped |= dict.fromkeys(able[MOST_CLASSES:], f"only the {MOST_CLASSES} largest classes are looked at")
    cues = []
    for label in able[:MOST_CLASSES]:
        random = np.random.default_rng([seed, label])
        others = np.flatnonzero((labels != label) & (labels == predictions))
        if len(others) < FEWEST_IMAGES:
            skipped[label] = f"other classes have only {len(others)} correct predictions, {FEWEST_IMAGES} are needed"
            continue
        receivers = images(random.choice(others, min(OTHERS, len(others)), replace=False))
        rows, whole = np.flatnonzero((labels == label) & (predictions == label)), np.flatnonzero(labels == label)
        if cue := _strongest(features, rows, whole, label, images, receivers, predict, random):
            cues.append(cue)
    return CueSearch(tuple(sorted(cues, key=lambda cue: (not cue.guilty, -cue.strength, cue.label))), skipped)


def _strongest(
    features: np.ndarray,
    rows: np.ndarray,
    whole: np.ndarray,
    label: int,
    images: Images,
    receivers: Tensor,
    predict: Predict,
    random: np.random.Generator,
) -> Cue | None:
    """The candidate of one class that transfers best, of those that are guilty if there are any."""
    seen = rows if len(rows) <= MOST_IMAGES else np.sort(random.choice(rows, MOST_IMAGES, replace=False))
    own, before = images(seen), predict(receivers)[:, label]
    patched = np.sort(random.choice(len(seen), min(PATCHED, len(seen)), replace=False))
    rises = np.full(len(seen), np.nan)
    rises[patched] = patch_transfers(own[torch.from_numpy(patched)], receivers, predict, label, random)

    def transfers(members: np.ndarray, count: int) -> dict[str, float]:
        given = given_cue(receivers[:count], own[torch.from_numpy(members)], own[torch.from_numpy(~members)])
        values = {kind: float((predict(it)[:, label] - before[:count]).mean()) for kind, it in given.items()}
        with_cue, without = rises[members & np.isfinite(rises)], rises[~members & np.isfinite(rises)]
        if min(len(with_cue), len(without)) >= FEWEST_PATCHES:
            values["patch"] = float(with_cue.mean() - without.mean())
        return values

    best: dict[str, tuple[float, np.ndarray]] = {}
    for members in candidate_splits(features[seen], own, int(random.integers(2**31))):
        for kind, rise in transfers(members, SCREENING).items():
            if kind not in best or rise > best[kind][0]:
                best[kind] = rise, members
    description, cues = describe_images(features[seen], own), []
    for kind, (_, first) in best.items():
        members, odds = sharpened(description, first)
        shuffled = [transfers(random.permutation(members), OTHERS).get(kind, 0.0) for _ in range(RANDOM_SPLITS)]
        rise, chance = transfers(members, OTHERS).get(kind, 0.0), max(shuffled)
        carries = _carries(features, whole, seen, members, odds)
        carrying = np.intersect1d(whole[carries > 0.5], rows)
        cues.append(
            Cue(label, carrying, len(carrying) / len(rows), kind, rise, chance, separation(odds), whole, carries)
        )
    return max(cues, key=lambda cue: (cue.guilty, cue.strength), default=None)


def _carries(
    features: np.ndarray, whole: np.ndarray, seen: np.ndarray, members: Bool[np.ndarray, " row"], odds: np.ndarray
) -> Float[np.ndarray, " row"]:
    """How sure it is that images carry the cue; of those whose pixels were not looked at, by their features."""
    carries = np.empty(len(whole))
    looked_at = np.isin(whole, seen)
    carries[looked_at] = 1 / (1 + np.exp(-np.clip(odds, -50, 50)))
    if not looked_at.all():
        scale = features[seen].std(axis=0) + 1e-6
        model = LogisticRegression(max_iter=500).fit(features[seen] / scale, members)
        carries[~looked_at] = model.predict_proba(features[whole[~looked_at]] / scale)[:, 1]
    return carries
