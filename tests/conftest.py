"""What holds for the whole suite: Ctrl-C, files that lie beside the repository, the order of files, memory, and no deadlines.

Ctrl-C means here what it means in a terminal, also where the suite was started in the background, which ignores SIGINT: a child
process gets the default back only if it is not ignored here.
"""

from __future__ import annotations

import ctypes
import resource
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

from .support import shared_ray
from .support.checkout import ROOT

signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

ROOMS = ("whole", "workers", "engine", "pipeline")
"""Folders of tests, the slowest files first: where files are shared out among processes, a long one must not begin last."""
LARGEST = ("test_sise_oracle.py", "test_real_images.py", "test_method_photographs.py")
"""Files whose networks take most memory: before all others, while a process is still small."""
PROCESS_MIB = 3 * 1024
"""Memory that a process of the suite may take at its peak."""
PEAKS: dict[str, float] = {}
"""Peak memory in MiB of each process that ran tests, by its name."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def room(item: pytest.Item) -> int:
        if item.path.name in LARGEST:
            return -2
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        return ROOMS.index(folder) if folder in ROOMS else -1

    items.sort(key=room)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("outside_files"):
        for path in mark.args:
            if not (ROOT.parent / path).exists():
                pytest.skip(f"needs {path} beside the repository")


@pytest.fixture(scope="module", autouse=True)
def _freed_memory_goes_back() -> Iterator[None]:
    """What a file of tests has freed is given back to the system, so that files do not add up to a large process."""
    yield
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


@pytest.fixture
def local_ray() -> None:
    """This process is connected to a private Ray without GPUs, in which commands run their workers."""
    shared_ray.connect(num_cpus=4)


@pytest.fixture
def two_gpus() -> None:
    """This process is connected to a private Ray with two GPUs that do not exist."""
    shared_ray.connect(num_cpus=4, num_gpus=2)


@pytest.fixture(scope="module")
def no_ray() -> None:
    """This process is connected to no Ray, so that a test may start one with other settings."""
    shared_ray.disconnect()


def peak_mib() -> float:
    """Of this process, so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def pytest_sessionfinish(session: pytest.Session) -> None:
    shared_ray.disconnect()
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["peak_mib"] = peak_mib()
        return
    PEAKS.setdefault("main", peak_mib())
    if max(PEAKS.values()) > PROCESS_MIB and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    if "peak_mib" in (getattr(node, "workeroutput", None) or {}):
        PEAKS[node.gateway.id] = node.workeroutput["peak_mib"]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    outcomes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            if "outside_files" in getattr(report, "keywords", ()):
                outcomes[report.nodeid.split("::")[0]][outcome] += 1
    if outcomes:
        terminalreporter.section("tests that need files beside the repository")
        for file, counts in sorted(outcomes.items()):
            terminalreporter.line(f"{file}: {', '.join(f'{count} {outcome}' for outcome, count in counts.items())}")
    if PEAKS:
        name, peak = max(PEAKS.items(), key=lambda entry: entry[1])
        verdict = "" if peak <= PROCESS_MIB else f", more than the {PROCESS_MIB} MiB that are allowed: the run fails"
        terminalreporter.section("memory")
        terminalreporter.line(f"largest process: {name}, {peak:.0f} MiB at its peak{verdict}")
