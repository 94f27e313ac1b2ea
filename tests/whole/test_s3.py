"""Whole runs on a real S3 protocol server: conditional puts, planted errors, a server that dies and comes back."""

from __future__ import annotations

import concurrent.futures
import json
import pathlib
import subprocess
import uuid

import heatlas
import pytest
from heatlas.errors import StorageError
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.storage import backoff as retries
from heatlas.pipeline.storage.atomic_write import put, put_if_absent
from heatlas.pipeline.storage.compare_and_swap import exchange
from heatlas.pipeline.store.committed_shards import done_shards
from heatlas.pipeline.store.content_digest import logical_digest
from heatlas.pipeline.store.part_names import part_path
from heatlas.pipeline.store.status import run_status
from heatlas.pipeline.store.success_file import read_success
from heatlas.pipeline.store.verify import verify_run
from tenacity import wait_none

from ..support.s3_place import S3Place
from ..support.tiny_run import command, draw, draw_all, environment, importable_factory, program, wait_until

pytest.importorskip("moto", reason="needs moto[server], in the extra `test`")
s3fs = pytest.importorskip("s3fs", reason="needs s3fs, in the extras `s3` and `test`")

COUNT = 18
BUCKET = "maps"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    """18 images, one of them broken, and the store of a calm local run over them."""
    with importable_factory(tmp_path_factory.mktemp("s3")) as folder:
        draw_all(folder / "images", COUNT)
        next((folder / "images").rglob("004.png")).write_text("no image")
        assert main(command(folder / "images", folder / "calm")) == 0
        yield folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    place = S3Place(tmp_path_factory.mktemp("server"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in place.environment.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        try:
            place.make_bucket(BUCKET)
            yield place
        finally:
            place.close()
            s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def out(server: S3Place):
    """A place in the bucket of this test's own."""
    return f"s3://{BUCKET}/{uuid.uuid4().hex[:8]}"


def fetch(uri: str) -> bytes:
    return s3fs.S3FileSystem().cat_file(uri)


def test_racing_puts_have_one_winner_and_say_their_condition(server: S3Place, out: str):
    uri = f"{out}/a"
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda number: put_if_absent(uri, str(number).encode()), range(8)))
    assert won.count(True) == 1
    assert fetch(uri) == str(won.index(True)).encode()
    assert not put_if_absent(uri, b"late")
    puts = [request for request in server.requests() if request[0] == "PUT" and uri.removeprefix("s3:/") in request[1]]
    assert puts
    assert {request[3] for request in puts} == {"*"}


@pytest.mark.parametrize("faults", ["500", "503", "409", "cut"])
def test_a_put_that_fails_at_first_is_made_once(server: S3Place, out: str, faults: str):
    """Also when only the answer got lost: the second attempt then finds the first one's object."""
    with server.failing(2, faults):
        for number in range(4):
            put_if_absent(f"{out}/{number}", f"mine {number}".encode())
        assert faults in {request[2] for request in server.requests()}
    assert [fetch(f"{out}/{number}") for number in range(4)] == [f"mine {number}".encode() for number in range(4)]


def test_an_exchange_loses_no_change_made_meanwhile(server: S3Place, out: str):
    uri, calls = f"{out}/part", []
    put(uri, b"a")

    def change(data: bytes) -> bytes:
        calls.append(data)
        if len(calls) == 1:
            put(uri, data + b"b")  # another writer, between our reading and our writing
        return data + b"c"

    assert exchange(uri, change)
    assert fetch(uri) == b"abc"
    assert calls == [b"a", b"ab"]
    assert any(request[4] != "-" for request in server.requests() if request[0] == "PUT")


def test_run_status_verify_and_open(
    server: S3Place, folder: pathlib.Path, out: str, capsys: pytest.CaptureFixture[str]
):
    assert main(command(folder / "images", out)) == 0
    assert logical_digest(out) == logical_digest(str(folder / "calm"))
    capsys.readouterr()
    assert main(["status", out]) == 0
    assert capsys.readouterr().out.startswith(f"{out}: complete (6 of 6 shards)\n")
    assert main(["verify", out]) == 0
    assert "nothing is wrong" in capsys.readouterr().out
    atlas = heatlas.open(out)
    assert atlas.statuses() == {"ok": COUNT - 1, "decode_error": 1}
    assert atlas.maps().shape == (COUNT - 1, 24, 24)
    assert atlas.sql("SELECT count(*) FROM atlas WHERE drop_pct IS NOT NULL").fetchall() == [(COUNT - 1,)]
    assert main(command(folder / "images", out)) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_resume_computes_only_what_is_missing(
    server: S3Place, folder: pathlib.Path, out: str, capsys: pytest.CaptureFixture[str]
):
    assert main(command(folder / "images", out)) == 0
    fs = s3fs.S3FileSystem()
    for name in ("_SUCCESS", part_path(1), part_path(4)):
        fs.rm_file(f"{out}/{name}")
    kept = {entry["name"]: entry["LastModified"] for entry in fs.ls(f"{out}/maps", detail=True, refresh=True)}
    assert len(kept) == 4
    assert main(["verify", out]) == 1
    assert "2 shards of 6 not done: 1, 4" in capsys.readouterr().out
    assert main(command(folder / "images", out)) == 0
    assert "in 2 shards" in capsys.readouterr().err
    after = {entry["name"]: entry["LastModified"] for entry in fs.ls(f"{out}/maps", detail=True, refresh=True)}
    assert kept.items() < after.items()
    assert verify_run(out).ok


