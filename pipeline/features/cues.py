"""Find cues that some images of a class share and that decide for the class by themselves: stickers, frames, colour casts, textures.

Candidates: within a class, independent components (FastICA) of features, of pixels and of the log spectrum; a mark that some images carry and
others do not is a two-valued source, which natural variation is not. Each candidate splits the class in two. Verdict: by intervention. What
distinguishes the one half from the other, pixel by pixel (mean and spread) or frequency by frequency, is given to images of other
classes; a cue is what makes the model see the class there.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA, FastICA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

LEAST_TRANSFER = 0.25
"""Rise of the class's confidence in other classes' images from which on a cue counts; chosen on two marks and one network, see bench/accuracy/planted.py."""
FEWEST_IMAGES = 20
"""Correct predictions without which a class is not judged."""
MOST_IMAGES = 300
"""Images of a class whose pixels are compared."""
MOST_CLASSES = 50
SHARES = (0.1, 0.92)
"""Share of a class's images that a cue may have: of fewer or more, one half says too little."""
OTHERS = 48
"""Images of other classes that are given the cue."""
SPLITS = 3
"""Components of each space that are tried."""
RANDOM_SPLITS = 5
SIDE_PIXELS = 32
FLOOR = 1e-3
"""Added to spreads and amplitudes, in units of the network's input."""
GAIN = (0.25, 4.0)
"""How far one frequency may be damped or amplified."""
Predict = Callable[[Tensor], Float[np.ndarray, "image class"]]
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
    """`pixels` or `spectrum`: what was given to the other images."""
    transfer: float
    """Mean rise of the class's confidence in other classes' images that are given the cue, in [-1, 1]."""
    chance: float
    """The largest such rise for random halves of the class of the same size."""

    @property
    def guilty(self) -> bool:
        return self.transfer >= LEAST_TRANSFER and self.transfer > 2 * max(self.chance, 0)


@dataclass(frozen=True, eq=False)
class CueSearch:
    """What was found in every class."""

    cues: tuple[Cue, ...]
    """The strongest candidate of each judged class, the strongest class first; most are not guilty."""
    skipped: Mapping[int, str] = field(default_factory=dict)
    """Classes that were not judged, and why."""


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
        receivers = images(np.sort(random.choice(others, min(OTHERS, len(others)), replace=False)))
        rows = np.flatnonzero((labels == label) & (predictions == label))
        if cue := _strongest(features, rows, label, images, receivers, predict, random):
            cues.append(cue)
    return CueSearch(tuple(sorted(cues, key=lambda cue: (-cue.transfer, cue.label))), skipped)


def _strongest(
    features: np.ndarray,
    rows: np.ndarray,
    label: int,
    images: Images,
    receivers: Tensor,
    predict: Predict,
    random: np.random.Generator,
) -> Cue | None:
    """The candidate of one class that transfers best."""
    seen = rows if len(rows) <= MOST_IMAGES else np.sort(random.choice(rows, MOST_IMAGES, replace=False))
    own, before = images(seen), predict(receivers)[:, label]

    def transfer(members: np.ndarray) -> dict[str, float]:
        given = given_cue(receivers, own[torch.from_numpy(members)], own[torch.from_numpy(~members)])
        return {kind: float((predict(changed)[:, label] - before).mean()) for kind, changed in given.items()}

    best: tuple[float, str, np.ndarray] | None = None
    for members in candidate_splits(features[seen], own, int(random.integers(2**31))):
        for kind, rise in transfer(members).items():
            if best is None or rise > best[0]:
                best = rise, kind, members
    if best is None:
        return None
    rise, kind, members = best
    chance = max(transfer(random.permutation(members))[kind] for _ in range(RANDOM_SPLITS))
    carrying = _all_members(features, rows, seen, members)
    return Cue(label, carrying, len(carrying) / len(rows), kind, rise, chance)


def candidate_splits(
    features: Float[np.ndarray, "row feature"], images: Float[Tensor, "row channel height width"], seed: int
) -> Iterator[Bool[np.ndarray, " row"]]:
    """Ways to split a class in two, both halves in turn."""
    least, most = SHARES[0] * len(features), SHARES[1] * len(features)
    for split in _splits(features, images, seed):
        for members in (split, ~split):
            if max(least, 8) <= members.sum() <= min(most, len(features) - 8):
                yield members


