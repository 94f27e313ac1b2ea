"""A Lance dataset: the store's columns as they are, for vector search over maps. Needs the extra `lance`."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from ...errors import StorageError, UsageError
from .chosen import Chosen


def write_lance(chosen: Chosen, path: Path) -> int:
    """Write the folder.

    Returns:
        Rows.

    Raises:
        UsageError: If the library is not installed.
        StorageError: If it cannot write.
    """
    try:
        import lance
    except ImportError:
        raise UsageError("--format lance needs the package pylance: pip install 'heatlas[lance]'") from None
    columns = list(chosen.columns or chosen.atlas.schema.names)
    schema = pa.schema([chosen.atlas.schema.field(name) for name in columns], chosen.atlas.schema.metadata)
    batches = (
        batch
        for table in chosen.batches(columns)
        for batch in table.replace_schema_metadata(schema.metadata).to_batches()
    )
    try:
        written = lance.write_dataset(pa.RecordBatchReader.from_batches(schema, batches), str(path), mode="create")
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error.__cause__, StorageError):
            raise error.__cause__ from None
        raise StorageError(f"Lance cannot write {path}: {error}") from error
    return written.count_rows()
