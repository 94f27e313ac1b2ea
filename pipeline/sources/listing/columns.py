"""Which columns of a manifest or table are read, by the names that the user's file gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ....errors import DataError, did_you_mean
from .folder import is_image

MANIFEST_COLUMNS = ("id", "uri", "label", "boxes", "mask")
"""Ours; only `uri` must be there, and `id` is the uri as written where there is none."""
TABLE_COLUMNS = ("id", "label", "boxes", "mask")
"""Of tables that hold the images themselves; which column does is found by its type, or said by `image`."""
KNOWN = (*MANIFEST_COLUMNS, "image")


def check_mapping(columns: Mapping[str, str] | None, wanted: Sequence[str] = MANIFEST_COLUMNS) -> dict[str, str]:
    """A name in the file for each of the `wanted`; the same name unless `columns` says another.

    Raises:
        DataError: For a key that is not one of ours.
    """
    given = dict(columns or {})
    for name in given:
        if name not in KNOWN:
            hint = did_you_mean(name, KNOWN)
            raise DataError(f"unknown column {name!r} in the mapping, there are {', '.join(KNOWN)}{hint}")
    return {name: given.get(name, name) for name in wanted}


def as_spelt(mapping: Mapping[str, str], header: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The mapping with the file's own spelling where a header differs only in case and blanks (`Label`, ` label`), and what to say of it.

    Of two headers that differ so little neither is taken.
    """
    spelt, notes = dict(mapping), []
    for ours, theirs in mapping.items():
        near = [name for name in header if name.strip().casefold() == theirs.strip().casefold()]
        if theirs not in header and len(near) == 1 and near[0] not in mapping.values():
            spelt[ours] = near[0]
            notes.append(f"the column {near[0]!r} is taken for {ours!r}")
        elif theirs not in header and len(near) > 1:
            notes.append(
                f"none of the columns {', '.join(map(repr, near))} is taken for {ours!r}: say which with --columns.{ours}"
            )
    return spelt, notes


def present_columns(mapping: Mapping[str, str], header: Sequence[str], origin: str) -> dict[str, str]:
    """The part of the mapping that the file has.

    Raises:
        DataError: When `uri`, or a column that was mapped to another name, is missing, naming those that are there; or
            when one of them is there twice.
    """
    for ours, theirs in mapping.items():
        if header.count(theirs) > 1:
            raise DataError(f"{origin} has {header.count(theirs)} columns {theirs!r}; give them different names")
        if theirs not in header and (ours == "uri" or ours != theirs):
            raise DataError(
                f"{origin} has no column {theirs!r} for {ours!r}{did_you_mean(theirs, header)}; it has "
                f"{', '.join(map(repr, header))}. {_no_header(header) or f'Map yours with columns={{{ours!r}: NAME}} (--columns.{ours} NAME)'}"
            )
    return {ours: theirs for ours, theirs in mapping.items() if theirs in header}


def _no_header(header: Sequence[str]) -> str:
    """What to say where the first line is a sample."""
    named = [name for name in header if is_image(name)]
    return (
        f"The first line names an image ({named[0]!r}), so there is no header: write one, such as uri,label"
        if named
        else ""
    )
