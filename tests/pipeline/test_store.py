import dataclasses
import io
import pickle
import subprocess
import sys
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest
from heatlas.errors import ShardsUndoneError, StorageError
from heatlas.pipeline.storage.atomic_write import put
from heatlas.pipeline.store.committed_shards import done_shards, read_part, row_totals
from heatlas.pipeline.store.completeness import check_complete
from heatlas.pipeline.store.content_digest import logical_digest
from heatlas.pipeline.store.parquet_bytes import table_to_parquet
from heatlas.pipeline.store.parquet_sink import ParquetSink
from heatlas.pipeline.store.part_names import part_path
from heatlas.pipeline.store.rows_to_table import build_table
from heatlas.pipeline.store.success_file import read_success, write_success
from heatlas.workers.samples import Shard

from ..support.stored_parts import put_part


def overwrite(out, index, rows, layout):
    put_part(out, index, build_table(rows, layout))


# --- parts


def test_part_names_depend_on_the_shard_alone():
    assert part_path(42) == "maps/part-000042.parquet"
    assert part_path(1_234_567) == "maps/part-1234567.parquet"


def test_commits_show_in_one_listing(place, make_store, monkeypatch):
    make_store(place, order=[3, 0, 2])
    fs = type(fsspec.core.url_to_fs(place)[0])
    listings, real = [], fs.ls
    monkeypatch.setattr(fs, "ls", lambda self, *args, **options: listings.append(args) or real(self, *args, **options))
    done = done_shards(place)
    assert list(done) == [0, 2, 3]
    assert len(listings) == 1
    assert read_part(place, 2).num_rows == 5
    assert all(size > 1000 for size in done.values())


def test_nothing_is_done_before_the_first_commit(place):
    assert done_shards(place) == {}
    assert row_totals(place)["rows"] == 0


def test_other_files_are_no_shards(tmp_path):
    maps = tmp_path / "maps"
    maps.mkdir()
    for name in (".part-000001.parquet.abc.tmp", "part-1.parquet", "part-000002.parquet.bak", "notes.txt"):
        (maps / name).write_bytes(b"x")
    assert done_shards(str(tmp_path)) == {}


def test_the_second_commit_of_a_shard_loses(place, layout, make_row):
    sink, shard = ParquetSink(place, layout), Shard(0, 0, 1)
    assert sink.commit(shard, [make_row(1)])
    assert not sink.commit(shard, [make_row(2)])
    assert read_part(place, 0)["id"].to_pylist() == ["img-0001"]


def test_the_sink_travels(tmp_path, layout, make_row):
    sink = pickle.loads(pickle.dumps(ParquetSink(str(tmp_path), layout)))
    assert sink.commit(Shard(7, 0, 1), [make_row(1)])
    assert list(done_shards(str(tmp_path))) == [7]


def test_a_damaged_part_is_named_with_the_remedy(tmp_path, make_store):
    make_store(tmp_path)
    (tmp_path / part_path(1)).write_bytes(b"PAR1 not really")
    with pytest.raises(StorageError, match=r"part-000001.parquet: .*delete that file and run the same"):
        read_part(str(tmp_path), 1)
    with pytest.raises(StorageError, match=r"part-000001.parquet"):
        row_totals(str(tmp_path))


def test_a_damaged_first_part_is_named_too(tmp_path, make_store):
    make_store(tmp_path)
    (tmp_path / part_path(0)).write_bytes(b"")
    with pytest.raises(StorageError, match=r"part-000000.parquet"):
        row_totals(str(tmp_path))


# --- digest


def test_digest_is_logical(tmp_path, memory_uri, make_store):
    """Order of commits, shard borders, storage, device, time and Parquet encoding do not matter."""
    make_store(tmp_path / "a")
    make_store(memory_uri, order=[3, 1, 0, 2], device="cuda:0")
    make_store(tmp_path / "b", shard_size=20)
    part = tmp_path / "b" / part_path(0)
    pq.write_table(pq.read_table(part), part, compression="snappy", row_group_size=3)
    digests = {logical_digest(str(out)) for out in (tmp_path / "a", memory_uri, tmp_path / "b")}
    assert len(digests) == 1


