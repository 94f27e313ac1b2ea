"""Sources: what lies at `--data`, as a listing of samples."""

from __future__ import annotations

import os
from collections.abc import Mapping

import pyarrow as pa

from ...errors import DataError
from .listing.detection import named
from .listing.options import Listed, SourceOptions
from .listing.registry import SOURCES


def list_source(data: str, options: SourceOptions) -> Listed:
    """All samples at `data`, with the data set's own columns if they are wanted, and what the source knows of its classes.

    Raises:
        DataError: When there is nothing at `data`, nothing in it, its kind is not clear, or an id is there twice.
    """
    found = named(data, options)
    if options.rows == "annotation" and not found.source.annotated:
        able = ", ".join(f"{name}:" for name, source in SOURCES.items() if source.annotated)
        raise DataError(f"{data} ({found.source.what}) has no annotated objects; --rows annotation is for {able}")
    return found.source.listed(found.data, options)


def list_samples(data: str, columns: Mapping[str, str] | None = None) -> pa.Table:
    """All samples at `data`: `id, uri, label` (as written)`, boxes, mask_uri`, without the data set's own columns.

    Args:
        data: What `--data` takes: a path or fsspec URI, or one with a prefix such as `coco:`.
        columns: The data set's names of the columns `id, uri, image, label, boxes, mask`, where they differ.

    Raises:
        DataError: As `list_source`.
    """
    return list_source(os.fspath(data), SourceOptions(columns=dict(columns or {}))).listing