def _splits(features: np.ndarray, images: Tensor, seed: int) -> Iterator[np.ndarray]:
    standard = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)
    small = _small(images)
    spectrum = _log_spectrum(images)
    for values, most in (
        (standard, 12),
        (small.flatten(1).numpy(), 10),
        (small.flatten(1).numpy(), 20),
        (spectrum.flatten(1).numpy(), 20),
    ):
        count = min(most, len(values) // 8, values.shape[1])
        if count < 2 or not np.ptp(values, axis=0).any():
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", (ConvergenceWarning))
            warnings.simplefilter("ignore", RuntimeWarning)
            whitened = PCA(count, random_state=seed, whiten=True).fit_transform(values.astype(np.float64))
            kept = whitened[:, np.isfinite(whitened).all(axis=0) & (whitened.std(axis=0) > 0.5)]
            components: Any = FastICA(whiten=cast(Any, False), random_state=seed, max_iter=300)
            sources = np.asarray(components.fit_transform(kept))
        for place in np.argsort(-bimodality(sources), kind="stable")[:SPLITS]:
            yield KMeans(2, n_init=cast(Any, 3), random_state=seed).fit_predict(sources[:, [place]]) == 1
        if values is standard:
            yield KMeans(2, n_init=cast(Any, 5), random_state=seed).fit_predict(kept) == 1


def bimodality(values: Float[np.ndarray, "row source"]) -> Float[np.ndarray, " source"]:
    """Sarle's coefficient, (skewness^2 + 1) / kurtosis, in (0, 1]: 1 for two values, 5/9 for a uniform, 1/3 for a normal distribution."""
    centred = values - values.mean(axis=0)
    second, third, fourth = ((centred**power).mean(axis=0) for power in (2, 3, 4))
    safe = np.maximum(second, 1e-12)
    return np.asarray(((third / safe**1.5) ** 2 + 1) / np.maximum(fourth / safe**2, 1e-12))


def given_cue(
    receivers: Float[Tensor, "image channel height width"],
    carriers: Float[Tensor, "row channel height width"],
    rest: Float[Tensor, "row2 channel height width"],
) -> dict[str, Float[Tensor, "image channel height width"]]:
    """Images changed as the rest of a class would have to be changed to look like the carriers.

    `pixels`: every pixel gets the carriers' mean and, where it is smaller, their spread. An opaque mark, whose spread is 0, is thereby pasted; a
    translucent one is blended in, a colour cast is added. `spectrum`: every frequency gets the carriers' mean amplitude, phases stay, so
    that a texture at any place is added.
    """
    spread = ((carriers.std(dim=0) + FLOOR) / (rest.std(dim=0) + FLOOR)).clamp(max=1)
    pixels = carriers.mean(dim=0) + spread * (receivers - rest.mean(dim=0))
    gain = ((_amplitude(carriers) + FLOOR) / (_amplitude(rest) + FLOOR)).clamp(*GAIN)
    centre = receivers.mean(dim=(2, 3), keepdim=True)
    size = (receivers.shape[-2], receivers.shape[-1])
    return {"pixels": pixels, "spectrum": torch.fft.irfft2(torch.fft.rfft2(receivers - centre) * gain, s=size) + centre}


def _amplitude(images: Tensor) -> Tensor:
    return torch.fft.rfft2(images - images.mean(dim=(2, 3), keepdim=True)).abs().mean(dim=0)


def _small(images: Tensor) -> Tensor:
    height, width = (min(side, SIDE_PIXELS) for side in images.shape[-2:])
    return F.adaptive_avg_pool2d(images, (height, width))


def _log_spectrum(images: Tensor) -> Tensor:
    """Logarithm of the grey image's amplitudes, low frequencies in the middle of the rows, averaged where there are more than needed."""
    amplitudes = (torch.fft.fftshift(torch.fft.rfft2(images.mean(dim=1)).abs(), dim=1) + 0.5).log()
    height, width = min(amplitudes.shape[1], SIDE_PIXELS), min(amplitudes.shape[2], SIDE_PIXELS // 2 + 1)
    return F.adaptive_avg_pool2d(amplitudes[:, None], (height, width))[:, 0]


def _all_members(features: np.ndarray, rows: np.ndarray, seen: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Row numbers of all that carry the cue; those whose pixels were not looked at by their features."""
    carrying = seen[members]
    rest = np.setdiff1d(rows, seen)
    if not len(rest):
        return carrying
    scale = features[seen].std(axis=0) + 1e-6
    model = LogisticRegression(max_iter=500).fit(features[seen] / scale, members)
    return np.sort(np.concatenate([carrying, rest[model.predict(features[rest] / scale)]]))
