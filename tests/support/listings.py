"""The listing of a data set alone, as many tests want it, and small data sets to be listed."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from heatlas.errors import UsageError
from heatlas.pipeline.sources import list_source
from heatlas.pipeline.sources.listing.labels import ResolvedLabels
from heatlas.pipeline.sources.listing.options import Listed, SourceOptions

PIXELS = b"\x89PNG"
"""Content of an image that is listed and never opened."""


def list_samples(data: str, columns: Mapping[str, str] | None = None) -> pa.Table:
    """All samples at `data`, without the data set's own columns."""
    return list_source(data, SourceOptions(columns=dict(columns or {}))).listing


def listed(data: object, **options) -> Listed:
    """All samples at `data` with the data set's own columns, and what is said of it."""
    return list_source(str(data), SourceOptions(extra=True, **options))


def labels_of(listed: Listed) -> list[str | None]:
    """Each sample's label as it is written."""
    return listed.listing["label"].to_pylist()


def wrong_labels(resolved: ResolvedLabels, truth: Sequence[int]) -> list[int]:
    """Class indices that labels were read as and that are not the true ones; a label without a class is not wrong."""
    indices = resolved.listing["label"].to_pylist()
    return [index for index, right in zip(indices, truth, strict=True) if index not in (right, None)]


def refusal(data: object, options: SourceOptions | None = None) -> str:
    """What is said of a data set that is refused."""
    with pytest.raises(UsageError) as caught:
        list_source(str(data), options or SourceOptions())
    return str(caught.value)


def write_images(root: Path, *names: str) -> Path:
    """Image files below a folder, which is returned."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(PIXELS)
    return root


def tar_of(path: Path, members: Mapping[str, bytes]) -> Path:
    """A tar of these members, whose path is returned."""
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path
