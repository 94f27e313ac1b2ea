"""`--retry-errors`: error rows once more, in place; everything else untouched, whatever happens in between."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
import signal
import subprocess

import heatlas
import pytest
from heatlas import statuses
from heatlas.errors import StorageError
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.explain.retry_errors import RetrySink
from heatlas.pipeline.store.committed_shards import read_part, row_totals
from heatlas.pipeline.store.content_digest import logical_digest
from heatlas.pipeline.store.part_names import part_path

from ..support.stored_parts import put_part
from ..support.tiny_run import command, draw, draw_all, environment, importable_factory, program

COUNT = 12
BROKEN = (1, 5, 6)
"""Their files are text in the first place: two shards, of four."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    with importable_factory(tmp_path_factory.mktemp("retry")) as folder:
        draw_all(folder / "good", COUNT)
        assert main(command(folder / "good", folder / "calm")) == 0
        yield folder


@pytest.fixture
def place(folder: pathlib.Path, tmp_path: pathlib.Path):
    """A finished run over the same images under the same names, three of them broken."""
    images = tmp_path / "images"
    shutil.copytree(folder / "good", images)
    for number in BROKEN:
        image_file(images, number).write_text("not yet uploaded")
    assert main(command(images, tmp_path / "out")) == 0
    return tmp_path


def image_file(images: pathlib.Path, number: int) -> pathlib.Path:
    [result] = images.rglob(f"{number:03d}.png")
    return result


def identities(out: pathlib.Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (out / "maps").iterdir()}


def rows_of(out: object) -> dict[str, dict]:
    frame = heatlas.open(str(out)).to_pandas(
        ["id", "status", "error", "prediction", "confidence", "drop_pct", "n_forwards"]
    )
    return {row["id"]: row for row in frame.astype(object).where(frame.notna(), None).to_dict("records")}


def repair(place: pathlib.Path, *numbers: int) -> None:
    for number in numbers:
        draw(image_file(place / "images", number), number)


def test_repaired_images_get_their_rows_and_nothing_else_is_touched(
    place: pathlib.Path, folder: pathlib.Path, capsys: pytest.CaptureFixture[str]
):
    out = place / "out"
    assert json.loads((out / "_SUCCESS").read_text())["statuses"] == {"decode_error": 3, "ok": 9}
    affected = {f"part-{index:06d}.parquet" for index in range(4) if has_errors(out, index)}
    before = identities(out)
    repair(place, *BROKEN)
    capsys.readouterr()
    assert main(command(place / "images", out, "--retry-errors")) == 0
    printed, told = capsys.readouterr()
    assert f"3 error rows in {len(affected)} shards once more; writing {out}" in told
    assert "  retried   3 error rows, of which 3 ok now\n" in printed
    assert printed.startswith(f"{out}: complete\n")
    after = identities(out)
    assert {name for name in before if before[name] != after[name]} == affected
    assert 0 < len(affected) < 4
    calm = rows_of(folder / "calm")
    assert rows_of(out) == calm
    assert json.loads((out / "_SUCCESS").read_text()) == row_totals(str(out))
    assert row_totals(str(out))["statuses"] == {"ok": COUNT}
    assert main(["verify", str(out)]) == 0


def has_errors(out: pathlib.Path, index: int) -> bool:
    return any(status != "ok" for status in read_part(str(out), index, ["status"])["status"].to_pylist())


def test_rows_that_fail_again_keep_an_error_and_the_run_is_complete(
    place: pathlib.Path, capsys: pytest.CaptureFixture[str]
):
    out = place / "out"
    before = logical_digest(str(out))
    repair(place, BROKEN[0])
    image_file(place / "images", BROKEN[1]).unlink()
    image_file(place / "images", BROKEN[2]).write_text("still no image")
    # a vanished file would be another listing, so a dead link stands in its place
    name = f"{('ant', 'bee', 'cat')[BROKEN[1] % 3]}/{BROKEN[1]:03d}.png"
    (place / "images" / name).symlink_to("nowhere")
    assert main(command(place / "images", out, "--retry-errors")) == 0
    assert "3 error rows, of which 1 ok now" in capsys.readouterr().out
    assert row_totals(str(out))["statuses"] == {"decode_error": 1, "ok": 10, "read_error": 1}
    assert (
        "still no image" in rows_of(out)[next(entry for entry in rows_of(out) if f"{BROKEN[2]:03d}" in entry)]["error"]
    )
    assert logical_digest(str(out)) != before


