"""Parts put by hand: with the footer of the run that owns the place, as a sink would write it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from heatlas.pipeline.storage.atomic_write import put
from heatlas.pipeline.store.parquet_bytes import table_to_parquet
from heatlas.pipeline.store.part_names import part_path
from heatlas.pipeline.store.part_origin import PartOrigin, run_identity
from heatlas.pipeline.store.part_summary import with_summary
from heatlas.pipeline.store.run_file import find_run


def stamped(out: Any, index: int, table: pa.Table) -> pa.Table:
    """The rows with totals and origin."""
    run = find_run(str(out))
    return with_summary(table, None if run is None else PartOrigin(run_identity(run["fingerprint"]), index, ""))


def put_part(out: Any, index: int, table: pa.Table) -> None:
    """Over whatever stands there."""
    put(f"{out}/{part_path(index)}", table_to_parquet(stamped(out, index, table)))
