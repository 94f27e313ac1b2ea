"""Finds the worker processes below a driver in /proc, so that a harness kills nobody else's."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

BUSY = "ray::ShardWorker.run"
"""The title of a worker that has a shard in work."""


def busy_workers(driver: int) -> list[int]:
    """Process ids of the driver's workers that have a shard in work."""
    return sorted(pid for pid in descendants(driver) if title(pid).startswith(BUSY))


def descendants(ancestor: int) -> set[int]:
    """All processes below `ancestor`, Ray's own included."""
    parents = {int(entry.name): parent_of(entry) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    result, frontier = set(), {ancestor}
    while frontier:
        frontier = {pid for pid, parent in parents.items() if parent in frontier} - result
        result |= frontier
    return result


def parent_of(entry: Path) -> int:
    with suppress(OSError, IndexError, ValueError):
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    return 0


def title(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def kill(pid: int, how: int = signal.SIGKILL) -> bool:
    """Whether there was anything to signal."""
    with suppress(ProcessLookupError):
        os.kill(pid, how)
        return True
    return False


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
