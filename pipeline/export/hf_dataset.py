"""A folder that `datasets.load_from_disk` opens: Arrow files, written a few MB at a time, without the library."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc

from .chosen import Chosen

FILE_BYTES = 500 * 10**6
"""As `datasets` cuts them."""


def write_hf_dataset(chosen: Chosen, path: Path) -> int:
    """Write the folder; `map_png` is shown as an image.

    Returns:
        Rows.
    """
    columns = list(chosen.columns or chosen.atlas.schema.names)
    schema = pa.schema([chosen.atlas.schema.field(name) for name in columns], _metadata(chosen, columns))
    files: list[str] = []
    writer, sink, written, rows = None, None, 0, 0
    digest = hashlib.sha256()
    try:
        for table in chosen.batches(columns):
            if writer is None or written >= FILE_BYTES:
                _close(writer, sink)
                files.append(f"part-{len(files):05d}.arrow")
                sink, written = pa.OSFile(str(path / files[-1]), "wb"), 0
                writer = pa.ipc.new_stream(sink, schema)
            writer.write_table(table.replace_schema_metadata(schema.metadata), max_chunksize=1000)
            written, rows = written + table.nbytes, rows + len(table)
            digest.update(repr((rows, table.nbytes)).encode())
    finally:
        _close(writer, sink)
    final = [f"data-{number:05d}-of-{len(files):05d}.arrow" for number in range(len(files))]
    for old, new in zip(files, final, strict=True):
        (path / old).rename(path / new)
    state = {
        "_data_files": [{"filename": name} for name in final], "_fingerprint": digest.hexdigest()[:16], "_format_columns": None,
        "_format_kwargs": {}, "_format_type": None, "_output_all_columns": False, "_split": None,
    }  # fmt: skip
    info = {"citation": "", "description": f"heatlas explanations of {chosen.atlas.uri}", "homepage": "", "license": ""}
    (path / "state.json").write_text(json.dumps(state, indent=2), encoding="utf-8")
    (path / "dataset_info.json").write_text(json.dumps(info, indent=2), encoding="utf-8")
    return rows


def _metadata(chosen: Chosen, columns: list[str]) -> dict[bytes, bytes]:
    """The store's own, but for features of columns that are left out."""
    metadata = dict(chosen.atlas.schema.metadata or {})
    if "map_png" not in columns:
        metadata.pop(b"huggingface", None)
    return metadata


def _close(writer: pa.ipc.RecordBatchStreamWriter | None, sink: pa.NativeFile | None) -> None:
    if writer is not None:
        writer.close()
    if sink is not None:
        sink.close()
