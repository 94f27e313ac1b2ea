"""Stores that an earlier heatlas wrote: readable under today's names, and migrated by a command that leaves them as they are."""

from __future__ import annotations

import hashlib
import io
import json

import heatlas
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from heatlas.errors import RunMismatchError, StorageError, UsageError
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.store.committed_shards import done_shards, row_totals
from heatlas.pipeline.store.identity import SCHEMA_FACT, schema_digest
from heatlas.pipeline.store.merge_parts import write_merged
from heatlas.pipeline.store.migrate import migrate_store
from heatlas.pipeline.store.parquet_bytes import table_to_parquet
from heatlas.pipeline.store.part_check import check_part
from heatlas.pipeline.store.part_files import PartFile
from heatlas.pipeline.store.part_origin import PartOrigin, run_identity
from heatlas.pipeline.store.part_summary import with_summary
from heatlas.pipeline.store.run_file import claim_run
from heatlas.pipeline.store.success_file import write_success

from ..support.earlier_store import SINCE_THEN, WHOLE_IMAGE, make_earlier
from .conftest import LAYOUT


def content(out) -> dict[str, str]:
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(out.rglob("*")) if path.is_file()}  # fmt: skip


@pytest.fixture(params=[2, 3])
def earlier(request, tmp_path, make_store):
    """The store's place and what it held when it was of today."""
    out = tmp_path / "out"
    make_store(out)
    rows = heatlas.open(out).table().to_pylist()
    make_earlier(out, request.param)
    return out, rows, request.param


def test_an_earlier_store_reads_under_the_names_of_today(earlier):
    out, rows, version = earlier
    atlas = heatlas.open(out)
    lacking = {*SINCE_THEN, *(WHOLE_IMAGE if version == 2 else ())}
    assert atlas.table().to_pylist() == [{k: v for k, v in row.items() if k not in lacking} for row in rows]
    confidences = [row["confidence"] for row in rows]
    assert atlas.table(["confidence"])["confidence"].to_pylist() == confidences
    assert [row[0] for row in atlas.sql("SELECT confidence FROM atlas ORDER BY id").fetchall()] == confidences
    above = atlas.table(["id", "confidence"], where="confidence > 0.51").to_pylist()
    assert above == [{"id": r["id"], "confidence": r["confidence"]} for r in rows if (r["confidence"] or 0) > 0.51]
    assert atlas.count("confidence > 0.51") == len(above)
    assert "score" not in atlas.schema.names
    assert not check_part(str(out), PartFile(1, 1), {1: 5}).problems


def test_the_former_name_is_answered_with_the_name_of_today(tmp_path, make_store):
    make_store(tmp_path / "out")
    atlas = heatlas.open(tmp_path / "out")
    with pytest.raises(UsageError, match="unknown column 'score', which is called 'confidence' now"):
        atlas.table(["score"])
    with pytest.raises(UsageError, match="the column score is called confidence now"):
        atlas.sql("SELECT score FROM atlas")
    with pytest.raises(UsageError, match="the column score is called confidence now"):
        atlas.table(["id"], where="score > 0.5")


@pytest.mark.parametrize("compacted", [False, True])
def test_a_migrated_store_holds_the_same_rows_and_more_columns(earlier, tmp_path, compacted):
    out, rows, version = earlier
    if compacted:
        write_merged(str(out), done_shards(str(out)).files)
        for part in (out / "maps").glob("part-*"):
            part.unlink()
    write_success(str(out), row_totals(str(out)))
    (out / "decisions").mkdir()
    (out / "decisions" / "01X.parquet").write_bytes(b"kept")
    before, to = content(out), tmp_path / "new"
    told = migrate_store(str(out), str(to))
    assert content(out) == before
    assert set(told.added) == {*SINCE_THEN, *(WHOLE_IMAGE if version == 2 else ())}
    fields = {"source_size", "source_hash", "label_confidence", "top_k", "precision"} if version == 2 else set()
    atlas = heatlas.open(to)
    assert atlas.table().to_pylist() == [{**row, **dict.fromkeys(fields), "padded_forwards": None} for row in rows]
    assert np.array_equal(atlas.maps(), heatlas.open(out).maps())
    run = json.loads((to / "_run.json").read_text())
    assert (run["schema_version"], run["migrated_from"]["schema_version"]) == (3, version)
    assert (to / "decisions" / "01X.parquet").read_bytes() == b"kept"
    assert json.loads((to / "_SUCCESS").read_text())["rows"] == 20
    assert not check_part(str(to), atlas.files[0], dict.fromkeys(range(4), 5), None).problems
    assert migrate_store(str(out), str(to)).written == 0
    assert "already" in migrate_store(str(to), str(tmp_path / "newer")).text()
    assert not (tmp_path / "newer").exists()


