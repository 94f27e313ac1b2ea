"""Make the manifest with the current decisions applied as one file to download: CSV, or a zip if it has painted masks."""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path

from ..store.reader import StoreReader

NAME = "manifest.csv"


def download_manifest(atlas: StoreReader) -> tuple[str, bytes, str]:
    """File name, content and media type.

    Raises:
        UsageError: If the run's data set cannot be named in a manifest.
        DataError: If it cannot be listed any more.
        StorageError: If the decisions cannot be read.
    """
    from ..decisions.manifest import (
        write_manifest,  # here, because it knows the metrics and with them torch, half a gigabyte
    )

    with tempfile.TemporaryDirectory() as folder:
        write_manifest(atlas, str(Path(folder) / NAME))
        files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        if len(files) == 1:
            return NAME, files[0].read_bytes(), "text/csv"
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in files:
                archive.write(path, path.relative_to(folder).as_posix())
        return "manifest.zip", buffer.getvalue(), "application/zip"
