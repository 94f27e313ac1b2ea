"""docs/performance.md: every measurement owns the text between its two markers and leaves the rest alone; machine and versions."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import torch

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"


def write_section(name: str, lines: Iterable[str], *, packages: Sequence[str] = ()) -> None:
    """Replace what stands between `<!-- begin NAME -->` and `<!-- end NAME -->`; a new section goes to the end of the page."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    body = "\n".join([begin, *lines, "", facts(packages), end])
    text = PAGE.read_text() if PAGE.exists() else "# Performance\n"
    if begin in text:
        before, rest = text.split(begin, 1)
        text = before + body + rest.split(end, 1)[1]
    else:
        text = f"{text.rstrip()}\n\n{body}\n"
    PAGE.write_text(text)
    print(f"wrote {PAGE} ({name})")


def facts(packages: Sequence[str] = ()) -> str:
    """Machine, load, versions and day of a measurement, in one line."""
    versions = ", ".join(f"{one} {metadata.version(one)}" for one in ("torch", "torchvision", *packages))
    load = f"load average {os.getloadavg()[0]:.1f} at the end"
    day = datetime.now(UTC).date().isoformat()
    return f"*{machine()}; {load}; Python {platform.python_version()}, {versions}; {day}.*"


def machine() -> str:
    """What computed, in words."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cpu = f"{os.cpu_count()}-core {processor()}, {memory:.0f} GiB"
    return f"{torch.cuda.get_device_name(0)} on a {cpu} host" if torch.cuda.is_available() else f"{cpu}, no GPU"


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(map(str, row))} |" for row in (head, ["---"] * len(head), *rows)]
