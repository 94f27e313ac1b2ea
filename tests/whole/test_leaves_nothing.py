"""What a run leaves behind after success, failure and Ctrl-C: its store, and no process, no temporary file, no open file."""

from __future__ import annotations

import gc
import os
import pathlib
import signal
import subprocess
import threading
import time

import pytest
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.store.committed_shards import done_shards
from heatlas.pipeline.store.content_digest import logical_digest
from heatlas.pipeline.store.verify import verify_run

from ..support.tiny_run import (
    FACTORY,
    TAG,
    command,
    draw_all,
    environment,
    importable_factory,
    program,
    tagged,
    temporaries,
    wait_until,
)

COUNT = 24
SHARDS = 8
pytestmark = pytest.mark.skipif(not pathlib.Path("/proc/self/fd").exists(), reason="looks at processes in /proc")
SLOW = (
    FACTORY.replace("def model()", "def fast()")
    + '''

import os, pathlib, time


class Slow(nn.Module):
    """Takes 50 ms an image batch; where HANG is set it says so there and never comes back. The driver's look at its layers is free."""

    def __init__(self) -> None:
        super().__init__()
        self.net = fast()

    def forward(self, x):
        if x.abs().sum() > 0:
            if "HANG" in os.environ and pathlib.Path(os.environ["BEGUN"]).exists():  # not while the model is looked at
                pathlib.Path(os.environ["HANG"]).touch()
                time.sleep(3600)
            time.sleep(0.05)
        return self.net(x)


def model() -> nn.Module:
    return Slow()
'''
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    """24 images and the store of a calm run over them, with the slow model."""
    folder = tmp_path_factory.mktemp("leaves")
    draw_all(folder / "images", COUNT)
    with importable_factory(folder, SLOW):
        assert main(command(folder / "images", folder / "calm")) == 0
        yield folder


class Run:
    """A `heatlas explain` process in a session of its own, as a terminal starts one."""

    def __init__(self, folder: pathlib.Path, images: pathlib.Path, out: pathlib.Path, *more: str, **settings: str):
        self.out = out
        self.temporary = out.parent / "t"
        self.temporary.mkdir()
        self.environment = environment(folder, TMPDIR=str(self.temporary), RAY_TMPDIR="/tmp", **settings)
        self.process = subprocess.Popen(
            program(*command(images, out, *more)), env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def ctrl_c(self) -> None:
        """To the whole foreground group, workers included, as a terminal does."""
        assert self.process.poll() is None, self.process.communicate()
        os.killpg(self.process.pid, signal.SIGINT)

    def until(self, condition) -> None:
        assert wait_until(lambda: condition() or self.process.poll() is not None, 200)
        assert self.process.poll() is None, self.process.communicate()

    def end(self) -> tuple[int, str]:
        """Exit code and what was told; afterwards nothing of the run may live or lie around."""
        _, told = self.process.communicate(timeout=250)
        tag = self.environment[TAG]
        assert wait_until(lambda: not tagged(tag)), f"still alive: {tagged(tag)}"
        assert list(self.temporary.iterdir()) == []  # Ray's logs, which it keeps, are elsewhere
        assert temporaries(self.out) == []
        return self.process.returncode, told

    def close(self) -> None:
        for pid in tagged(self.environment[TAG]):
            os.kill(pid, signal.SIGKILL)
        self.process.communicate(timeout=60)


@pytest.fixture
def start(folder: pathlib.Path, tmp_path: pathlib.Path):
    runs = []

    def begin(*more: str, images: pathlib.Path = folder / "images", **settings: str) -> Run:
        runs.append(Run(folder, images, tmp_path / "out", *more, **settings))
        return runs[-1]

    yield begin
    for run in runs:
        run.close()


@pytest.mark.parametrize("workers", ["0", pytest.param("2", marks=pytest.mark.soak)])
def test_first_ctrl_c_finishes_shards_in_work_and_says_how_to_resume(workers: str, start, folder: pathlib.Path):
    run = start("--workers", workers)
    run.until(lambda: (run.out / "_run.json").exists() and done_shards(str(run.out)))
    run.ctrl_c()
    code, told = run.end()
    assert code == 130, told
    assert "interrupted: finishing the shards in work; interrupt again to stop at once" in told
    assert told.rstrip().endswith("interrupted; what is committed stays, and the same command resumes there")
    assert "Traceback" not in told
    done = done_shards(str(run.out))
    assert 0 < len(done) < SHARDS
    assert {problem.repair for problem in verify_run(str(run.out)).problems} == {"resume"}
    assert main(command(folder / "images", run.out)) == 0
    assert logical_digest(str(run.out)) == logical_digest(str(folder / "calm"))


@pytest.mark.parametrize("workers", ["0", pytest.param("1", marks=pytest.mark.soak)])
def test_second_ctrl_c_stops_at_once(workers: str, start, tmp_path: pathlib.Path):
    """In the middle of an image that never ends."""
    run = start("--workers", workers, HANG=str(tmp_path / "hangs"), BEGUN=str(tmp_path / "out" / "_run.json"))
    run.until((tmp_path / "hangs").exists)
    run.ctrl_c()
    if workers == "1":  # in one process the hanging image keeps the news back
        assert any("interrupt again to stop at once" in line for line in iter(run.process.stderr.readline, ""))
    time.sleep(0.5)  # two signals at once may arrive as one
    run.ctrl_c()
    code, told = run.end()
    assert code == 130, told
    assert "the same command resumes there" in told
    assert "Traceback" not in told
    assert done_shards(str(run.out)) == {}


def test_failure_leaves_nothing(start, tmp_path: pathlib.Path):
    """Every image fails, so the circuit breaker ends the run while workers live."""
    for number in range(40):
        (tmp_path / "bad" / f"{number:02d}.png").parent.mkdir(exist_ok=True)
        (tmp_path / "bad" / f"{number:02d}.png").write_text("no image")
    run = start("--workers", "1", images=tmp_path / "bad")
    code, told = run.end()
    assert code == 1, told
    assert "max_error_rate" in told


@pytest.mark.soak
def test_success_with_workers_leaves_nothing(start, folder: pathlib.Path):
    run = start("--workers", "2")
    code, told = run.end()
    assert code == 0, told
    assert logical_digest(str(run.out)) == logical_digest(str(folder / "calm"))


def test_no_file_stays_open_and_no_thread_alive(folder: pathlib.Path, tmp_path: pathlib.Path):
    """Runs that succeed, fail in the middle and are refused, many times in one process."""
    bad = tmp_path / "bad"
    for number in range(24):
        (bad / f"{number:02d}.png").parent.mkdir(exist_ok=True)
        (bad / f"{number:02d}.png").write_text("no image")
    (folder / "tiny_net.py").write_text(SLOW)

    def once(number: int) -> None:
        assert main([*command(folder / "images", tmp_path / f"good{number}"), "--limit", "4"]) == 0
        assert main(["status", str(tmp_path / f"good{number}")]) == 0
        assert main(["verify", str(tmp_path / f"good{number}")]) == 0
        assert main(command(bad, tmp_path / f"bad{number}")) == 1
        assert main([*command(folder / "images", tmp_path / f"good{number}"), "--seed", "1"]) == 2

    once(0)  # makes whatever is kept for the process's life
    before = open_files(), threads()
    for number in range(1, 4):
        once(number)
    gc.collect()
    assert open_files() == before[0]
    assert threads() <= before[1]


def open_files() -> list[str]:
    """What the descriptors of this process point at, pipes and sockets by kind."""
    result = []
    for name in os.listdir("/proc/self/fd"):
        try:
            result.append(os.readlink(f"/proc/self/fd/{name}").partition(":[")[0])
        except FileNotFoundError:  # the listing's own
            continue
    return sorted(result)


def threads() -> set[str]:
    return {entry.name for entry in threading.enumerate()}
