"""An Arrow table as the bytes of a Parquet file that five readers open."""

from __future__ import annotations

import io
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

ROW_GROUP_BYTES = 4 * 2**20


def table_to_parquet(table: pa.Table) -> bytes:
    """The bytes of a Parquet file: zstd, plain maps (DuckDB refuses BYTE_STREAM_SPLIT on float16), row groups of a few MB."""
    return tables_to_parquet([table], table.schema)


def tables_to_parquet(tables: Iterable[pa.Table], schema: pa.Schema) -> bytes:
    """As `table_to_parquet`, of several tables behind each other; row groups do not end where a table ends."""
    buffer = io.BytesIO()
    with pq.ParquetWriter(
        buffer, schema, compression="zstd", use_byte_stream_split=False, write_page_checksum=True, write_page_index=True,
        use_dictionary=["method", "status", "device"],  # pyright: ignore[reportArgumentType]  (a list is documented)
    ) as writer:  # fmt: skip
        held = schema.empty_table()
        for table in tables:
            held = pa.concat_tables([held, table.replace_schema_metadata(schema.metadata)])
            per_group = max(1, ROW_GROUP_BYTES * len(held) // max(1, held.nbytes))
            whole = len(held) // per_group * per_group
            if whole:
                writer.write_table(held.slice(0, whole), row_group_size=per_group)
                held = held.slice(whole)
        if len(held):
            writer.write_table(held)
    return buffer.getvalue()
