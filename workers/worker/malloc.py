"""Memory that a CPU worker frees stays with its process, for the next tensor.

glibc gives every large block back to the kernel when it is freed, and the kernel zeroes it page by page when it is asked for again: for every
activation of every forward pass. On a CPU that is up to half of a forward's time (docs/performance.md). Values do not change.
"""

from __future__ import annotations

import ctypes
import os

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
"""Parameters of `mallopt(3)`."""
NEVER = -1
MOST_MMAPS = 65536
LARGEST_THRESHOLD = 32 * 2**20
"""Up to which glibc raises its threshold for `mmap` by itself, and to twice that the one for trimming."""


_keeping = False
"""Whether this process was told to keep what it frees."""


def keep_freed_memory() -> bool:
    """From now on this process keeps what it frees; whether its allocator can be told so.

    It cannot where it is not glibc's, and is not where the process's environment tells it how to do already.
    """
    global _keeping
    _keeping = not told_by_environment() and _tell({MMAP_MAX: 0, TRIM_THRESHOLD: NEVER})
    return _keeping


def return_freed_memory() -> None:
    """After `keep_freed_memory`: what is free now goes back to the kernel; otherwise nothing.

    From now on large blocks do when they are freed, but for those that fit into holes that are left. The thresholds are those that
    glibc comes to in a process that has freed blocks of 32 MiB; they no longer move by themselves.
    """
    global _keeping
    values = {MMAP_MAX: MOST_MMAPS, MMAP_THRESHOLD: LARGEST_THRESHOLD, TRIM_THRESHOLD: 2 * LARGEST_THRESHOLD}
    if _keeping and _tell(values):
        ctypes.CDLL(None).malloc_trim(0)
    _keeping = False


def told_by_environment() -> bool:
    """Whether the user has settled how this process's allocator does it: `MALLOC_...` and tunables, see `mallopt(3)`."""
    return any(
        name in os.environ for name in ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
    ) or ("glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""))


def _tell(values: dict[int, int]) -> bool:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # macOS, musl and Windows have none
        return False
    told = [mallopt(parameter, value) for parameter, value in values.items()]
    return 0 not in told
