"""Necessity and sufficiency of regions: what the model's confidence does when a region is removed, or pasted into other images.

All forwards go through one packed scorer, so that variants of many images fill its batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..random import sample_generator
from ..requests import Job
from ..scoring.masked_scorer import Scorer
from .equal_area import CONTROLS, control_moves, control_regions, jittered_moves
from .region_fill import FEATHER_PIXELS, RegionFill, fill_regions, paste_region

JITTER_SHARE = 0.05
"""How far what is pasted is moved at most, over the image's shorter side."""


@dataclass(frozen=True, eq=False)
class Removals:
    """Confidences in each image's target, in [0, 1], and whether it is predicted."""

    whole: Float[np.ndarray, " image"]
    removed: Float[np.ndarray, " image"]
    """Without the region."""
    control: Float[np.ndarray, " image"]
    """Mean over the control regions, each removed alone; NaN where there is no room for one."""
    predicted: Bool[np.ndarray, " image"]
    """Whether the target is predicted for the whole image."""
    lost: Bool[np.ndarray, " image"]
    """Whether it was predicted, and is not without the region."""
    lost_control: Float[np.ndarray, " image"]
    """Share of the control regions without which it is not predicted any more; NaN as `control`."""
    gained: Bool[np.ndarray, " image"]
    """Whether it was not predicted, and is after the change."""
    gained_control: Float[np.ndarray, " image"]
    """Share of the controls that make it predicted; NaN as `control`."""

    @property
    def drop(self) -> Float[np.ndarray, " image"]:
        """Confidence lost with the region, in [-1, 1]."""
        return self.whole - self.removed

    @property
    def control_drop(self) -> Float[np.ndarray, " image"]:
        return self.whole - self.control

    @property
    def necessity(self) -> Float[np.ndarray, " image"]:
        """Confidence lost with the region beyond that lost with control regions, in [-1, 1]."""
        return self.drop - self.control_drop


@dataclass(frozen=True, eq=False)
class Transplants:
    """Confidences in one class of receivers, each given the region of a donor, in [0, 1]."""

    before: Float[np.ndarray, "donor receiver"]
    """Of the receivers as they are."""
    after: Float[np.ndarray, "donor receiver"]
    """With the donor's region."""
    control: Float[np.ndarray, "donor receiver"]
    """With another region of the same donor, of equal area, pasted at the same place, so that it hides as much of the receiver; NaN where
    there is no room for one."""
    turned: Bool[np.ndarray, "donor receiver"]
    """Whether the class was not predicted before, and is with the region."""
    turned_control: Float[np.ndarray, "donor receiver"]
    """The same with the control region, 0 or 1; NaN as `control`."""

    @property
    def rise(self) -> Float[np.ndarray, " donor"]:
        """Mean rise of the confidence over a donor's receivers, in [-1, 1]."""
        return (self.after - self.before).mean(axis=1)

    @property
    def control_rise(self) -> Float[np.ndarray, " donor"]:
        return (self.control - self.before).mean(axis=1)

    @property
    def sufficiency(self) -> Float[np.ndarray, " donor"]:
        """Confidence gained with the region beyond that gained with control regions, in [-1, 1]."""
        return self.rise - self.control_rise


def measure_removals(
    scorer: Scorer,
    images: Float[Tensor, "image channel height width"],
    regions: Bool[Tensor, "image height width"],
    targets: Sequence[int],
    *,
    fill: RegionFill = "surround",
    controls: int = CONTROLS,
    avoid: Float[Tensor, "image height width"] | None = None,
    seeds: Sequence[int] | None = None,
) -> Removals:
    """Remove each image's region, and control regions of its shape, and score its target.

    Args:
        scorer: Of `intervention_scorer`.
        images: In network-input space, on the model's device.
        regions: What is removed, one per image.
        targets: Class indices, one per image.
        fill: What takes the region's place.
        controls: Control regions per image, at least 1.
        avoid: Maps whose mass control regions keep away from; None for none.
        seeds: Of the control regions, one per image; None for 0, 1, 2, ... A digest of an image's id makes them its own.

    Returns:
        Numbers per image; forwards per image are 2 + `controls`.
    """
    jobs: list[Job] = []
    for place, (image, region, target) in enumerate(zip(images, regions, targets, strict=True)):
        generator = sample_generator(place if seeds is None else seeds[place], 0, "control regions")
        others = control_regions(
            region.cpu(), generator, count=controls, avoid=None if avoid is None else avoid[place].cpu()
        ).to(region.device)
        removed = torch.cat([torch.zeros_like(region)[None], region[None], others])

        def fill_variants(start: int, out: Tensor, image: Tensor = image, removed: Tensor = removed) -> None:
            hidden = removed[start : start + len(out)]
            out.copy_(fill_regions(image.expand(len(hidden), *image.shape), hidden, fill))

        job = Job(len(removed), int(target), fill_variants)
        scorer.submit(job, like=image)
        jobs.append(job)
    scorer.flush()
    return removals_of([job.scores.double().cpu().numpy() for job in jobs])


