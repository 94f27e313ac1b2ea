"""What some image files say before a run: which of their numbers are black and white, whether boxes were drawn on pictures of their
size, and what is taken by custom and therefore said (the first page, a colour profile).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from ...errors import DataError, SampleError
from ...workers.images.bands import UnclearLevels, settled_levels
from ...workers.images.ground_truth import other_size
from ...workers.images.stored_facts import FileFacts, file_facts
from ...workers.models.load import ModelSpec
from ...workers.protocols import SampleReader
from ...workers.samples import Sample, Shard
from ..settings.run import Settings
from ..shards import samples_of
from ..text import counted

LOOKED_AT = 200
"""Images at most, evenly spread over the listing: of 3 in 100 that are odd, some are among them (all but 0.2 %)."""
SURELY_LOOKED_AT = 16
"""Images, whatever their size."""
MOST_BYTES = 64 << 20
"""Read of further ones; those of deep images count four times, because they are decoded."""
WHITES = (255, 1023, 4095, 16383, 65535)
"""Largest values of 8, 10, 12, 14 and 16 bits."""
FLOAT_WHITES = (1, 255, 65535)


@dataclass(frozen=True)
class FileEvidence:
    """What was found and decided."""

    levels: tuple[float, float] | None = None
    """What becomes black and white in images of more than 8 bits; None: as their type has it."""
    clip: bool = True
    """Whether numbers beyond are cut off; False without levels: deep images are errors where their type alone does not tell."""
    kind: str = ""
    """Of the numbers from which they were taken, `integer` or `float`; empty: they hold for all."""
    notes: tuple[str, ...] = ()

    def applied_to(self, spec: ModelSpec, settings: Settings) -> ModelSpec:
        """The model with files read so."""
        bands = settings.decode.bands
        return replace(spec, levels=self.levels, clip_levels=self.clip, level_kind=self.kind, bands=bands)


def file_evidence(listing: pa.Table, reader: SampleReader, settings: Settings) -> FileEvidence:
    """Look at some files; those that cannot be read are told about in the run.

    Args:
        listing: Labels need not be resolved.
        reader: Reads the images.
        settings: Of the run.

    Raises:
        DataError: If boxes of half the images or more were drawn on pictures of another size (else each is an error row), or if most
            images have numbers of a range that nobody knows.
    """
    many = settings.decode.bands is not None or (settings.preprocess.channels or 3) not in (1, 3)
    looked, others, drawn = [], [], 0
    for sample, facts in _facts(listing, reader, every_band=many):
        looked.append(facts)
        drawn += sample.drawn_on is not None and bool(sample.boxes)
        others += _other_size(sample, facts)
    if others and 2 * len(others) >= drawn:
        raise DataError(others[0])
    rule = settings.decode.range
    every = [facts for facts in looked if facts.is_deep]
    floats = [facts for facts in every if _is_float(facts)]
    deep = floats if 2 * len(floats) > len(every) else [facts for facts in every if not _is_float(facts)]
    if rule is None and 2 * len(deep) < len(looked):  # a few among images of 8 bits
        levels, clip, kind, text = None, False, "", ""
    else:
        levels, clip, text = _levels(deep, rule)
        said = _given(rule) is not None or (rule == "dtype" and deep is not floats)
        kind = "" if not deep or said else "float" if deep is floats else "integer"
    notes = (
        text,
        _odd(looked, levels, clip, kind),
        *_bands(looked),
        _pages(looked),
        _profiles(looked, converted=not many),
    )
    return FileEvidence(levels, clip, kind, tuple(filter(None, notes)))


def _facts(listing: pa.Table, reader: SampleReader, *, every_band: bool) -> Iterator[tuple[Sample, FileFacts]]:
    """Facts of files spread over the listing: of the first `SURELY_LOOKED_AT`, then of more while they are small."""
    count, read = 0, 0
    for sample in _some(listing):
        if count >= SURELY_LOOKED_AT and read > MOST_BYTES:
            return
        try:
            data = reader.read(sample.uri)
        except SampleError:
            continue
        facts = file_facts(data, every_band=every_band)
        if facts is not None:
            count, read = count + 1, read + (4 * len(data) if facts.is_deep else len(data))
            yield sample, facts


def _is_float(facts: FileFacts) -> bool:
    return np.dtype(facts.kind).kind == "f"


def _some(listing: pa.Table) -> list[Sample]:
    plain = listing.set_column(listing.column_names.index("label"), "label", pa.nulls(len(listing), pa.int32()))
    rows = np.unique(np.linspace(0, len(listing) - 1, min(LOOKED_AT, len(listing))).round().astype(int))
    first = rows[np.unique(np.linspace(0, len(rows) - 1, min(SURELY_LOOKED_AT, len(rows))).round().astype(int))]
    order = [*first.tolist(), *np.random.default_rng(0).permutation(np.setdiff1d(rows, first)).tolist()]
    return [samples_of(plain, Shard(0, row, row + 1))[0] for row in order]


def _other_size(sample: Sample, facts: FileFacts) -> list[str]:
    """What is wrong with a sample's boxes, if they were drawn on a picture of another size."""
    if sample.drawn_on is None or sample.scale_truth or not sample.boxes:
        return []
    stored = (facts.height, facts.width)
    width, height = sample.drawn_on
    if (height, width) in (stored, stored[::-1] if facts.orientation >= 5 else stored):
        return []
    return [f"{sample.id}: {other_size(sample.drawn_on, stored)}"]