def test_digest_sees_every_logical_column(tmp_path, layout, make_row):
    def digest_of(name, change=lambda row: None):
        rows = [make_row(number) for number in (1, 6)]
        for row in rows:
            change(row)
        overwrite(tmp_path / name, 0, rows, layout)
        return logical_digest(str(tmp_path / name))

    def brighter(row):
        if row.map is not None:
            row.map[0, 0] = 1 - row.map[0, 0]

    changes = {
        "id": lambda row: setattr(row, "sample", dataclasses.replace(row.sample, id=row.sample.id + "x")),
        "uri": lambda row: setattr(row, "sample", dataclasses.replace(row.sample, uri="elsewhere")),
        "label": lambda row: setattr(row, "sample", dataclasses.replace(row.sample, label=None)),
        "prediction": lambda row: setattr(row, "prediction", 2),
        "confidence": lambda row: setattr(row, "confidence", 0.123),
        "status": lambda row: setattr(row, "status", "read_error"),
        "error": lambda row: setattr(row, "error", "another text"),
        "metric": lambda row: row.metrics.update(ebpg=0.26),
        "masks": lambda row: setattr(row, "mask_counts", (1, 2)),
        "forwards": lambda row: setattr(row, "n_forwards", 99),
        "map": brighter,
    }
    digests = {name: digest_of(name, change) for name, change in changes.items()}
    digests["unchanged"] = digest_of("unchanged")
    assert len(set(digests.values())) == len(digests)

    def volatile(row):
        row.seconds, row.device = 77.0, "cuda:3"
        if row.error:
            row.error = "cannot identify <_io.BytesIO object at 0x123abc>"

    assert digest_of("volatile", volatile) == digests["unchanged"]


def test_digest_sees_a_missing_and_a_doubled_row(tmp_path, layout, make_row):
    rows = [make_row(number) for number in (1, 2)]
    for name, some in {"two": rows, "one": rows[:1], "twice": [*rows, rows[0]]}.items():
        overwrite(tmp_path / name, 0, some, layout)
    assert len({logical_digest(str(tmp_path / name)) for name in ("two", "one", "twice")}) == 3


def test_digest_reads_pixels_not_png_bytes(tmp_path, layout, make_row):
    overwrite(tmp_path, 0, [make_row(1)], layout)
    before = logical_digest(str(tmp_path))
    table = read_part(str(tmp_path), 0)
    row = table.to_pylist()[0]

    from PIL import Image

    buffer = io.BytesIO()
    Image.open(io.BytesIO(row["map_png"]["bytes"])).save(buffer, "PNG", compress_level=0)
    assert buffer.getvalue() != row["map_png"]["bytes"]
    row["map_png"]["bytes"] = buffer.getvalue()
    put(f"{tmp_path}/{part_path(0)}", table_to_parquet(table.from_pylist([row], schema=table.schema)))
    assert logical_digest(str(tmp_path)) == before


# --- totals and completeness


def test_totals_by_hand(place, make_store):
    plan = make_store(place)
    totals = check_complete(place, plan)
    assert totals == row_totals(place)
    numbers = [number for number in range(20) if number % 7 != 6]
    assert (totals["shards"], totals["rows"], totals["samples"]) == (4, 20, 20)
    assert totals["statuses"] == {"decode_error": 2, "ok": 18}
    assert totals["forwards"] == sum(3 + number for number in numbers)
    assert totals["seconds"] == pytest.approx(0.01 * 18 + 0.1 * 2)
    assert totals["metrics"]["drop_pct"] == {"mean": pytest.approx(sum(numbers) / 18), "count": 18}
    assert totals["metrics"]["ebpg"] == {"mean": 0.25, "count": sum(number % 5 != 0 for number in numbers)}
    assert totals["bytes"] == sum(done_shards(place).values())


