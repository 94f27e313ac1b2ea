"""A CPU worker keeps the memory that it frees: no page faults for a tensor whose size it has freed before."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from heatlas.workers.worker.malloc import keep_freed_memory, return_freed_memory

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator can be told")
MIB = 2**20
HERE = str(Path(__file__).parent)
SUPPORT = str(Path(__file__).parents[1] / "support")


def resident() -> float:
    """MiB of this process in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / MIB


def faults(mib: int = 64) -> int:
    """Page faults of making and freeing a tensor whose like were made and freed before."""
    for _ in range(12):  # the first few settle between other blocks
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(mib * MIB // 4)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def alone(body: str, **environment: str) -> list[float]:
    """Numbers that `body` prints in a process of its own, whose allocator nobody has told anything but this environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    script = f"import sys; sys.path[:0] = {[HERE, SUPPORT, *sys.path]!r}\nfrom test_freed_memory import *\n{body}"
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, env=kept | environment
    )
    assert run.returncode == 0, run.stderr
    return [float(word) for word in run.stdout.split()]


@glibc
def test_a_borrowed_process_keeps_memory_and_returns_it():
    given_back, kept, before, after, threads, threads_after = alone(
        "from heatlas.workers.worker.process_state import restore_process_state\nprint(faults()); threads = torch.get_num_threads()\n"
        "with restore_process_state():\n"
        "    keep_freed_memory(); torch.set_num_threads(threads + 1); print(faults())\n"
        "    torch.ones(64 * MIB); before = resident()\n"
        "after = resident(); print(before, after, threads, torch.get_num_threads())"
    )
    assert given_back >= 64 * MIB / resource.getpagesize() / 600  # even where pages are huge
    assert kept < given_back / 4
    assert before - after > 200  # of the 256 MiB that were free and kept
    assert threads == threads_after


@glibc
def test_a_worker_on_a_cpu_keeps_its_memory():
    body = (
        "from fake_engine import NoReader, fake_spec\nfrom heatlas.workers.worker import build\n"
        "from heatlas.workers.models.load import LoadedModel\nfrom heatlas.workers.images.preprocess import Preprocess\n"
        "from torchvision.models import squeezenet1_1\n"
        "found = LoadedModel(squeezenet1_1().eval(), Preprocess((64, 64), 'squash'), None, 1000, 'digest')\n"
        "build.load_model = lambda spec, reader: found\n"
        "before = faults(); build.build_engine(fake_spec(device='cpu'), NoReader()); print(before, faults())"
    )
    before, kept = alone(body)
    assert kept < before / 4


@glibc
def test_what_the_user_told_the_allocator_stays():
    """Were it told anything, it would return less than what was asked for here."""
    kept, still = alone(
        "assert not keep_freed_memory(); print(faults()); return_freed_memory(); print(faults())",
        MALLOC_MMAP_MAX_="0", MALLOC_TRIM_THRESHOLD_=str(2**34),
    )  # fmt: skip
    assert kept < 1000
    assert still < 1000


def test_nothing_is_returned_where_nothing_was_kept(monkeypatch):
    monkeypatch.setattr("heatlas.workers.worker.malloc._keeping", False)
    monkeypatch.setattr("heatlas.workers.worker.malloc.ctypes.CDLL", None)  # would raise if it were asked
    return_freed_memory()


def test_another_allocator_is_left_alone(monkeypatch):
    monkeypatch.setattr("heatlas.workers.worker.malloc._keeping", False)
    monkeypatch.setattr("heatlas.workers.worker.malloc.ctypes.CDLL", lambda name: object())
    assert keep_freed_memory() is False
    return_freed_memory()
