"""Where an export goes: what is there stays, and nothing half is left behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import heatlas
import pytest
from heatlas.errors import StorageError
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.export.export import FORMATS, export_store
from heatlas.pipeline.store import parquet_bytes
from heatlas.pipeline.store.parquet_sink import ParquetSink
from heatlas.pipeline.store.reader import StoreReader
from heatlas.workers.samples import Row, Sample, Shard
from PIL import Image

from ..support.exported_store import LAYOUT, claim, export, map_at, write_store


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return write_store(tmp_path_factory.mktemp("export"))


@pytest.mark.parametrize("to", FORMATS)
def test_what_is_there_stays_unless_overwrite_is_given(store, tmp_path, capsys, to):
    if to == "lance":
        pytest.importorskip("lance")
    place = tmp_path / "there"
    assert export(store, to, place, "--where", "n = 3") == 0
    before = sorted(path.name for path in tmp_path.iterdir())
    assert export(store, to, place) == 2
    assert f"--out {place} is there already" in capsys.readouterr().err
    assert export(store, to, place, "--overwrite", "--where", "n = 4") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == before == ["there"]


def test_a_folder_of_somebody_else_is_never_replaced(store, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.jpg").write_text("dear")
    for place in (tmp_path / "photos", store, store / "maps", store.parent):
        assert export(store, "hf", place, "--overwrite") == 2
        assert "is not empty and no heatlas export" in capsys.readouterr().err
    assert (tmp_path / "photos" / "mine.jpg").read_text() == "dear"
    assert export(store, "csv", tmp_path / "photos", "--overwrite") == 2
    assert "is a folder and this format is one file" in capsys.readouterr().err
    assert export(store, "hf", tmp_path / "photos" / "mine.jpg", "--overwrite") == 2
    assert "is a file and this format is a folder" in capsys.readouterr().err
    assert heatlas.open(store).count() == 17


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize(
    ("kind", "arguments"),
    [(StorageError, ("the part is gone",)), (KeyboardInterrupt, ()), (OSError, (28, "No space left on device"))],
)
def test_an_interrupted_export_leaves_nothing(store, tmp_path, monkeypatch, to, kind, arguments):
    real = StoreReader.batches

    def failing(self, *positional, **options):
        pieces = real(self, *positional, **options)
        yield next(pieces)
        raise kind(
            *arguments
        )  # made here: an error among the parameters would keep its frames, and a reader in them, to the end

    monkeypatch.setattr(StoreReader, "batches", failing)
    (tmp_path / "old").mkdir()
    with pytest.raises((StorageError, KeyboardInterrupt)) as raised:
        export_store(store, to, tmp_path / "new")
    assert os.listdir(tmp_path) == ["old"]
    if kind is StorageError:
        assert "the part is gone" in str(raised.value)


def test_a_killed_export_is_cleared_away_by_the_next_one(store, tmp_path):
    program = """
import os, signal, sys
from heatlas.pipeline.export import export
from heatlas.pipeline.export.export import Format, export_store
def killed(chosen, path):
    (path / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
export.FORMATS = {"hf": Format(killed, "folder", "row")}
export_store(sys.argv[1], "hf", sys.argv[2])
"""
    done = subprocess.run([sys.executable, "-c", program, str(store), str(tmp_path / "new")], timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert len(os.listdir(tmp_path)) == 1
    assert not (tmp_path / "new").exists()
    alive = f".new.{socket.gethostname()}.{os.getpid()}.abc.tmp"
    elsewhere = ".new.another-host.1.abc.tmp"
    for name in (alive, elsewhere):
        (tmp_path / name).write_text("another export's")
    assert export(store, "hf", tmp_path / "new", "--columns", "id") == 0
    assert sorted(os.listdir(tmp_path)) == sorted(["new", alive, elsewhere])


@pytest.mark.parametrize("to", ["csv", "hf", "lance", "coco", "cleanlab", "fiftyone", "overlays"])
def test_one_piece_at_a_time(tmp_path, monkeypatch, to):
    """While a piece is read, all before the last one are forgotten."""
    if to == "lance":
        pytest.importorskip("lance")
    monkeypatch.setattr(parquet_bytes, "ROW_GROUP_BYTES", 2000)
    claim(tmp_path / "out")
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    layout = replace(LAYOUT, extra=())
    rows = [
        Row(Sample(f"{n:03d}", str(tmp_path / "a.png"), 0), "ok", None, 40, 60, 1, 1, 0.5, map=map_at(n % 10, n % 20))
        for n in range(40)
    ]
    ParquetSink(str(tmp_path / "out"), layout).commit(Shard(0, 0, 40), rows)
    alive: list[weakref.ref] = []
    most = [0, 0]
    real = StoreReader.batches

    def watched(self, *arguments, **options):
        for piece in real(self, *arguments, **options):
            most[0] = max(most[0], sum(entry() is not None for entry in alive))
            most[1] += 1
            alive.append(weakref.ref(piece))
            yield piece

    monkeypatch.setattr(StoreReader, "batches", watched)
    export_store(tmp_path / "out", to, tmp_path / "new")
    assert most[1] >= 8
    assert most[0] <= (4 if to == "lance" else 2)  # Lance reads a few batches ahead


@pytest.mark.parametrize(("arguments", "said"), [
    (["--format", "cvs", "--out", "x"], "there is no such format; did you mean 'csv'?"),
    (["--format", "csv"], "--out"),
    (["--out", "x"], "--format"),
    (["--format", "csv", "--out", "s3://bucket/x.csv"], "local paths only"),
    (["--format", "csv", "--out", ""], "an empty path names no place"),
    (["--format", "csv", "--out", "/"], "names no file"),
    (["--format", "csv", "--out", "x", "--where", "nonsense >"], "DuckDB refuses 'nonsense >'"),
    (["--format", "csv", "--out", "x", "--where", "label = 77"], "no row of"),
    (["--format", "csv", "--out", "x", "--where", "TRUE) UNION (SELECT 1"], "DuckDB refuses"),
    (["--format", "csv", "--out", "x", "--columns", "id", "confidnce"], "there is no such column; did you mean 'confidence'?"),
    (["--format", "csv", "--out", "x", "--columns", "map"], "does not fit in a cell"),
    (["--format", "overlays", "--out", "x", "--columns", "id"], "--columns has no meaning for --format overlays"),
    (["--format", "cleanlab", "--out", "x", "--columns", "label"], "this format has it anyway"),
    (["--format", "csv", "--out", "x", "--ids", "nowhere.txt"], "cannot read --ids nowhere.txt"),
    (["--format", "csv", "--out", "x", "--ids", "ids.txt"], "lists 1 id that no sample has: A.pgn"),
])  # fmt: skip
def test_bad_options(store, tmp_path, capsys, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    Path("ids.txt").write_text("A.png\nA.pgn\n")
    assert main(["export", str(store), *arguments]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert os.listdir(tmp_path) == ["ids.txt"]


def test_a_place_that_cannot_be_written(store, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    assert export(store, "csv", tmp_path / "file" / "below.csv") == 1
    assert "cannot write" in capsys.readouterr().err


def test_python_says_what_the_command_says(store, tmp_path):
    atlas = heatlas.open(store)
    done = atlas.export("csv", tmp_path / "m.csv", where="n < 3", columns=["id"])
    assert (done.format, done.rows, done.written) == ("csv", 4, 4)
    assert done.text() == f"{tmp_path}/m.csv: 4 rows"
    copy = tmp_path / "copy"
    shutil.copytree(store, copy)
    assert heatlas.open(copy).compact().removed == 0  # its plan says one shard
