"""`heatlas verify` finds every kind of damage and names what repairs it; `heatlas status` reads footers only."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from heatlas.errors import NoRunError, StorageError
from heatlas.pipeline.cli.app import build_app, main
from heatlas.pipeline.cli.settings_flags import given_settings
from heatlas.pipeline.settings.as_command import explain_command
from heatlas.pipeline.settings.load import load_settings
from heatlas.pipeline.settings.run import describe
from heatlas.pipeline.shards import plan_digest, plan_shards
from heatlas.pipeline.storage import backoff as retries
from heatlas.pipeline.store.committed_shards import done_shards, row_totals
from heatlas.pipeline.store.completeness import check_complete
from heatlas.pipeline.store.content_digest import logical_digest
from heatlas.pipeline.store.footer_reader import file_summaries
from heatlas.pipeline.store.parquet_bytes import table_to_parquet
from heatlas.pipeline.store.parquet_sink import ParquetSink
from heatlas.pipeline.store.part_names import part_path
from heatlas.pipeline.store.part_summary import SUMMARY_KEY, stored_summary
from heatlas.pipeline.store.rows_to_table import build_table
from heatlas.pipeline.store.run_file import claim_run
from heatlas.pipeline.store.status import run_status
from heatlas.pipeline.store.success_file import write_success
from heatlas.pipeline.store.verify import verify_run
from tenacity import wait_none

from ..support.stored_parts import put_part

SETTINGS = load_settings({"model": "torchvision:resnet18", "data": "photos", "out": "out", "sise.mu": 0.3})


@pytest.fixture
def make_run(layout, make_row):
    """A finished run of 20 rows in 4 shards, three of them errors."""

    def write(out):
        plan = plan_shards(20, 5)
        facts = {"samples": 20, "shards": 4, "listing": "abc", "digest": plan_digest("abc", plan)}
        claim_run(str(out), {"plan": facts}, {**describe(SETTINGS), "out": str(out)})
        for shard in plan:
            assert ParquetSink(str(out), layout).commit(shard, [make_row(n) for n in range(shard.start, shard.stop)])
        write_success(str(out), check_complete(str(out), plan))

    return write


@pytest.fixture
def run(tmp_path, make_run):
    make_run(tmp_path / "out")
    return tmp_path / "out"


def overwrite(out, index, rows, layout):
    put_part(out, index, build_table(rows, layout))


def told(capsys, out, *more):
    code = main(["verify", str(out), *more])
    return code, capsys.readouterr().out


def test_a_sound_run(place, make_run, capsys):
    make_run(place)
    code, text = told(capsys, place)
    assert code == 0
    assert text.startswith(f"{place}: 4 shards of 4, 20 rows read; nothing is wrong\n")
    result = verify_run(place)
    assert result.totals["digest"] == logical_digest(place) == row_totals(place)["digest"]
    assert result.totals == row_totals(place)
    assert (result.problems, result.repair, result.deleted) == ([], [], [])


def test_json_says_the_same(run, capsys):
    (run / part_path(2)).unlink()
    code, text = told(capsys, run, "--json")
    assert code == 1
    assert json.loads(text) == verify_run(str(run)).as_json()


def stored(run: Path) -> bytes:
    return (run / part_path(1)).read_bytes()


def truncated(run, layout, make_row):
    (run / part_path(1)).write_bytes(stored(run)[:-50])


def emptied(run, layout, make_row):
    (run / part_path(1)).write_bytes(b"")


def flipped(run, layout, make_row):
    data = bytearray(stored(run))
    groups = pq.read_metadata(run / part_path(1)).row_group(0)
    columns = [groups.column(number) for number in range(groups.num_columns)]
    pictures = next(column for column in columns if column.path_in_schema.startswith("map_png.bytes"))
    data[pictures.data_page_offset + pictures.total_compressed_size - 5] ^= 1
    (run / part_path(1)).write_bytes(bytes(data))


def changed_number(run, layout, make_row):
    table = pq.read_table(run / part_path(1))
    place = table.schema.names.index("confidence")
    scores = [None if row is None else row + 1e-9 for row in table["confidence"].to_pylist()]
    changed = table.set_column(place, table.schema.field("confidence"), pa.array(scores, pa.float64()))
    (run / part_path(1)).write_bytes(table_to_parquet(changed))


def too_few(run, layout, make_row):
    overwrite(run, 1, [make_row(n) for n in range(5, 9)], layout)


def row_twice(run, layout, make_row):
    overwrite(run, 1, [make_row(n) for n in (5, 6, 7, 8, 9, 9)], layout)


def id_of_another_part(run, layout, make_row):
    overwrite(run, 1, [make_row(n) for n in (5, 6, 7, 8, 0)], layout)


def copy_of_another_part(run, layout, make_row):
    shutil.copy(run / part_path(0), run / part_path(1))


def of_another_run(run, layout, make_row):
    other = replace(layout, metadata={**layout.metadata, "provenance": {"model": "sha256:other"}})
    overwrite(run, 1, [make_row(n) for n in range(5, 10)], other)


def without_maps(run, layout, make_row):
    rows = [make_row(n) for n in range(5, 10)]
    rows[0].map = None
    overwrite(run, 1, rows, layout)


def odd_status(run, layout, make_row):
    overwrite(run, 1, [replace_status(make_row(n), n) for n in range(5, 10)], layout)


def replace_status(row, number):
    row.status = "bogus" if number == 7 else row.status
    return row


DAMAGE = [
    (truncated, "cannot be decoded"),
    (emptied, "cannot be decoded"),
    (flipped, "cannot be decoded"),
    (changed_number, "holds other content than its digest says"),
    (too_few, "holds 4 samples, planned were 5"),
    (row_twice, "holds the id 'img-0009' 2 times"),
    (id_of_another_part, "holds ids that part-000000.parquet holds too, such as 'img-0000'"),
    (copy_of_another_part, "holds ids that part-000000.parquet holds too, such as 'img-0000'"),
    (of_another_run, "has other columns or another origin than the rest of the run"),
    (without_maps, "has no map in 1 of its ok rows"),
    (odd_status, "holds the unknown status 'bogus'"),
]


@pytest.mark.parametrize(("damage", "text"), DAMAGE, ids=[damage.__name__ for damage, _ in DAMAGE])
def test_damage_is_named_and_repaired(damage, text, run, layout, make_row, capsys, make_run, tmp_path):
    damage(run, layout, make_row)
    code, said = told(capsys, run)
    assert code == 1
    assert f"  maps/part-000001.parquet: {text}" in said
    assert "_SUCCESS: says that the run is complete, which it is not" in said
    assert (
        f"repair with\n  heatlas verify {run} --delete-damaged\n  heatlas explain --model torchvision:resnet18" in said
    )
    code, said = told(capsys, run, "--delete-damaged")
    assert code == 1
    assert "  deleted   maps/part-000001.parquet\n" in said
    assert "--delete-damaged" not in said
    assert not (run / "_SUCCESS").exists()
    assert 1 not in done_shards(str(run))
    for shard in plan_shards(20, 5):  # as the run's own command would do it
        ParquetSink(str(run), layout).commit(shard, [make_row(n) for n in range(shard.start, shard.stop)])
    write_success(str(run), check_complete(str(run), plan_shards(20, 5)))
    make_run(tmp_path / "calm")
    assert verify_run(str(run)).ok
    assert logical_digest(str(run)) == logical_digest(str(tmp_path / "calm"))


def test_undone_shards_are_named(run, capsys):
    (run / part_path(0)).unlink()
    (run / part_path(3)).unlink()
    code, text = told(capsys, run)
    assert code == 1
    assert "  maps: 2 shards of 4 not done: 0, 3\n" in text
    assert "repair with\n  heatlas explain" in text
    (run / "_SUCCESS").unlink()
    assert "_SUCCESS" not in told(capsys, run)[1], "an unfinished run needs none"


def test_a_missing_or_wrong_success_is_named(run, capsys):
    says = json.loads((run / "_SUCCESS").read_text())
    (run / "_SUCCESS").write_text(json.dumps({**says, "rows": 21, "statuses": {"ok": 21}}))
    code, text = told(capsys, run)
    assert code == 1
    assert "_SUCCESS: says rows 21 instead of 20, statuses {'ok': 21} instead of {'decode_error': 2, 'ok': 18}" in text
    (run / "_SUCCESS").unlink()
    assert "_SUCCESS: is missing: every shard is done, but the run was not concluded" in told(capsys, run)[1]
    (run / "_SUCCESS").write_text("{")
    code, text = told(capsys, run)
    assert code == 1
    assert "_SUCCESS" in text
    assert "damaged" in text


def test_foreign_parts_are_named(run, capsys):
    shutil.copy(run / part_path(0), run / part_path(9))
    code, text = told(capsys, run)
    assert code == 1
    assert "maps/part-000009.parquet: does not belong to the plan, which has 4 shards" in text
    told(capsys, run, "--delete-damaged")
    assert list(done_shards(str(run))) == [0, 1, 2, 3]


def test_a_changed_plan_is_named(run, capsys):
    facts = json.loads((run / "_run.json").read_text())
    facts["fingerprint"]["plan"]["samples"] = 21
    (run / "_run.json").write_text(json.dumps(facts))
    code, text = told(capsys, run)
    assert code == 1
    assert "_run.json: its plan does not agree with the plan's digest" in text


def test_files_that_storage_does_not_give_are_left_alone(memory_uri, make_run, monkeypatch):
    make_run(memory_uri)
    fs = type(fsspec.core.url_to_fs(memory_uri)[0])
    real = fs.cat_file
    monkeypatch.setattr(retries, "WAIT", wait_none())

    def cat_file(self, path, **options):
        if "part-000001" in path:
            raise ConnectionResetError("gone for now")
        return real(self, path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(fs, "cat_file", cat_file)
        result = verify_run(memory_uri, delete_damaged=True)
    assert [(problem.where, problem.repair) for problem in result.problems if problem.where != "_SUCCESS"] == [
        ("maps/part-000001.parquet", "look")
    ]
    assert result.deleted == []
    assert verify_run(memory_uri).ok


def test_no_run_is_a_usage_error(tmp_path, capsys):
    with pytest.raises(NoRunError):
        verify_run(str(tmp_path))
    assert main(["verify", str(tmp_path)]) == 2
    assert "is not a heatlas store" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"sise.mu": 0.25, "metrics": [], "store.map_png": False, "shared_fs": True, "target": 3},
        {"metrics": ["ebpg", "drop_pct"], "sise.layers": ["layer1", "layer 2"], "preprocess.size": 64, "workers": 0},
        {"preprocess.mean": [0.1, 0.2, 0.3], "preprocess.std": [1, 2, 3], "limit": 7, "store.map_size": "input"},
    ],
)
def test_the_command_means_the_same_settings(flags):
    given = load_settings({"model": "m:f", "data": "a folder/it's", "out": "s3://b/run", **flags})
    words = shlex.split(explain_command(describe(given)))
    _, bound, _ = build_app().parse_args(words[1:], exit_on_error=False, print_error=False)
    assert load_settings(given_settings(bound.arguments)) == given


def test_the_command_forgets_what_was_meant_once():
    given = load_settings({"model": "m:f", "data": "d", "out": "o", "retry_errors": True})
    assert "retry" not in explain_command(describe(given))


def test_the_command_of_an_older_run_uses_the_names_of_today():
    stored = {**describe(load_settings({"model": "m", "data": "d", "out": "o"})), "score": "sigmoid", "floors": 4}
    del stored["confidence"], stored["chance_maps"]
    command = explain_command(stored)
    assert "--confidence sigmoid" in command
    assert "--chance-maps 4" in command


# --- footers


def test_status_reads_one_listing_and_the_ends_of_files(run, monkeypatch):
    """No row is read: files whose rows are gone, footers left, give the same answer."""
    expected = run_status(str(run))
    for path in (run / "maps").iterdir():
        data = path.read_bytes()
        footer = int.from_bytes(data[-8:-4], "little") + 8
        path.write_bytes(bytes(len(data) - footer) + data[-footer:])
    fs = type(fsspec.core.url_to_fs(str(run))[0])
    listings, real = [], fs.ls
    monkeypatch.setattr(fs, "ls", lambda self, *args, **options: listings.append(args) or real(self, *args, **options))
    result = run_status(str(run))
    assert result == expected
    assert [place for (place,) in listings if place.endswith("maps")] == [f"{run}/maps"]
    assert result.statuses == {"decode_error": 2, "ok": 18}
    assert not verify_run(str(run)).ok


def test_causes_by_status_and_text(run, capsys):
    assert main(["status", str(run)]) == 0
    text = capsys.readouterr().out
    assert "status    ok 18, decode_error 2\n" in text
    assert "2 x decode_error: cannot identify <_io.BytesIO object at" in text, "addresses do not make two causes of one"
    assert "the same command with --retry-errors tries 2 error rows again" in text


def test_a_files_own_name_makes_no_cause_of_its_own(tmp_path, layout, make_row, make_run):
    make_run(tmp_path)
    rows = [make_row(n) for n in range(5)]
    for row in rows[:3]:
        row.status, row.error, row.map = "read_error", f"cannot read {row.sample.uri}: no such file", None
    overwrite(tmp_path, 0, rows, layout)
    causes = {(cause.status, cause.error): cause.rows for cause in run_status(str(tmp_path)).causes}
    assert causes["read_error", "cannot read <uri>: no such file"] == 3


def test_files_of_other_writers_are_read_row_by_row(run):
    """In a store of version 2, whose parts need not say where they come from."""
    facts = json.loads((run / "_run.json").read_text()) | {"schema_version": 2}
    (run / "_run.json").write_text(json.dumps(facts))
    expected = run_status(str(run))
    for path in (run / "maps").iterdir():
        table = pq.read_table(path)
        rest = {key: value for key, value in table.schema.metadata.items() if key != SUMMARY_KEY}
        pq.write_table(table.replace_schema_metadata(rest), path)
    result = run_status(str(run))
    assert replace(result, bytes=0) == replace(expected, bytes=0)
    assert row_totals(str(run))["digest"] is None
    assert verify_run(str(run)).totals["digest"] == json.loads((run / "_SUCCESS").read_text())["digest"]


def test_a_footer_longer_than_usual_and_a_file_that_grew_are_read(run):
    path = run / part_path(1)
    table = pq.read_table(path)
    long = table.replace_schema_metadata({**table.schema.metadata, b"long": b"x" * 100_000})
    path.write_bytes(table_to_parquet(long))
    file = done_shards(str(run)).file_of(1)
    for size in (file.size, file.size * 3, 10):
        assert file_summaries(str(run), replace(file, size=size)) == [stored_summary(table.schema.metadata)]


def test_a_damaged_footer_names_the_file_and_verify(run):
    (run / part_path(1)).write_bytes(b"PAR1 not really")
    with pytest.raises(StorageError, match=r"part-000001.parquet: .*heatlas verify"):
        run_status(str(run))
