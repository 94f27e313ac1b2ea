"""Restore what a worker changes of the process that it runs in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from .malloc import return_freed_memory


@contextmanager
def restore_process_state() -> Iterator[None]:
    """Torch's thread count as it was before; where a worker in it kept the memory that it freed, that goes back to the kernel."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        return_freed_memory()
        with suppress(RuntimeError):
            torch.set_num_threads(threads)
