"""Runs to compact, without pauses."""

from __future__ import annotations

import pytest
from heatlas.pipeline.settings.run import describe
from heatlas.pipeline.shards import plan_digest, plan_shards
from heatlas.pipeline.store import compact as compact_module
from heatlas.pipeline.store.completeness import check_complete
from heatlas.pipeline.store.parquet_sink import ParquetSink
from heatlas.pipeline.store.run_file import claim_run
from heatlas.pipeline.store.success_file import write_success

from ...support.compacted_store import ROWS, SETTINGS, SHARD


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(compact_module, "PAUSE", 0)


@pytest.fixture
def make_run(layout, make_row):
    """A run of 22 rows in 11 shards, three of them errors; some shards may be left out."""

    def write(out, leave_out=(), rows=ROWS):
        plan = plan_shards(rows, SHARD)
        facts = {"samples": rows, "shards": len(plan), "listing": "abc", "digest": plan_digest("abc", plan)}
        claim_run(str(out), {"plan": facts}, {**describe(SETTINGS), "out": str(out)})
        for shard in plan:
            if shard.index not in leave_out:
                ParquetSink(str(out), layout).commit(shard, [make_row(n) for n in range(shard.start, shard.stop)])
        if not leave_out:
            write_success(str(out), check_complete(str(out), plan))
        return plan

    return write