def test_damage_is_found_and_repaired(
    server: S3Place, folder: pathlib.Path, out: str, capsys: pytest.CaptureFixture[str]
):
    assert main(command(folder / "images", out)) == 0
    put(f"{out}/{part_path(2)}", fetch(f"{out}/{part_path(2)}")[:-100])
    capsys.readouterr()
    assert main(["verify", out]) == 1
    assert "maps/part-000002.parquet: cannot be decoded" in capsys.readouterr().out
    assert main(["verify", out, "--delete-damaged"]) == 1
    assert main(command(folder / "images", out)) == 0
    assert main(["verify", out]) == 0
    assert logical_digest(out) == logical_digest(str(folder / "calm"))


def test_images_on_s3_and_errors_tried_again(server: S3Place, folder: pathlib.Path, out: str, tmp_path: pathlib.Path):
    images = f"{out}/images"
    s3fs.S3FileSystem().put(str(folder / "images"), images, recursive=True)
    assert main(command(images, f"{out}/run")) == 0
    result = heatlas.open(f"{out}/run").to_pandas(["id", "uri", "status", "drop_pct"])
    local = heatlas.open(folder / "calm").to_pandas(["id", "status", "drop_pct"])
    assert result.drop(columns="uri").equals(local)
    assert all(uri.startswith("s3://") for uri in result["uri"])
    [name] = result.loc[result["status"] != "ok", "id"]
    draw(tmp_path / "good.png", 4)
    put(f"{images}/{name}", (tmp_path / "good.png").read_bytes())
    assert main(command(images, f"{out}/run", "--retry-errors")) == 0
    assert run_status(f"{out}/run").statuses == {"ok": COUNT}
    assert verify_run(f"{out}/run").ok


@pytest.mark.soak
def test_planted_errors_lose_nothing(no_ray: None, server: S3Place, folder: pathlib.Path, out: str):
    """Every fourth request fails, one after the other with 500, 503, 409 and a lost answer, for two worker processes and the driver."""
    with server.failing(4, "500,503,409,cut"):
        assert main(command(folder / "images", out, "--workers", "2")) == 0
        faults = [request[2] for request in server.requests()]
        assert verify_run(out).ok
        assert run_status(out).success
    assert {"500", "503", "cut"} <= set(faults)
    assert logical_digest(out) == logical_digest(str(folder / "calm"))


@pytest.mark.soak
def test_a_server_that_dies_and_comes_back_is_waited_for(
    server: S3Place, folder: pathlib.Path, tmp_path: pathlib.Path, out: str
):
    images = tmp_path / "images"
    draw_all(images, 60)
    run = program(*command(images, out, "--shard-size", "1"))
    started = subprocess.Popen(run, env=environment(folder, **server.environment), stderr=subprocess.PIPE)
    try:
        assert wait_until(lambda: stored_parts(server) or started.poll() is not None)
        server.kill()
        assert started.poll() is None, "the server died in the middle of the run"
        with pytest.raises(subprocess.TimeoutExpired):
            started.wait(1.5)
        server.start()
        _, told = started.communicate(timeout=200)
    finally:
        started.kill()
        started.wait()
        server.kill()
        server.start()
    assert started.returncode == 0, told.decode()
    assert len(done_shards(out)) == 60
    assert verify_run(out).ok


def stored_parts(server: S3Place) -> bool:
    return any(request[0] == "PUT" and "/maps/part-" in request[1] for request in server.requests())


def test_a_server_that_stays_dead_ends_the_run_with_its_name(
    server: S3Place, folder: pathlib.Path, out: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert main(command(folder / "images", out)) == 0
    before = json.dumps(read_success(out), sort_keys=True)
    monkeypatch.setattr(retries, "WAIT", wait_none())
    monkeypatch.setattr(retries, "ATTEMPTS", 2)
    server.kill()
    try:
        capsys.readouterr()
        assert main(command(folder / "images", out)) == 1
        told = capsys.readouterr().err
        assert out in told
        assert "finished shards are kept" in told
        with pytest.raises(StorageError, match="after 2 attempts"):
            done_shards(out)
    finally:
        server.start()
    assert json.dumps(read_success(out), sort_keys=True) == before


def test_a_missing_bucket_is_told_plainly(
    server: S3Place, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(retries, "WAIT", wait_none())
    assert main(command(folder / "images", "s3://no-such-bucket/run")) == 1
    told = capsys.readouterr().err
    assert "no-such-bucket" in told
    assert "check that the bucket or folder exists" in told
    assert "Traceback" not in told


def test_metrics_are_added_to_a_store_in_a_bucket(folder: pathlib.Path, out: str, tmp_path: pathlib.Path):
    more = ("--limit", "6", "--metrics", "none", "--chance-maps", "0", "--store.map-size", "input")
    for place in (out, str(tmp_path / "local")):
        assert main(command(folder / "images", place, *more)) == 0
        assert main(["evaluate", place, "--metrics", "gini", "drop_pct", "--workers", "0"]) == 0
    there, here = (heatlas.open(place) for place in (out, str(tmp_path / "local")))
    assert there.table(["id", "gini", "drop_pct"]).equals(here.table(["id", "gini", "drop_pct"]))
    assert there.sql("SELECT count(gini) FROM atlas").fetchall() == [(6,)]
    [evaluation] = run_status(out).evaluations
    assert evaluation.complete
