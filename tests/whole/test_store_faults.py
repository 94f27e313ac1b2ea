"""Storage that fails under a whole run: a disk that is full, a zombie that commits late, two drivers at once, memory nobody shares."""

from __future__ import annotations

import ctypes
import os
import pathlib
import resource
import signal
import subprocess
import uuid

import fsspec
import heatlas
import pytest
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.storage import backoff as retries
from heatlas.pipeline.store.committed_shards import done_shards
from heatlas.pipeline.store.content_digest import logical_digest
from heatlas.pipeline.store.verify import verify_run
from tenacity import wait_none

from ..support.tiny_run import command, draw_all, environment, importable_factory, program, temporaries, wait_until

COUNT = 18


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    """18 images and the store of a calm run over them."""
    with importable_factory(tmp_path_factory.mktemp("faults")) as folder:
        draw_all(folder / "images", COUNT)
        assert main(command(folder / "images", folder / "calm")) == 0
        yield folder


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(retries, "WAIT", wait_none())


# --- a full disk


@pytest.fixture
def small_disk(tmp_path: pathlib.Path):
    """A real file system of 64 kB, and a function that makes it larger."""
    place = tmp_path / "disk"
    place.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)

    def mount(size: str, flags: int = 0) -> int:
        return libc.mount(b"tmpfs", str(place).encode(), b"tmpfs", flags, f"size={size}".encode())

    if os.getuid() != 0 or mount("64k") != 0:
        pytest.skip("mounting a small tmpfs needs root and CAP_SYS_ADMIN")
    remount = 32
    try:
        yield place, lambda size: mount(size, remount)
    finally:
        libc.umount2(str(place).encode(), 2)


def test_a_full_disk_ends_loudly_and_resumes_with_more_space(
    folder: pathlib.Path, small_disk, no_pauses: None, capsys: pytest.CaptureFixture[str]
):
    place, enlarge = small_disk
    out = place / "out"
    run = command(folder / "images", out, "--shard-retries", "0")
    assert main(run) == 1
    told = capsys.readouterr().err
    assert "No space left on device" in told
    assert "free some space, then run the same command again" in told
    assert "Traceback" not in told
    assert temporaries(out) == [], "the disk is not full of half files"
    done = done_shards(str(out))
    assert 0 < len(done) < 6
    assert {problem.repair for problem in verify_run(str(out)).problems} == {"resume"}
    assert enlarge("8m") == 0
    assert main(run) == 0
    assert f"in {6 - len(done)} shard" in capsys.readouterr().err
    assert logical_digest(str(out)) == logical_digest(str(folder / "calm"))
    assert verify_run(str(out)).ok


def test_a_limit_on_file_sizes_leaves_no_partial_file(folder: pathlib.Path, tmp_path: pathlib.Path):
    """The kernel cuts the write in the middle of the file (EFBIG), as a quota does."""
    out = tmp_path / "out"
    limit = min(path.stat().st_size for path in (folder / "calm" / "maps").iterdir()) - 1000
    (tmp_path / "tiny_net.py").write_text((folder / "tiny_net.py").read_text() + NO_PAUSES)
    run = program(*command(folder / "images", out, "--shard-retries", "0"))

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(
        run, env=environment(tmp_path), capture_output=True, text=True, timeout=200, preexec_fn=limited
    )
    assert done.returncode == 1
    assert "the storage is gone: cannot write" in done.stderr
    assert "File too large" in done.stderr
    assert temporaries(out) == []
    assert done_shards(str(out)) == {}
    assert main(command(folder / "images", out)) == 0
    assert logical_digest(str(out)) == logical_digest(str(folder / "calm"))


NO_PAUSES = """

import tenacity
from heatlas.pipeline.storage import backoff

backoff.WAIT = tenacity.wait_none()
"""


# --- two writers


def test_two_drivers_at_once_lose_nothing_and_double_nothing(folder: pathlib.Path, tmp_path: pathlib.Path):
    out = tmp_path / "out"
    run = program(*command(folder / "images", out, "--shard-size", "1"))
    drivers = [subprocess.Popen(run, env=environment(folder), stderr=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        told = [driver.communicate(timeout=200)[1] for driver in drivers]
    finally:
        for driver in drivers:
            driver.kill()
    assert [driver.returncode for driver in drivers] == [0, 0], told
    assert list(done_shards(str(out))) == list(range(COUNT))
    assert heatlas.open(out).sql("SELECT count(*), count(DISTINCT id) FROM atlas").fetchall() == [(COUNT, COUNT)]
    assert logical_digest(str(out)) == logical_digest(str(folder / "calm"))
    assert verify_run(str(out)).ok
    assert temporaries(out) == []


ZOMBIE = """

import os, signal
link = os.link


def freeze_first(staged, final):
    if "part-" in str(final):
        os.link = link
        os.kill(os.getpid(), signal.SIGSTOP)
    return link(staged, final)


os.link = freeze_first
"""


def test_a_zombie_that_commits_late_changes_nothing(folder: pathlib.Path, tmp_path: pathlib.Path):
    """A driver freezes between writing its file and giving it its name; another one finishes the run; the first wakes up."""
    out = tmp_path / "out"
    (tmp_path / "tiny_net.py").write_text((folder / "tiny_net.py").read_text() + ZOMBIE)
    run = command(folder / "images", out)
    zombie = subprocess.Popen(program(*run), env=environment(tmp_path), stderr=subprocess.PIPE, text=True)
    try:
        assert wait_until(lambda: state(zombie.pid) == "T" or zombie.poll() is not None)
        assert zombie.poll() is None
        held = temporaries(out)
        assert main(run) == 0
        before = files(out)
        digest = logical_digest(str(out))
        zombie.send_signal(signal.SIGCONT)
        _, told = zombie.communicate(timeout=200)
    finally:
        zombie.kill()
        zombie.wait()
    assert [name.startswith("maps/.part-000000.parquet.") for name in held] == [True], (
        "it froze with a part in its hands"
    )
    assert zombie.returncode == 0, told
    assert files(out) == before
    assert logical_digest(str(out)) == digest == logical_digest(str(folder / "calm"))
    assert temporaries(out) == []


def state(pid: int) -> str:
    """R, S, T (stopped) ..."""
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def files(out: pathlib.Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (out / "maps").iterdir()}


# --- memory


def test_memory_works_in_one_process(folder: pathlib.Path):
    out = f"memory://heatlas-{uuid.uuid4().hex}"
    try:
        assert main(command(folder / "images", out)) == 0
        assert logical_digest(out) == logical_digest(str(folder / "calm"))
        assert main(["status", out]) == 0
        assert main(["verify", out]) == 0
        assert len(heatlas.open(out)) == COUNT
    finally:
        fsspec.filesystem("memory").rm(out, recursive=True)


@pytest.mark.parametrize("which", ["out", "data"])
def test_memory_is_refused_where_workers_cannot_see_it(
    which: str, folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
):
    places = {"data": folder / "images", "out": tmp_path / "out", which: "memory://somewhere"}
    assert main(command(places["data"], places["out"], "--workers", "2")) == 2
    told = capsys.readouterr().err
    assert f"--{which} memory://somewhere lies in the memory of this process" in told
    assert "--workers 0" in told
