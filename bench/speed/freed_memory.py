"""What a CPU's forwards gain where freed memory stays with the process, as heatlas's workers have it.

    python -m bench freed_memory [--models mobilenet_v2 ...] [--precisions fp32 bf16] [--batch-size 32] [--rounds 6] [--fresh]

One process, one thread, the same plain forward with glibc's own way and with `keep_freed_memory` in turns; the median over rounds of
the ratio counts. Needs no image.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from typing import Any

import torch
from heatlas.workers.worker.malloc import keep_freed_memory, return_freed_memory
from torch import nn

from ..data_sets import network
from ..page_part import table, write_section
from ..records import Records
from .forward_efficiency import MODELS, forward

FORWARDS = 3


def timed(model: nn.Module, batch: torch.Tensor, precision: str) -> tuple[float, float]:
    """Images per second, and the share of CPU time that the kernel takes."""
    forward(model, batch, precision)
    before, begun = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    for _ in range(FORWARDS):
        forward(model, batch, precision)
    seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
    kernel, user = after.ru_stime - before.ru_stime, after.ru_utime - before.ru_utime
    return FORWARDS * len(batch) / seconds, kernel / (kernel + user)


def measure(name: str, precision: str, batch_size: int, rounds: int) -> dict[str, Any]:
    """One row of the table."""
    model = network(name).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    batch = torch.randn(batch_size, 3, 224, 224).to(memory_format=torch.channels_last)
    own, kept = [], []
    for _ in range(rounds):
        return_freed_memory()
        own.append(timed(model, batch, precision))
        if not keep_freed_memory():
            raise SystemExit("this machine's allocator is not glibc's")
        kept.append(timed(model, batch, precision))
    return_freed_memory()
    return {
        "own": statistics.median(rate for rate, _ in own), "kept": statistics.median(rate for rate, _ in kept),
        "kernel": statistics.median(share for _, share in own), "kernel_kept": statistics.median(share for _, share in kept),
        "ratios": [with_memory / without for (without, _), (with_memory, _) in zip(own, kept, strict=True)],
    }  # fmt: skip


def lines(figures: dict[str, Any]) -> list[str]:
    rows = []
    for key, record in figures.items():
        name, precision, batch = key.split()
        ratios = record["ratios"]
        rows.append([
            name, precision, batch, f"{record['own']:.1f}", f"{record['kernel']:.0%}", f"{record['kept']:.1f}", f"{record['kernel_kept']:.0%}",
            f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f} - {max(ratios):.2f})",
        ])  # fmt: skip
    head = (
        "network",
        "precision",
        "batch",
        "forwards/s",
        "of it the kernel",
        "forwards/s, memory kept",
        "of it the kernel",
        "ratio",
    )
    return [
        "## Freed memory",
        "",
        "glibc gives every large tensor's memory back to the kernel, which zeroes it again for the next one. heatlas's CPU workers keep it",
        "(`workers/worker/malloc.py`); `python -m bench freed_memory` compares the same plain forward both ways in turns, one thread, channels_last.",
        "The share of the kernel is of CPU time; the ratio is the median over rounds, in brackets the extremes.",
        "",
        *table(head, rows),
        "",
        "In a process of your own that calls the engine itself, the same is had by starting it with",
        "`MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184 python ...`.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=[*MODELS, "squeezenet1_0"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    records = Records("freed_memory", fresh=arguments.fresh)
    for name in arguments.models:
        for precision in arguments.precisions:
            key = f"{name} {precision} {arguments.batch_size}"
            if key not in records:
                records.add(key, measure(name, precision, arguments.batch_size, arguments.rounds))
    write_section("freed_memory", lines(records.found))


if __name__ == "__main__":
    main()
