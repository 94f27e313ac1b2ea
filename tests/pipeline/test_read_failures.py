"""A file that cannot be read at the moment is not a damaged file: only the second is answered with a deletion."""

from __future__ import annotations

import errno
import os

import heatlas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from heatlas.errors import StorageError, UsageError
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.store import sql
from heatlas.pipeline.store.committed_shards import read_part, row_totals
from tenacity import wait_none

from ..support.stored_parts import put_part

READINGS = {
    "maps": lambda atlas: atlas.maps(["img-0000"]),
    "table": lambda atlas: atlas.table(["id"]),
    "part": lambda atlas: read_part(atlas.uri, 0),
}


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr("heatlas.pipeline.storage.backoff.WAIT", wait_none())


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.EACCES, errno.ENFILE, errno.ESTALE])
@pytest.mark.parametrize("reading", READINGS)
def test_what_storage_refuses_is_no_reason_to_delete(tmp_path, make_store, monkeypatch, impatient, reading, number):
    make_store(tmp_path / "out")
    atlas = heatlas.open(tmp_path / "out")

    def refuse(self, path, mode="rb", **_):
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(LocalFileSystem, "_open", refuse)
    with pytest.raises(StorageError) as caught:
        READINGS[reading](atlas)
    assert os.strerror(number) in str(caught.value)
    assert "delete" not in str(caught.value)
    if number in (errno.EMFILE, errno.ENFILE):
        assert "ulimit -n" in str(caught.value)


@pytest.mark.parametrize("reading", READINGS)
def test_a_damaged_file_is_told_with_its_repair(tmp_path, make_store, reading):
    make_store(tmp_path / "out")
    atlas = heatlas.open(tmp_path / "out")
    (tmp_path / "out" / "maps" / "part-000000.parquet").write_bytes(b"PAR1" + bytes(200) + b"PAR1")
    with pytest.raises(
        StorageError, match=r"part-000000\.parquet: .*delete that file and run the same .heatlas explain"
    ):
        READINGS[reading](atlas)


ANSWERS = {
    "query_rows": lambda atlas: atlas.query_rows("SELECT drop_pct FROM atlas"),
    "query_table": lambda atlas: atlas.query_table("SELECT drop_pct FROM atlas"),
    "count": lambda atlas: atlas.count("drop_pct > 1"),
    "summary": lambda atlas: atlas.summary(resamples=2),
    "report": lambda atlas: atlas.report(),
    "curate": lambda atlas: atlas.curate(["no_evidence"]),
}


@pytest.mark.parametrize("damage", ["header", "content"])
@pytest.mark.parametrize("answer", ANSWERS)
def test_a_page_that_the_database_cannot_decode_is_told_with_its_repair(tmp_path, make_store, answer, damage):
    """DuckDB reads pages only when rows are asked for, and says of damaged ones what it says of no other fault."""
    make_store(tmp_path / "out")
    path = tmp_path / "out" / "maps" / "part-000001.parquet"
    group, data = pq.read_metadata(path).row_group(0), bytearray(path.read_bytes())
    place = next(c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == "drop_pct")
    first = place.dictionary_page_offset or place.data_page_offset
    size = place.total_compressed_size
    for byte in range(first, first + 8) if damage == "header" else range(first + size - 8, first + size):
        data[byte] ^= 0xA5
    path.write_bytes(data)
    with pytest.raises(StorageError, match="`heatlas verify` finds damaged files; delete the file named there"):
        ANSWERS[answer](heatlas.open(tmp_path / "out"))


def test_a_query_that_fails_on_a_value_is_the_users(tmp_path, make_store):
    make_store(tmp_path / "out")
    with pytest.raises(UsageError, match=r"DuckDB refuses .*Could not convert"):
        heatlas.open(tmp_path / "out").query_rows("SELECT CAST(id AS INTEGER) FROM atlas")


def test_a_reading_that_fails_for_a_moment_is_repeated(memory_uri, make_store, monkeypatch, impatient):
    make_store(memory_uri)
    atlas = heatlas.open(memory_uri)
    opened, failures = MemoryFileSystem._open, [ConnectionResetError("gone"), TimeoutError("slow")]

    def fails_twice(self, path, mode="rb", **options):
        if failures:
            raise failures.pop()
        return opened(self, path, mode, **options)

    monkeypatch.setattr(MemoryFileSystem, "_open", fails_twice)
    assert atlas.maps(["img-0000"]).shape[0] == 1
    assert not failures


