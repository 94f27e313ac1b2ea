"""A part belongs to its run and its shard: whoever reads it, and whatever stands in its rows."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pyarrow.parquet as pq
import pytest
from heatlas.errors import StorageError
from heatlas.pipeline.atlas import open_atlas
from heatlas.pipeline.explain.retry_errors import RetrySink
from heatlas.pipeline.shards import planned_shards
from heatlas.pipeline.store.committed_shards import done_shards, row_totals
from heatlas.pipeline.store.compact import compact_store
from heatlas.pipeline.store.completeness import check_complete
from heatlas.pipeline.store.footer_reader import part_summaries
from heatlas.pipeline.store.parquet_sink import ParquetSink
from heatlas.pipeline.store.part_names import part_path
from heatlas.pipeline.store.part_origin import PartOrigin, foreign, ids_digest
from heatlas.pipeline.store.part_summary import stored_summary
from heatlas.pipeline.store.run_file import claim_run
from heatlas.pipeline.store.schema import METADATA_KEY
from heatlas.pipeline.store.verify import verify_run

FINGERPRINT = {
    "plan": {"samples": 20, "shards": 4, "digest": "p", "sizes": [5, 5, 5, 5]},
    "metrics": [],
}


@pytest.fixture
def runs(tmp_path, make_row, layout):
    """Two runs of the same plan that differ in their seed, and in nothing that their rows show."""

    def write(name: str, seed: int) -> str:
        out = str(tmp_path / name)
        claim_run(out, {**FINGERPRINT, "seed": seed}, {"model": "m", "data": "d", "out": out})
        for shard in planned():
            ParquetSink(out, layout).commit(shard, [make_row(number) for number in range(shard.start, shard.stop)])
        return out

    return write("ours", 0), write("theirs", 1)


def planned():
    return planned_shards(FINGERPRINT["plan"])


def everybody(out: str):
    """Everything that reads parts, by name."""
    return {
        "totals": lambda: row_totals(out),
        "summaries": lambda: part_summaries(out, done_shards(out)),
        "completeness": lambda: check_complete(out, planned()),
        "open": lambda: open_atlas(out),
    }


def swap_two(ours: str, theirs: str) -> None:
    first, second = (f"{ours}/{part_path(index)}" for index in (0, 1))
    shutil.move(first, first + ".x")
    shutil.move(second, first)
    shutil.move(first + ".x", second)


def take_theirs(ours: str, theirs: str) -> None:
    shutil.copy(f"{theirs}/{part_path(1)}", f"{ours}/{part_path(1)}")


def strip_origin(ours: str, theirs: str) -> None:
    place = f"{ours}/{part_path(1)}"
    table = pq.read_table(place)
    facts = json.loads(table.schema.metadata[b"heatlas_part"]) | {"origin": None}
    metadata = {**table.schema.metadata, b"heatlas_part": json.dumps(facts).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), place)


FORGERIES = {
    swap_two: "is shard 1 and not shard 0",
    take_theirs: "belongs to another run",
    strip_origin: "does not say which run it belongs to",
}


@pytest.mark.parametrize("reader", ["totals", "summaries", "completeness", "open"])
@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__)
def test_nobody_reads_a_foreign_part(runs, forge, reader):
    ours, theirs = runs
    assert everybody(ours)[reader]() is not None
    forge(ours, theirs)
    with pytest.raises(StorageError, match=FORGERIES[forge]):
        everybody(ours)[reader]()


@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__)
def test_a_foreign_part_is_not_merged_and_verify_names_it(runs, forge):
    ours, theirs = runs
    assert verify_run(ours).as_json()["problems"] == [
        {
            "where": "_SUCCESS",
            "text": "is missing: every shard is done, but the run was not concluded",
            "repair": "resume",
        }
    ]
    forge(ours, theirs)
    with pytest.raises(StorageError, match=FORGERIES[forge]):
        compact_store(ours)
    problems = verify_run(ours).problems
    assert any(FORGERIES[forge] in problem.text and problem.repair == "delete" for problem in problems), problems


def test_a_retry_leaves_a_part_of_another_run_alone(runs, make_row, layout):
    """A late worker of a run whose directory was taken over by another one."""
    ours, theirs = runs
    [late] = {summary.origin.run for summary in part_summaries(theirs, done_shards(theirs)).values() if summary.origin}
    before = pq.read_table(f"{ours}/{part_path(1)}")
    repaired = dataclasses.replace(make_row(7), sample=make_row(6).sample)
    with pytest.raises(StorageError, match="belongs to another run"):
        RetrySink(ours, layout, late).commit(planned()[1], [repaired])
    assert pq.read_table(f"{ours}/{part_path(1)}").equals(before)


def test_a_retry_and_a_merge_keep_the_origin(runs, make_row, layout):
    ours, _ = runs
    before = part_summaries(ours, done_shards(ours))[1].origin
    repaired = dataclasses.replace(make_row(7), sample=make_row(6).sample)
    assert RetrySink(ours, layout).commit(planned()[1], [repaired])
    compact_store(ours)
    after = part_summaries(ours, done_shards(ours))
    assert after[1].origin == before
    assert [summary.origin.shard for summary in after.values()] == [0, 1, 2, 3]


def test_what_a_footer_says(runs):
    ours, _ = runs
    table = pq.read_table(f"{ours}/{part_path(2)}")
    summary = stored_summary(table.schema.metadata)
    assert summary is not None
    assert summary.origin is not None
    assert summary.origin.ids == ids_digest(reversed(table["id"].to_pylist() * 2))
    assert (summary.origin.shard, summary.origin.version) == (2, 3)
    assert json.loads(table.schema.metadata[METADATA_KEY])["schema_version"] == 3


def test_a_store_of_version_2_says_nothing_and_is_read(runs):
    ours, theirs = runs
    strip_origin(ours, theirs)
    place = f"{ours}/_run.json"
    with open(place) as file:
        run = json.load(file) | {"schema_version": 2}
    with open(place, "w") as file:
        json.dump(run, file)
    assert len(open_atlas(ours)) == 20
    assert foreign(None, None, 1) is None
    assert foreign(PartOrigin("other", 9, ""), None, 1) is None
