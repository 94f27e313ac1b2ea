"""A store as an earlier heatlas wrote it, made from one of today: other names, fewer columns, no origin in version 2."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
from heatlas.pipeline.store.identity import SCHEMA_FACT, schema_digest
from heatlas.pipeline.store.parquet_bytes import table_to_parquet
from heatlas.pipeline.store.part_origin import PartOrigin, run_identity
from heatlas.pipeline.store.part_summary import with_summary, without_summary
from heatlas.pipeline.store.schema import METADATA_KEY

SINCE_THEN = ("object_id", "box", "padded_forwards")
WHOLE_IMAGE = ("source_size", "source_hash", "label_name", "prediction_name", "label_confidence", "top_k", "precision")


def make_earlier(out: Path, version: int) -> None:
    """Turn a store of today (local) into one of a development version before 0.2.0 (`version` 3), or of store version 2."""
    run = json.loads((out / "_run.json").read_text()) | {"schema_version": version}
    tables = {}
    for path in sorted((out / "maps").glob("part-*.parquet")):
        table = pq.read_table(path)
        table = table.drop_columns([*SINCE_THEN, *(WHOLE_IMAGE if version == 2 else ())])
        schema = without_summary(table.schema)
        table = table.rename_columns(["score" if name == "confidence" else name for name in table.column_names])
        facts = json.loads(schema.metadata[METADATA_KEY]) | {"schema_version": version}
        metadata = {**schema.metadata, METADATA_KEY: json.dumps(facts, sort_keys=True).encode()}
        tables[path] = table.replace_schema_metadata(metadata)
    if SCHEMA_FACT in run["fingerprint"]:
        run["fingerprint"][SCHEMA_FACT] = schema_digest(next(iter(tables.values())).schema)
    (out / "_run.json").write_text(json.dumps(run))
    for path, table in tables.items():
        origin = None if version == 2 else PartOrigin(run_identity(run["fingerprint"]), int(path.stem[5:]), "")
        path.write_bytes(table_to_parquet(with_summary(table, origin)))