def test_too_many_open_files_is_said_as_such_by_the_database_too(tmp_path, make_store, monkeypatch):
    make_store(tmp_path / "out")
    duckdb = pytest.importorskip("duckdb")
    with pytest.raises(StorageError, match=r"raise the limit \(`ulimit -n") as caught, sql.reading_parts("out"):
        raise duckdb.IOException('IO Error: Cannot open file "x.parquet": Too many open files')
    assert "delete" not in str(caught.value)


def test_metrics_that_are_not_finite_are_missing(tmp_path, make_store):
    make_store(tmp_path / "out", count=6)
    table = read_part(str(tmp_path / "out"), 0)
    place = table.schema.names.index("drop_pct")
    values = [float("nan"), float("inf"), 2.0, *table["drop_pct"].to_pylist()[3:]]
    kept = [value for value in values[2:] if value is not None]
    put_part(
        tmp_path / "out", 0, table.set_column(place, table.schema.field("drop_pct"), pa.array(values, pa.float64()))
    )
    atlas = heatlas.open(tmp_path / "out")
    assert atlas.table(["drop_pct"])["drop_pct"].to_pylist()[:3] == [None, None, 2.0]
    assert atlas.sql("SELECT count(drop_pct), avg(drop_pct) FROM atlas").fetchall() == [
        (len(kept), pytest.approx(sum(kept) / len(kept)))
    ]
    assert atlas.count("drop_pct > 1000 OR isnan(drop_pct)") == 0
    assert row_totals(str(tmp_path / "out"))["metrics"]["drop_pct"]["count"] == len(kept)
    means = {row["metric"]: row["mean"] for row in atlas.summary(resamples=2).to_pylist()}
    assert means["drop_pct"] == pytest.approx(sum(kept) / len(kept))


@pytest.mark.parametrize(
    "condition",
    [
        "id IN (SELECT content FROM read_text('{secret}'))",
        "EXISTS (SELECT * FROM '{secret}')",
        "EXISTS (SELECT * FROM read_csv('{out}/maps/../../secret.csv'))",
        "EXISTS (SELECT * FROM glob('/etc/*'))",
    ],
)
def test_a_condition_reads_the_rows_and_nothing_else(tmp_path, make_store, condition, capsys):
    make_store(tmp_path / "out")
    (tmp_path / "secret.csv").write_text("id\nimg-0000\n")
    text = condition.format(secret=tmp_path / "secret.csv", out=tmp_path / "out")
    with pytest.raises((UsageError, StorageError), match="disabled"):
        heatlas.open(tmp_path / "out").table(["id"], where=text)
    code = main(["export", str(tmp_path / "out"), "--format", "csv", "--out", str(tmp_path / "x.csv"), "--where", text])
    assert code in (1, 2)
    assert not (tmp_path / "x.csv").exists()
    assert heatlas.open(tmp_path / "out").count("class_name(target) = 'bee'") == 6


def test_a_full_device_stops_only_the_printing(tmp_path, make_store, monkeypatch, capsys):
    make_store(tmp_path / "out")
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        code = main(["export", str(tmp_path / "out"), "--format", "csv", "--out", str(tmp_path / "x.csv")])
        monkeypatch.undo()
    assert code == 1
    assert "could not be printed (No space left on device); what was to be done is done" in capsys.readouterr().err
    assert (tmp_path / "x.csv").read_text().count("\n") == 21


def test_ids_of_a_megabyte_are_cut(tmp_path, capsys):
    assert main(["status", "x" * 1_000_000]) in (1, 2)
    assert len(capsys.readouterr().err) < 3000


def test_run_files_nested_without_end_are_damaged(tmp_path):
    (tmp_path / "_run.json").write_text('{"a":' * 100_000 + "1" + "}" * 100_000)
    with pytest.raises(StorageError, match="is damaged"):
        heatlas.open(tmp_path)
