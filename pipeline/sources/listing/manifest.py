"""Manifests: tables with one row per sample and the columns `id, uri, label, boxes, mask`, of which only `uri` must be. All
other columns are the data set's own."""

# pyarrow.compute makes its functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import os
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from ....errors import DataError
from .columns import check_mapping
from .manifest_files import READERS, Columns, Read, bad_boxes, first_bad_row
from .options import Listed, SourceOptions
from .place import Place, find_place, uri_of
from .plain_values import concat_columns
from .table import make_listing

MANIFEST_SUFFIXES = tuple(READERS)

_ABSOLUTE = r"^(/|[A-Za-z][A-Za-z0-9+.-]*://|[A-Za-z][A-Za-z0-9+.-]*::)"


def list_manifest(data: str, options: SourceOptions) -> Listed:
    """The listing of a manifest, or of all that a pattern names; relative uris are resolved against the folder of theirs.

    Raises:
        DataError: When a file cannot be read, lacks a column, or has a row without uri or id, with boxes of another form,
            or with an id that another row has too.
    """
    place = find_place(data)
    if place.is_folder:
        raise DataError(f"{data} is a folder; name the manifest in it, or all of them with {data.rstrip('/')}/*.csv")
    if wrong := place.suffixes - set(MANIFEST_SUFFIXES):
        raise DataError(
            f"{data} is not a manifest: a manifest ends in {', '.join(MANIFEST_SUFFIXES)}, not in {min(wrong)!r}"
        )
    files = [_read_file(place, path, options) for path in place.paths]
    rows = [len(ours["uri"]) for ours, _, _ in files]
    columns = concat_columns([ours for ours, _, _ in files], rows)
    others = concat_columns([own for _, own, _ in files], rows)
    notes = dict.fromkeys(note for _, _, notes in files for note in notes)
    return Listed(make_listing(columns, data, others), notes=tuple(notes))


def _read_file(place: Place, path: str, options: SourceOptions) -> Read:
    """The columns of one file, ours by the names of a listing."""
    mapping = check_mapping(options.columns)
    origin = place.origin if len(place.paths) == 1 else place.uri(path)
    try:
        data = cast(bytes, place.fs.cat_file(path))
    except Exception as error:  # each storage has errors of its own
        raise DataError(f"cannot read {origin}: {type(error).__name__}: {error}") from error
    known, others, notes = READERS[os.path.splitext(path)[1].lower()](data, mapping, origin, options.extra)
    for name in ("uri", "id"):
        check_filled(known, name, origin)
    check_boxes(known, origin)
    folder = uri_of(place.fs, path.rpartition("/")[0])
    if _has_backslashes(known["uri"]):
        notes.append(f"the paths of {origin} have backslashes, which are read as slashes")
        known |= {name: pc.replace_substring(known[name], "\\", "/") for name in ("uri", "mask") if name in known}
    listing: Columns = {"id": known.get("id", known["uri"]), "uri": resolved(known["uri"], folder)}
    if "mask" in known:
        listing["mask_uri"] = resolved(blank_to_null(known["mask"]), folder)
    if "label" in known:
        listing["label"] = blank_to_null(known["label"])
    if "boxes" in known:
        listing["boxes"] = known["boxes"]
    return listing, others, notes


def _has_backslashes(uris: pa.ChunkedArray) -> bool:
    """Whether paths were written on Windows: each has a backslash, none a slash, and none begins with a drive."""
    windows = pc.and_(pc.match_substring(uris, "\\"), pc.invert(pc.match_substring_regex(uris, r"/|^[A-Za-z]:")))
    return bool(pc.all(windows).as_py())


def check_filled(columns: Columns, name: str, origin: str) -> None:
    """Refuse a column with empty places."""
    if name not in columns:
        return
    row = pc.index(pc.is_null(blank_to_null(columns[name])), True).as_py()
    if row >= 0:
        raise DataError(f"row {row + 1} of {origin} has no {name}; every sample needs one")


def check_boxes(columns: Columns, origin: str) -> None:
    """Refuse boxes that are not four numbers each."""
    boxes = columns.get("boxes")
    if boxes is not None and (row := first_bad_row(boxes)) is not None:
        raise DataError(bad_boxes(row, boxes[row - 1].as_py(), origin))


def resolved(uris: pa.ChunkedArray, folder: str) -> pa.ChunkedArray:
    """Relative uris against a folder; absolute paths and URIs as they are."""
    relative = pc.replace_substring_regex(uris, r"^(\./)+", "")
    concat_columns = pc.binary_join_element_wise(folder, relative, "/")
    return pc.if_else(pc.match_substring_regex(uris, _ABSOLUTE), uris, concat_columns)


def blank_to_null(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)
