"""Sources: what lies at `--data`, as a listing of samples."""

from __future__ import annotations

import os
from collections.abc import Mapping

import pyarrow as pa

from ...engine.errors import DataError, UsageError
from ..location import locate
from .folder import list_folder
from .manifest import MANIFEST_SUFFIXES, list_manifest


def list_samples(data: str, columns: Mapping[str, str] | None = None) -> pa.Table:
    """All samples at `data`, sorted by id: `id, uri, label` (as written)`, boxes, mask_uri`.

    Args:
        data: Image folder or manifest (`.csv`, `.tsv`, `.jsonl`, `.ndjson`, `.parquet`); local path or fsspec URI.
        columns: For manifests: the file's names of the columns `id, uri, label, boxes, mask`, where they differ.

    Raises:
        DataError: When there is nothing at `data`, nothing in it, or an id is there twice.
    """
    origin = os.fspath(data)
    try:
        fs, path = locate(os.path.expanduser(origin))
        is_folder, is_file = fs.isdir(path), fs.isfile(path)
    except UsageError as error:
        raise DataError(str(error)) from error
    except Exception as error:  # each storage has errors of its own
        raise DataError(f"cannot reach {origin}: {type(error).__name__}: {error}") from error
    if is_folder:
        return list_folder(fs, path, origin)
    if not is_file:
        raise DataError(f"there is no file or folder {origin}; give an image folder or a manifest")
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in MANIFEST_SUFFIXES:
        raise DataError(
            f"{origin} is neither a folder nor a manifest: a manifest ends in {', '.join(MANIFEST_SUFFIXES)}; "
            "for images give the folder that contains them"
        )
    return list_manifest(fs, path, origin, columns)