def measure_changes(
    scorer: Scorer,
    images: Float[Tensor, "image channel height width"],
    changed: Float[Tensor, "image channel height width"],
    controls: Float[Tensor, "control image channel height width"],
    targets: Sequence[int],
) -> Removals:
    """As `measure_removals`, of any change to whole images, such as a colour cast that is taken away or given.

    Args:
        scorer: Of `intervention_scorer`.
        images: In network-input space, on the model's device.
        changed: The images after the change.
        controls: The images after changes that should not matter.
        targets: Class indices, one per image.
    """
    jobs: list[Job] = []
    for place, (image, target) in enumerate(zip(images, targets, strict=True)):
        variants = torch.cat([image[None], changed[place][None], controls[:, place]])
        job = Job(
            len(variants), int(target), lambda start, out, given=variants: out.copy_(given[start : start + len(out)])
        )
        scorer.submit(job, like=image)
        jobs.append(job)
    scorer.flush()
    return removals_of([job.scores.double().cpu().numpy() for job in jobs])


def removals_of(scores: Sequence[Float[np.ndarray, " variant"]]) -> Removals:
    """From the signed confidences of each image: whole, changed, and with each control."""
    whole, removed = (np.array([score[place] for score in scores], np.float64).reshape(-1) for place in (0, 1))
    return Removals(
        np.abs(whole),
        np.abs(removed),
        np.array([mean_of(np.abs(score[2:])) for score in scores]),
        whole > 0,
        (whole > 0) & (removed <= 0),
        np.array([mean_of((score[2:] <= 0) & (score[0] > 0)) for score in scores]),
        (whole <= 0) & (removed > 0),
        np.array([mean_of((score[2:] > 0) & (score[0] <= 0)) for score in scores]),
    )


def measure_transplants(
    scorer: Scorer,
    donors: Float[Tensor, "donor channel height width"],
    regions: Bool[Tensor, "donor height width"],
    target: int,
    receivers: Float[Tensor, "other channel height width"],
    chosen: Int[np.ndarray, "donor receiver"],
    *,
    avoid: Float[Tensor, "donor height width"] | None = None,
    feather: float = FEATHER_PIXELS,
    jitter: float = JITTER_SHARE,
    seeds: Sequence[int] | None = None,
) -> Transplants:
    """Paste each donor's region into images of other classes, and a control region of the same donor, and score the class.

    Args:
        scorer: Of `intervention_scorer`.
        donors: In network-input space, on the model's device.
        regions: What is pasted, one per donor.
        target: Class index that is scored.
        receivers: Images that are given the regions.
        chosen: Row numbers of the receivers of each donor.
        avoid: Maps whose mass control regions keep away from; None for none.
        feather: Sigma in pixels of the soft edge around what is pasted.
        jitter: How far it is moved at most, over the image's shorter side.
        seeds: Of moves and control regions, one per donor; None for 0, 1, 2, ...

    Returns:
        Numbers per donor and receiver; forwards are 2 per pair and 1 per receiver that is used.
    """
    used = np.unique(chosen)
    plain: list[Job] = []
    for number in used:
        job = Job(1, int(target), lambda start, out, image=receivers[int(number)]: out.copy_(image[None]))
        scorer.submit(job, like=receivers[int(number)])
        plain.append(job)
    jobs: list[Job] = []
    count = chosen.shape[1]
    reach = int(jitter * min(donors.shape[-2:]))
    for place, (donor, region) in enumerate(zip(donors, regions, strict=True)):
        seed = place if seeds is None else seeds[place]
        away = None if avoid is None else avoid[place].cpu()
        elsewhere = control_moves(region.cpu(), sample_generator(seed, 0, "control regions"), count=1, avoid=away)
        contents = [donor, *(torch.roll(donor, (-int(down), -int(right)), (1, 2)) for down, right in elsewhere)]
        moves = jittered_moves(region.cpu(), count, reach, sample_generator(seed, 0, "moves"))
        rows = torch.from_numpy(chosen[place]).to(receivers.device)

        def paste_variants(
            start: int,
            out: Tensor,
            contents: Sequence[Tensor] = contents,
            region: Tensor = region,
            rows: Tensor = rows,
            moves: Tensor = moves,
        ) -> None:
            for number in range(start, start + len(out)):
                content, which = divmod(number, count)
                receiver, move = receivers[rows[which]][None], moves[which : which + 1]
                out[number - start] = paste_region(receiver, contents[content], region, move, feather)[0]

        job = Job(count * len(contents), int(target), paste_variants)
        scorer.submit(job, like=donor)
        jobs.append(job)
    scorer.flush()
    known = {int(number): float(job.scores) for number, job in zip(used, plain, strict=True)}
    before = np.array([[known[int(number)] for number in row] for row in chosen], np.float64).reshape(-1, count)
    scores = [job.scores.double().cpu().numpy() for job in jobs]
    after = np.array([score[:count] for score in scores], np.float64).reshape(-1, count)
    control = np.array(
        [score[count:] if len(score) > count else np.full(count, np.nan) for score in scores], np.float64
    ).reshape(-1, count)
    turned_control = np.where(np.isnan(control), np.nan, (control > 0) & (before <= 0))
    return Transplants(np.abs(before), np.abs(after), np.abs(control), (after > 0) & (before <= 0), turned_control)


def mean_of(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
