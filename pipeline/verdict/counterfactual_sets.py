"""Counterfactual test images: the mark removed, the mark pasted into other classes, and the same done with control regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ...engine.interventions.equal_area import control_regions
from ...engine.interventions.region_fill import RegionFill, fill_regions, paste_region
from ...engine.random import sample_generator
from ...workers.images.preprocess import Preprocess
from ...workers.protocols import SampleReader
from ...workers.worker.shard_attempt import seed_of
from ..features.cue_transfer import given_cue
from ..text import class_name, counted
from .image_decisions import DecidedImage, LoadedImages, load_images

FEWEST_DONORS = 3
"""Images with a mask of the mark, at least; and of the class without the mark, where the mark is the whole image."""
MOST_DONORS = 32


@dataclass(frozen=True, eq=False)
class Mark:
    """What some images of a class carry that does not belong to it."""

    label: int
    """The class."""
    donors: LoadedImages
    """Images that carry it, with their regions."""
    rest: LoadedImages | None
    """Images of the class that do not carry it; only where the mark is the whole image."""

    @property
    def whole(self) -> bool:
        """Whether it is the whole image, as a colour cast is: then the mean and contrast of every channel are exchanged."""
        return self.rest is not None


def load_marks(
    images: Mapping[str, DecidedImage],
    preferred: Sequence[str],
    reader: SampleReader,
    preprocess: Preprocess,
    class_names: Sequence[str] = (),
) -> tuple[dict[int, Mark], list[str]]:
    """The marks that decisions name, by class, and a line about each that cannot be removed or pasted.

    Args:
        images: All images of the store, by id.
        preferred: Ids from which donors are taken first. Before that comes who painted: people's masks go before masks that were spread.
        reader: Reads images.
        preprocess: Of the model.
        class_names: For the lines.
    """
    chosen = set(preferred)
    ordered = sorted(
        images.values(), key=lambda image: (image.spread, image.sample.id not in chosen, seed_of(image.sample.id))
    )
    marks, notes = dict[int, Mark](), list[str]()
    for label in sorted({image.mark for image in ordered if image.mark is not None}):
        name = class_name(class_names, label)
        carriers = [image for image in ordered if image.mark == label and image.region is not None]
        if len(carriers) < FEWEST_DONORS:
            notes.append(
                f"the mark of {name} has a mask in {counted(len(carriers), 'image')}, {FEWEST_DONORS} are needed to remove and paste it: paint "
                "masks (heatlas view, heatlas annotate), or spread them (heatlas spread)"
            )
            continue
        donors = load_images(carriers[:MOST_DONORS], reader, preprocess)
        seen = np.flatnonzero(donors.regions.flatten(1).any(dim=1).numpy())
        if len(seen) < FEWEST_DONORS:
            notes.append(
                f"the mark of {name} lies in {counted(len(seen), 'image')} of {len(donors)} within what the network sees, {FEWEST_DONORS} are needed to "
                "remove and paste it"
            )
            continue
        donors = donors.taken(seen)
        painted = np.array([not image.spread for image in donors.images])
        if not donors.whole[painted if painted.any() else ~painted].mean() > 0.5:
            marks[label] = Mark(label, donors, None)
            continue
        without = [image for image in ordered if image.label == label and image.mark is None and not image.dropped]
        if len(without) < FEWEST_DONORS:
            notes.append(
                f"the mark of {name} covers whole images, and {counted(len(without), 'image')} of {name} without it are known, {FEWEST_DONORS} "
                "are needed to compare with"
            )
            continue
        marks[label] = Mark(label, donors, load_images(without[:MOST_DONORS], reader, preprocess))
    return marks, notes


def without_mark(
    loaded: LoadedImages, marks: Mapping[int, Mark], fill: RegionFill = "surround"
) -> Float[Tensor, "image channel height width"]:
    """The images with their marks removed; those without one, or without a mask of it, as they are."""
    result = loaded.inputs.clone()
    local = torch.zeros(len(loaded), dtype=torch.bool)
    for place, image in enumerate(loaded.images):
        mark = None if image.mark is None else marks.get(image.mark)
        if mark is None or image.region is None:
            continue
        if mark.rest is None:
            local[place] = True
        else:
            pixels = loaded.inputs[place : place + 1]
            result[place] = given_cue(pixels, mark.rest.inputs, mark.donors.inputs)["colour"][0]
    if bool(local.any()):
        result[local] = fill_regions(loaded.inputs[local], loaded.regions[local], fill)
    return result


def without_controls(
    loaded: LoadedImages, marks: Mapping[int, Mark], fill: RegionFill = "surround"
) -> Float[Tensor, "image channel height width"]:
    """The images with a region of the mark's shape removed elsewhere; as they are where there is no room for one."""
    regions = torch.zeros_like(loaded.regions)
    for place, image in enumerate(loaded.images):
        if image.mark in marks and bool(loaded.regions[place].any()):
            generator = sample_generator(seed_of(image.sample.id), 0, "control region")
            regions[place] = _control(loaded.regions[place], generator)
    changed = regions.flatten(1).any(dim=1)
    result = loaded.inputs.clone()
    if bool(changed.any()):
        result[changed] = fill_regions(loaded.inputs[changed], regions[changed], fill)
    return result


def with_mark(
    loaded: LoadedImages, mark: Mark, *, seed: int = 0, control: bool = False
) -> Float[Tensor, "image channel height width"]:
    """The images with the mark of some donor each, at the donor's place: donors differ in place as the mark does.

    Args:
        loaded: Images that do not carry it.
        mark: What they are given.
        seed: Another seed draws other donors.
        control: Give them another region of the same donor and shape instead; nothing where there is none.
    """
    if mark.rest is not None:
        if control:
            return loaded.inputs
        return given_cue(loaded.inputs, mark.donors.inputs, mark.rest.inputs)["colour"]
    result = loaded.inputs.clone()
    for place, image in enumerate(loaded.images):
        generator = sample_generator(seed_of(image.sample.id), seed, "transplant")
        donor = int(torch.randint(len(mark.donors), (1,), generator=generator))
        region = mark.donors.regions[donor]
        if control:
            region = _control(region, generator)
        if bool(region.any()):
            result[place] = paste_region(loaded.inputs[place : place + 1], mark.donors.inputs[donor], region)[0]
    return result


def _control(region: Tensor, generator: torch.Generator) -> Tensor:
    """A region of the same shape elsewhere; an empty one where there is no room."""
    others = control_regions(region, generator, count=1)
    return others[0] if len(others) else torch.zeros_like(region)
