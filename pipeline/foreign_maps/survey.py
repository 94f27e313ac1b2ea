"""A look at every map before anything is written: whether it can be read and told, and what the user is to know."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...errors import DataError, TargetError
from ...workers.images.preprocess import Preprocess
from ..text import counted
from .choices import MapChoices
from .map_index import MapIndex, MapPlace, described
from .unit_maps import covers_input, flat_map

SIGNS = {
    "positive": "kept is what speaks for the class, the rest counts as 0 (--sign absolute or range keeps it)",
    "negative": "kept is what speaks against the class",
    "absolute": "kept is their size, whether for or against the class",
    "range": "the smallest value of a map became 0, its largest 1",
}


@dataclass
class MapCounts:
    """What was seen."""

    maps: int = 0
    images: int = 0
    """With a map."""
    listed: int = 0
    """Images of the data set."""
    below_zero: int = 0
    """Maps with values below 0."""
    several_channels: int = 0
    resized: int = 0
    """Maps of another size than the network's input."""
    with_target: int = 0
    digest: str = ""
    """Sha256 (hex) of all maps, of whose they are and what they explain."""

    def notes(self, index: MapIndex, rule: str) -> Iterator[str]:
        """What the user is to know, a sentence each."""
        choices = index.choices
        yield f"{counted(self.maps, 'map')} of {self.images} of {counted(self.listed, 'image')}, each divided by its largest value"
        if self.below_zero:
            yield f"{counted(self.below_zero, 'map')} of {self.maps} with values below 0: {SIGNS[choices.sign]}"
        if self.several_channels:
            how = (
                "summed (--channels largest takes the largest instead)"
                if choices.channels == "sum"
                else "the largest taken"
            )
            yield f"{counted(self.several_channels, 'map')} of {self.maps} with 3 channels: {how}"
        if self.resized:
            what = "the network's input" if choices.covers == "input" else "the whole image"
            yield f"{counted(self.resized, 'map')} of {self.maps} resized from another size; they cover {what}"
        if self.with_target < self.maps:
            yield f"{counted(self.maps - self.with_target, 'map')} of {self.maps} without a target of their own: taken for {explained(rule)}"
        if missing := self.listed - self.images:
            yield f"{counted(missing, 'image')} without a map: rows with status no_map (--ids, --where or --limit choose images)"
        if index.unknown:
            yield f"{counted(len(index.unknown), 'map')} of no image of the data set, such as {index.unknown[0]!r}, left out"


def explained(rule: str) -> str:
    """The classes that maps without a target explain."""
    known = {"predicted": "the predicted class (--target label for the labelled one)", "label": "the labelled class"}
    return known.get(rule, f"target {rule}")


def survey_maps(index: MapIndex, listed: int, preprocess: Preprocess, classes: int | None) -> MapCounts:
    """Read every map once.

    Raises:
        DataError: If one cannot be read, or it cannot be told what it covers.
        TargetError: If one explains a class that the model does not have.
    """
    counts, sha = MapCounts(images=len(index.places), listed=listed), hashlib.sha256()
    for identity, places in sorted(index.places.items()):
        for place in places:
            raw = index.raw(place)
            try:
                look(counts, raw, index.choices, preprocess)
            except DataError as error:
                raise DataError(f"{described(place) or 'maps'}, of {identity!r}: {error}") from None
            refuse_unknown_class(place, identity, classes)
            counts.with_target += place.target is not None
            sha.update(f"{identity}\0{place.target}\0{raw.dtype}\0{raw.shape}\0".encode("utf-8", "surrogateescape"))
            sha.update(np.ascontiguousarray(raw).tobytes())
    counts.digest = sha.hexdigest()
    return counts


def look(counts: MapCounts, raw: np.ndarray, choices: MapChoices, preprocess: Preprocess) -> None:
    values = flat_map(raw, choices)
    covers_input(values.shape, choices, preprocess)
    counts.maps += 1
    counts.below_zero += bool((values < 0).any())
    counts.several_channels += raw.size != values.size
    counts.resized += values.shape != preprocess.size


def refuse_unknown_class(place: MapPlace, identity: str, classes: int | None) -> None:
    if place.target is not None and not (place.target >= 0 and (classes is None or place.target < classes)):
        raise TargetError(
            f"the map of {identity!r} explains class {place.target}; the model has {classes}, from 0 to {(classes or 1) - 1}"
        )