def test_nothing_to_retry_changes_nothing(folder: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    calm = folder / "calm"
    before, success = identities(calm), (calm / "_SUCCESS").read_text()
    capsys.readouterr()
    assert main(command(folder / "good", calm, "--retry-errors")) == 0
    assert "was complete already, nothing to do" in capsys.readouterr().out
    assert (identities(calm), (calm / "_SUCCESS").read_text()) == (before, success)


def test_which_statuses_are_tried_again(folder: pathlib.Path, tmp_path: pathlib.Path):
    """One row of every status that there is: those that depend on the listing, the model and the pixels alone stay."""
    out = tmp_path / "out"
    shutil.copytree(folder / "calm", out)
    failing = [status for status in statuses.STATUSES if status != statuses.OK]
    planted = plant(out, failing)
    assert main(command(folder / "good", out, "--retry-errors")) == 0
    result = rows_of(out)
    stayed = {status for identity, status in planted.items() if result[identity]["status"] == status}
    assert stayed == {"label_error", "no_target", "no_map", "no_evidence", "constant_map", "non_finite"}
    calm = rows_of(folder / "calm")
    healed = [identity for identity, status in planted.items() if status not in stayed]
    assert "quarantined" in {planted[identity] for identity in healed}
    assert [result[identity] for identity in healed] == [calm[identity] for identity in healed]


def plant(out: pathlib.Path, failing: list[str]) -> dict[str, str]:
    """Turn the first rows into error rows, one of each status."""
    planted: dict[str, str] = {}
    left = list(failing)
    for index in range(4):
        table = read_part(str(out), index)
        rows = table.to_pylist()
        for row in rows:
            if left:
                row |= dict.fromkeys(("map", "map_png", "confidence", "drop_pct", "increase"))
                row |= {"status": left.pop(0), "error": "planted"}
                planted[row["id"]] = row["status"]
        schema = table.schema.remove_metadata().with_metadata(
            {key: value for key, value in table.schema.metadata.items() if key != b"heatlas_part"}
        )
        put_part(out, index, table.from_pylist(rows, schema=schema))
    assert not left
    return planted


def test_undone_shards_and_error_rows_in_one_command(place: pathlib.Path, folder: pathlib.Path):
    out = place / "out"
    (out / "_SUCCESS").unlink()
    (out / part_path(3)).unlink()
    repair(place, *BROKEN)
    assert main(command(place / "images", out, "--retry-errors")) == 0
    assert rows_of(out) == rows_of(folder / "calm")


def test_storage_that_fails_in_between_keeps_every_row(
    place: pathlib.Path, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    out = place / "out"
    ok_before = {identity for identity, row in rows_of(out).items() if row["status"] == "ok"}
    repair(place, *BROKEN)
    with monkeypatch.context() as patch:
        real, commits = RetrySink.commit, []

        def commit(self, shard, rows):
            commits.append(shard.index)
            if len(commits) > 1:
                raise StorageError("the storage is gone")
            return real(self, shard, rows)

        patch.setattr(RetrySink, "commit", commit)
        assert main(command(place / "images", out, "--retry-errors", "--shard-retries", "0")) == 1
    assert "the storage is gone" in capsys.readouterr().err
    assert not (out / "_SUCCESS").exists(), "its totals would no longer be true"
    result = rows_of(out)
    assert len(result) == COUNT
    assert ok_before < {identity for identity, row in result.items() if row["status"] == "ok"}
    assert main(["status", str(out)]) == 0
    assert "all shards done but not concluded" in capsys.readouterr().out
    assert main(command(place / "images", out, "--retry-errors")) == 0
    assert rows_of(out) == rows_of(folder / "calm")


def test_a_retry_killed_between_two_files_resumes(place: pathlib.Path, folder: pathlib.Path):
    out = place / "out"
    repair(place, *BROKEN)
    (place / "tiny_net.py").write_text((folder / "tiny_net.py").read_text() + KILLER)
    run = program(*command(place / "images", out, "--retry-errors"))
    killed = subprocess.run(run, env=environment(place), capture_output=True, timeout=200)
    assert killed.returncode == -signal.SIGKILL
    assert not (out / "_SUCCESS").exists()
    counts = row_totals(str(out))["statuses"]
    assert counts["ok"] > COUNT - len(BROKEN), "one file was replaced before the kill"
    assert sum(counts.values()) == COUNT
    assert main(command(place / "images", out, "--retry-errors")) == 0
    assert rows_of(out) == rows_of(folder / "calm")
    assert main(["verify", str(out)]) == 0


KILLER = """

import os, signal
from heatlas.pipeline.explain.retry_errors import RetrySink

commit = RetrySink.commit


def commit_and_die(self, shard, rows):
    commit(self, shard, rows)
    os.kill(os.getpid(), signal.SIGKILL)


RetrySink.commit = commit_and_die
"""


@pytest.mark.soak
def test_through_the_python_entry_with_ray_workers(place: pathlib.Path, folder: pathlib.Path, local_ray: None):
    repair(place, *BROKEN)
    result = heatlas.explain_dataset(
        model="tiny_net:model", data=place / "images", out=place / "out", workers=1, shard_size=3, batch_size=8,
        preprocess={"size": 24, "resize": "squash"}, retry_errors=True,
    )  # fmt: skip
    assert (result.retried, result.recovered, result.shards_done) == (3, 3, 0)
    assert rows_of(place / "out") == rows_of(folder / "calm")
    assert dataclasses.asdict(result)["status"]["retryable"] == 0
