"""Which columns of a manifest are read, by the names that the user's file gives them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ...engine.errors import DataError, did_you_mean

MANIFEST_COLUMNS = ("id", "uri", "label", "boxes", "mask")
"""Ours; only `uri` must be there, and `id` is the uri as written where there is none."""


def check_mapping(columns: Mapping[str, str] | None) -> dict[str, str]:
    """A name in the file for each of `MANIFEST_COLUMNS`; the same name unless `columns` says another.

    Raises:
        DataError: For a key that is not one of ours.
    """
    given = dict(columns or {})
    for name in given:
        if name not in MANIFEST_COLUMNS:
            hint = did_you_mean(name, MANIFEST_COLUMNS)
            raise DataError(f"unknown column {name!r} in the mapping, there are {', '.join(MANIFEST_COLUMNS)}{hint}")
    return {name: given.get(name, name) for name in MANIFEST_COLUMNS}


def present_columns(mapping: Mapping[str, str], header: Collection[str], origin: str) -> dict[str, str]:
    """The part of the mapping that the file has.

    Raises:
        DataError: When `uri`, or a column that was mapped to another name, is missing; names those that are there.
    """
    for ours, theirs in mapping.items():
        if theirs not in header and (ours == "uri" or ours != theirs):
            raise DataError(
                f"{origin} has no column {theirs!r} for {ours!r}{did_you_mean(theirs, header)}; it has "
                f"{', '.join(map(repr, header))}. Map yours with columns={{{ours!r}: NAME}} (--columns.{ours} NAME)"
            )
    return {ours: theirs for ours, theirs in mapping.items() if theirs in header}