def _levels(deep: Sequence[FileFacts], rule: str | None) -> tuple[tuple[float, float] | None, bool, str]:
    """What becomes black and white, whether values beyond are cut off, and what to say."""
    if not deep:
        return (
            _given(rule),
            True,
            "--decode.range has no effect on images of 8 bits" if rule not in (None, "dtype") else "",
        )
    low, high = min(facts.lowest for facts in deep), max(facts.highest for facts in deep)
    kinds = ", ".join(sorted({facts.kind for facts in deep}))
    said = f"the numbers ({kinds}) of {counted(len(deep), 'image')} looked at run from {low:g} to {high:g}"
    if rule == "dtype":
        return ((0.0, 1.0), False, "") if _is_float(deep[0]) else (None, True, "")
    if rule == "minmax" and low < high:
        return (low, high), True, f"{said}, which become black and white; numbers beyond are cut off"
    if rule == "percentile":
        low, high = min(facts.usual[0] for facts in deep), max(facts.usual[1] for facts in deep)
        if low < high:
            return (low, high), True, f"{said}; {low:g} and {high:g} (percentiles 1 and 99) become black and white"
    if rule not in (None, "minmax", "percentile"):
        return _given(rule), True, ""
    floats = _is_float(deep[0])
    white = next((white for white in (FLOAT_WHITES if floats else WHITES) if low >= 0 and high <= white), None)
    if white is None:
        raise DataError(
            f"{said}, and nobody says which are black and white: --decode.range minmax takes these, percentile the percentiles 1 and 99, "
            "LOW,HIGH what you know"
        )
    usual = not floats and white == 65535 and all(facts.kind == "uint16" for facts in deep)
    text = (
        "" if usual else f"{said}: 0 is taken for black and {white} for white (--decode.range LOW,HIGH says otherwise)"
    )
    return (None, True, "") if usual else ((0.0, float(white)), False, text)


def _given(rule: str | None) -> tuple[float, float] | None:
    """The levels of a rule `LOW,HIGH`."""
    if rule in (None, "dtype", "minmax", "percentile"):
        return None
    low, high = map(float, str(rule).split(","))
    if not low < high:
        raise DataError(f"--decode.range {rule} must be LOW,HIGH with LOW below HIGH")
    return low, high


def _odd(looked: Sequence[FileFacts], levels: tuple[float, float] | None, clip: bool, kind: str) -> str:
    """What becomes of deep images of which black and white were not taken."""
    errors, example = 0, ""
    for facts in looked:
        if facts.is_deep and not facts.unread:
            try:
                settled_levels(facts.lowest, facts.highest, np.dtype(facts.kind), levels, clip=clip, level_kind=kind)
            except UnclearLevels as error:
                errors, example = errors + 1, example or str(error)
    deep = sum(facts.is_deep for facts in looked)
    if not errors:
        few = 0 < deep < len(looked)
        return f"{deep} of {counted(len(looked), 'image')} looked at have more than 8 bits beside those of 8 bits" if few else ""  # fmt: skip
    return f"{errors} of {counted(len(looked), 'image')} looked at become error rows: of one of them, {example}"


def _bands(looked: Sequence[FileFacts]) -> Iterator[str]:
    """What is dropped or refused beside red, green and blue."""
    of_all = f"of {counted(len(looked), 'image')} looked at"
    if unread := sum(facts.unread for facts in looked):
        yield f"{unread} {of_all} have bands of which nobody says which are red, green and blue, and become error rows: choose with --decode.bands"
    if alpha := sum(facts.alpha for facts in looked):
        yield f"{alpha} {of_all} have an alpha channel or a transparent colour, which is dropped, as torchvision, timm and transformers do"
    if inks := sum(facts.inks for facts in looked):
        yield f"{inks} {of_all} are CMYK and are converted to RGB"


def _pages(looked: Sequence[FileFacts]) -> str:
    several = sum(facts.pages > 1 for facts in looked)
    return f"{several} of {counted(len(looked), 'image')} looked at have several pages or frames; of each the first is explained" if several else ""  # fmt: skip


def _profiles(looked: Sequence[FileFacts], *, converted: bool) -> str:
    names = sorted({facts.profile for facts in looked if facts.profile})
    if not names:
        return ""
    count = sum(bool(facts.profile) for facts in looked)
    fate = (
        "are converted to sRGB" if converted else "are not converted to sRGB, because their bands are taken as stored"
    )
    return f"{count} of {counted(len(looked), 'image')} looked at have a colour profile ({', '.join(names[:3])}) and {fate}"