def test_an_interrupted_migration_is_completed(earlier, tmp_path):
    out, _, _ = earlier
    to = tmp_path / "new"
    migrate_store(str(out), str(to))
    whole = content(to)
    (to / "maps" / "part-000002.parquet").unlink()
    assert migrate_store(str(out), str(to)).written == 1
    assert content(to) == whole


def test_another_place_is_left_alone(earlier, tmp_path, capsys):
    out, _, _ = earlier
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("x")
    with pytest.raises(RunMismatchError, match="other is not empty; migrate"):
        migrate_store(str(out), str(tmp_path / "other"))
    assert main(["migrate", str(out), "--out", str(tmp_path / "other")]) == 2
    assert main(["migrate", str(tmp_path / "other"), "--out", str(tmp_path / "new")]) == 2
    assert "is not a heatlas store" in capsys.readouterr().err


def test_a_damaged_part_is_not_migrated(earlier, tmp_path):
    out, _, _ = earlier
    path = out / "maps" / "part-000001.parquet"
    data = bytearray(path.read_bytes())
    columns = pq.read_metadata(path).row_group(0)
    place = next(
        column for column in map(columns.column, range(columns.num_columns)) if column.path_in_schema == "logit"
    )
    data[place.data_page_offset + place.total_compressed_size - 3] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(StorageError, match=r"part-000001\.parquet"):
        migrate_store(str(out), str(tmp_path / "new"))


def test_an_exchanged_part_does_not_become_sound_by_migration(earlier, tmp_path):
    """Nothing in the file says so, but the totals do."""
    out, _, version = earlier
    write_success(str(out), row_totals(str(out)))
    path = out / "maps" / "part-000001.parquet"
    table = pq.read_table(path)
    other = pc.add(table["logit"], 1.0)  # pyright: ignore[reportAttributeAccessIssue]
    table = table.set_column(table.column_names.index("logit"), table.schema.field("logit"), other)
    run = run_identity(json.loads((out / "_run.json").read_text())["fingerprint"])
    path.write_bytes(table_to_parquet(with_summary(table, None if version == 2 else PartOrigin(run, 1, ""))))
    with pytest.raises(StorageError, match=r"holds other rows than its _SUCCESS says \(digest\)"):
        migrate_store(str(out), str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_a_part_of_a_later_version_is_neither_migrated_nor_sound(tmp_path, make_store):
    out = tmp_path / "out"
    make_store(out)
    later = (out / "maps" / "part-000001.parquet").read_bytes()
    make_earlier(out, 2)
    (out / "maps" / "part-000001.parquet").write_bytes(with_origin(later))
    with pytest.raises(StorageError, match="belongs to a run of a later store version"):
        migrate_store(str(out), str(tmp_path / "new"))


def with_origin(data: bytes) -> bytes:
    table = pq.read_table(io.BytesIO(data))
    return table_to_parquet(with_summary(table, PartOrigin("another run", 1, "")))


def test_the_columns_are_those_of_a_run_of_today(earlier, tmp_path):
    out, _, _ = earlier
    fresh = tmp_path / "fresh"
    migrate_store(str(out), str(tmp_path / "new"))
    schema = pq.read_schema(tmp_path / "new" / "maps" / "part-000000.parquet")
    assert schema.remove_metadata().equals(LAYOUT.schema().remove_metadata())
    assert not fresh.exists()


def resumed(out, facts) -> str:
    """What a run of today with these facts, and the columns of today, makes of the place."""
    return claim_run(str(out), {"plan_digest": "p", **facts, SCHEMA_FACT: schema_digest(LAYOUT.schema())}, {}).state


def edit_fingerprint(out, **facts) -> None:
    run = json.loads((out / "_run.json").read_text())
    run["fingerprint"] |= facts
    (out / "_run.json").write_text(json.dumps(run))


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ({}, {}),
        ({"fold_bn": True}, {"forward": "fold_bn"}),
        ({"compile": True}, {"forward": "compile"}),
        ({"compile": False, "fold_bn": False}, {}),
    ],
)
def test_a_migrated_store_belongs_to_its_own_run(tmp_path, make_store, before, now):
    """It is told by what the run of today says, under today's names; other library versions are refused as in every run."""
    out, to = tmp_path / "out", tmp_path / "new"
    make_store(out)
    edit_fingerprint(out, **before, **{SCHEMA_FACT: "of then"})
    make_earlier(out, 3)
    migrate_store(str(out), str(to))
    assert resumed(to, now) == "resumed"
    with pytest.raises(RunMismatchError, match=r"forward: stored .*, now \"cuda_graph\""):
        resumed(to, {"forward": "cuda_graph"})
    edit_fingerprint(to, versions={"heatlas": "0.1.9"})
    with pytest.raises(RunMismatchError, match=r"versions\.heatlas: stored \"0\.1\.9\", now"):
        resumed(to, now)
