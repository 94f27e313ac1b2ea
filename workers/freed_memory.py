"""Memory that a CPU worker frees stays with its process, for the next tensor.

glibc gives every large block back to the kernel when it is freed, and the kernel zeroes it page by page when it is asked for again: for every
activation of every forward pass. On a CPU that is up to half of a forward's time (docs/performance.md). Values do not change.
"""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
"""Parameters of `mallopt(3)`."""
NEVER = -1
MOST_MMAPS = 65536
LARGEST_THRESHOLD = 32 * 2**20
"""Up to which glibc raises its threshold for `mmap` by itself, and to twice that the one for trimming."""


def keep_freed_memory() -> bool:
    """From now on this process keeps what it frees; whether its allocator can be told so, which is glibc's."""
    return _tell({MMAP_MAX: 0, TRIM_THRESHOLD: NEVER})


def return_freed_memory() -> None:
    """Back to glibc's own way, and what is free now goes back to the kernel."""
    if _tell({MMAP_MAX: MOST_MMAPS, MMAP_THRESHOLD: LARGEST_THRESHOLD, TRIM_THRESHOLD: 2 * LARGEST_THRESHOLD}):
        ctypes.CDLL(None).malloc_trim(0)


def _tell(values: dict[int, int]) -> bool:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # macOS, musl and Windows have none
        return False
    told = [mallopt(parameter, value) for parameter, value in values.items()]
    return 0 not in told