def test_success_is_written_last_and_clears_temporaries(tmp_path, make_store):
    assert read_success(str(tmp_path)) is None
    plan = make_store(tmp_path)
    (tmp_path / "maps" / ".part-000001.parquet.abc.tmp").write_bytes(b"half")
    totals = check_complete(str(tmp_path), plan)
    write_success(str(tmp_path), totals)
    assert read_success(str(tmp_path)) == totals
    names = sorted(path.name for path in Path(tmp_path).rglob("*") if path.is_file())
    assert names == ["_SUCCESS", "_run.json", *(f"part-{index:06d}.parquet" for index in range(4))]


def test_success_on_an_object_store(memory_uri):
    assert read_success(memory_uri) is None
    write_success(memory_uri, {"rows": 1})
    assert read_success(memory_uri) == {"rows": 1}


def test_missing_shards_are_named(place, make_store):
    plan = make_store(place, order=[0, 2])
    with pytest.raises(ShardsUndoneError, match=r"2 of 4 shards are not done: 1, 3; run the same command again"):
        check_complete(place, plan)


def test_many_missing_shards_are_counted(tmp_path):
    with pytest.raises(ShardsUndoneError, match=r"100 of 100 .*: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 90 more;"):
        check_complete(str(tmp_path), [Shard(index, index, index + 1) for index in range(100)])


def test_parts_of_another_plan_are_named(place, make_store):
    plan = make_store(place)
    with pytest.raises(StorageError, match="parts that the plan of 3 shards does not have: 3;"):
        check_complete(place, plan[:3])


def test_a_part_with_too_few_rows_is_named(place, make_store, make_row, layout):
    plan = make_store(place)
    overwrite(place, 1, [make_row(5)], layout)
    with pytest.raises(StorageError, match=r"part-000001.parquet holds 1 samples, planned were 5; delete that file"):
        check_complete(place, plan)


def test_an_empty_part_is_named(place, make_store, layout):
    plan = make_store(place)
    overwrite(place, 2, [], layout)
    with pytest.raises(StorageError, match=r"part-000002.parquet holds 0 samples, planned were 5"):
        check_complete(place, plan)


def test_an_id_in_two_parts_is_named(place, make_store, make_row, layout):
    plan = make_store(place)
    overwrite(place, 1, [make_row(number) for number in (5, 6, 7, 8, 0)], layout)
    with pytest.raises(
        StorageError, match=r"'img-0000' is stored 2 times, in .*part-000000.parquet, .*part-000001.parquet"
    ):
        check_complete(place, plan)


def test_a_row_twice_in_its_part_is_named(place, make_store, make_row, layout):
    plan = make_store(place)
    overwrite(place, 1, [make_row(number) for number in (5, 6, 7, 8, 9, 6)], layout)
    with pytest.raises(StorageError, match=r"'img-0006' is stored 2 times, in .*part-000001.parquet;"):
        check_complete(place, plan)


def test_one_sample_may_have_several_targets(tmp_path, make_store, make_row, layout):
    plan = make_store(tmp_path)
    rows = [make_row(number) for number in (5, 6, 7, 8, 9)]
    other = dataclasses.replace(rows[0], target=0)
    overwrite(tmp_path, 1, [rows[0], other, *rows[1:]], layout)
    totals = check_complete(str(tmp_path), plan)
    assert (totals["rows"], totals["samples"]) == (21, 20)


def test_looking_at_a_store_does_not_wait_for_torch_or_ray():
    program = (
        "import sys, heatlas.pipeline.store.committed_shards, heatlas.pipeline.shards, heatlas.pipeline.store.run_file, heatlas.pipeline.store.reader; "
        "print(sorted({'torch', 'ray', 'pandas', 'duckdb'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"
