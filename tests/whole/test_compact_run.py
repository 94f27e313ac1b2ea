"""A run that is compacted again and again lives as one that never is: resumed, verified, evaluated, retried; also on S3."""

from __future__ import annotations

import pathlib
import shutil

import heatlas
import pytest
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.store import compact as compact_module
from heatlas.pipeline.store.committed_shards import done_shards
from heatlas.pipeline.store.content_digest import logical_digest
from heatlas.pipeline.store.evaluations import list_evaluations

from ..support.s3_place import S3Place
from ..support.tiny_run import command, draw, draw_all, importable_factory

COUNT = 13
BROKEN = (4, 7)
FULL_SIZE = ("--store.map-size", "input", "--store.no-map-png", "--chance-maps", "0")


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compact_module, "PAUSE", 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    with importable_factory(tmp_path_factory.mktemp("compact")) as folder:
        yield folder


def image(images: pathlib.Path, number: int) -> pathlib.Path:
    [result] = images.rglob(f"{number:03d}.png")
    return result


def files(out: object) -> list[str]:
    return [file.name for file in done_shards(str(out)).files]


def digests(out: object) -> list[str]:
    return [
        logical_digest(str(out)),
        *(logical_digest(str(out), evaluation.folder) for evaluation in list_evaluations(str(out))),
    ]


def test_every_command_goes_on_as_if_nothing_had_been_merged(folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]):  # fmt: skip
    images, plain, merged = tmp_path / "images", tmp_path / "plain", tmp_path / "merged"
    draw_all(images, COUNT)
    for number in BROKEN:
        image(images, number).write_text("not yet uploaded")
    assert main(command(images, plain, *FULL_SIZE, "--metrics", "drop_pct")) == 0
    shutil.copytree(plain, merged)
    one_file = ["parts-000000-000004.parquet"]

    def both(*more: str) -> None:
        """The same command on either; afterwards they hold the same, and the merged one is merged again."""
        for out in (plain, merged):
            capsys.readouterr()
            arguments = [str(out) if entry == "OUT" else entry for entry in more]
            assert main(arguments or command(images, out, *FULL_SIZE, "--metrics", "drop_pct")) == 0
        assert digests(merged) == digests(plain)
        assert main(["verify", str(merged)]) == 0
        assert main(["compact", str(merged)]) == 0
        assert main(["verify", str(merged)]) == 0
        assert digests(merged) == digests(plain)

    assert main(["compact", str(merged)]) == 0
    assert files(merged) == one_file
    both()  # resumed, and nothing is left to do
    assert files(merged) == one_file
    both("status", "OUT")
    both("evaluate", "OUT", "--metrics", "gini", "entropy", "--workers", "0")
    [added] = list_evaluations(str(merged))
    assert [file.name for file in done_shards(str(merged), added.folder).files] == one_file
    for number in BROKEN:
        draw(image(images, number), number)
    both("explain", *command(images, "OUT", *FULL_SIZE, "--metrics", "drop_pct", "--retry-errors")[1:])
    assert heatlas.open(merged).statuses() == {"ok": COUNT}
    both("evaluate", "OUT", "--metrics", "gini", "entropy", "--workers", "0")
    tables = [
        heatlas.open(out).table(["id", "status", "drop_pct", "gini", "entropy", "map"]) for out in (plain, merged)
    ]
    assert tables[0].equals(tables[1])
    assert tables[1]["gini"].null_count == 0
    assert len(files(plain)) == 5
    # a damaged merged file: its shards are computed again
    path = merged / "maps" / one_file[0]
    path.write_bytes(path.read_bytes()[:-100])
    assert main(["verify", str(merged), "--delete-damaged"]) == 1
    both()
    assert files(merged) == one_file


def test_on_s3_with_failing_requests(folder: pathlib.Path, tmp_path: pathlib.Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):  # fmt: skip
    import s3fs

    images, out = tmp_path / "images", "s3://bucket/run"
    draw_all(images, 9)
    server = S3Place(tmp_path_factory.mktemp("server"))
    try:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        server.make_bucket("bucket")
        assert main(command(images, out)) == 0
        digest, atlas = logical_digest(out), heatlas.open(out)
        with server.failing(3, "500,503,409,cut"):
            assert main(["compact", out]) == 0
        assert files(out) == ["parts-000000-000002.parquet"]
        assert s3fs.S3FileSystem().ls("bucket/run/maps", refresh=True) == [
            "bucket/run/maps/parts-000000-000002.parquet"
        ]
        assert logical_digest(out) == digest
        assert main(["verify", out]) == 0
        assert atlas.statuses() == {"ok": 9}
        assert main(command(images, out)) == 0
        assert files(out) == ["parts-000000-000002.parquet"]
    finally:
        server.close()
        s3fs.S3FileSystem.clear_instance_cache()
