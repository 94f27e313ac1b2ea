"""Sources: what lies at `--data`, as a listing of samples."""

from __future__ import annotations

from ...errors import DataError
from .listing.detection import detect_source
from .listing.options import Listed, SourceOptions
from .listing.registry import SOURCES


def list_source(data: str, options: SourceOptions) -> Listed:
    """All samples at `data`, with the data set's own columns if they are wanted, and what the source knows of its classes.

    Raises:
        DataError: When there is nothing at `data`, nothing in it, its kind is not clear, or an id is there twice.
    """
    detected = detect_source(data, options)
    if options.rows == "annotation" and not detected.source.annotated:
        able = ", ".join(f"{name}:" for name, source in SOURCES.items() if source.annotated)
        raise DataError(f"{data} ({detected.source.what}) has no annotated objects; --rows annotation is for {able}")
    return detected.source.listed(detected.data, options)
