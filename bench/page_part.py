"""Puts what a measurement printed between two markers of a documentation page, and nothing else."""

from __future__ import annotations

import os
import platform
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def write_part(page: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- name: begin ... -->` and `<!-- name: end -->`."""
    lines = page.read_text().splitlines()
    begin = next((at for at, line in enumerate(lines) if line.startswith(f"<!-- {name}: begin")), None)
    end = next((at for at, line in enumerate(lines) if line.startswith(f"<!-- {name}: end")), None)
    if begin is None or end is None or end < begin:
        raise SystemExit(f"{page} has no lines `<!-- {name}: begin -->` and `<!-- {name}: end -->`")
    page.write_text("\n".join([*lines[: begin + 1], "", text.strip("\n"), "", *lines[end:]]) + "\n")


def machine() -> str:
    """This machine in words, for a table's caption."""
    model, memory = platform.machine(), 0.0
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal"):
            memory = int(line.split()[1]) / 2**20
    return f"{os.cpu_count()}-core {model}, {memory:.0f} GiB"
