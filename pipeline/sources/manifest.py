"""A manifest: a table with one row per sample and the columns `id, uri, label, boxes, mask`, of which only `uri` must be."""

# pyarrow.compute makes its functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc
from fsspec import AbstractFileSystem

from ...engine.errors import DataError
from ..location import is_local
from .columns import check_mapping
from .listing import make_listing
from .manifest_files import READERS, Columns, bad_boxes, first_bad_row

MANIFEST_SUFFIXES = tuple(READERS)

_ABSOLUTE = r"^(/|[A-Za-z][A-Za-z0-9+.-]*://|[A-Za-z][A-Za-z0-9+.-]*::)"


def list_manifest(fs: AbstractFileSystem, path: str, origin: str, columns: Mapping[str, str] | None) -> pa.Table:
    """The listing of a manifest; relative uris are resolved against the folder in which the manifest lies.

    Args:
        fs: Where the manifest is.
        path: Its path there; the suffix tells the format.
        origin: The manifest as the user wrote it, for messages.
        columns: Names in the file by our names, where they differ.

    Raises:
        DataError: When the file cannot be read, lacks a column, or has a row without uri or id, with boxes of another
            form, or with an id that another row has too.
    """
    mapping = check_mapping(columns)
    try:
        data = cast(bytes, fs.cat_file(path))
    except Exception as error:  # each storage has errors of its own
        raise DataError(f"cannot read {origin}: {type(error).__name__}: {error}") from error
    read = READERS[os.path.splitext(path)[1].lower()]
    found = read(data, mapping, origin)
    for name in ("uri", "id"):
        _check_filled(found, name, origin)
    if "boxes" in found:
        _check_boxes(found["boxes"], origin)
    folder = _folder_uri(fs, path)
    listing: Columns = {"id": found.get("id", found["uri"]), "uri": _resolved(found["uri"], folder)}
    if "mask" in found:
        listing["mask_uri"] = _resolved(_blank_to_null(found["mask"]), folder)
    if "label" in found:
        listing["label"] = _blank_to_null(found["label"])
    if "boxes" in found:
        listing["boxes"] = found["boxes"]
    return make_listing(listing, origin)


def _check_filled(columns: Columns, name: str, origin: str) -> None:
    if name not in columns:
        return
    row = pc.index(pc.is_null(_blank_to_null(columns[name])), True).as_py()
    if row >= 0:
        raise DataError(f"row {row + 1} of {origin} has no {name}; every sample needs one")


def _check_boxes(boxes: pa.ChunkedArray, origin: str) -> None:
    row = first_bad_row(boxes)
    if row is not None:
        raise DataError(bad_boxes(row, boxes[row - 1].as_py(), origin))


def _folder_uri(fs: AbstractFileSystem, path: str) -> str:
    folder = path.rpartition("/")[0]
    return folder if is_local(fs) else fs.unstrip_protocol(folder)


def _resolved(uris: pa.ChunkedArray, folder: str) -> pa.ChunkedArray:
    relative = pc.replace_substring_regex(uris, r"^(\./)+", "")
    joined = pc.binary_join_element_wise(folder, relative, "/")
    return pc.if_else(pc.match_substring_regex(uris, _ABSOLUTE), uris, joined)


def _blank_to_null(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)
