"""Write the results of a measurement between two markers of a documentation page; name the machine that computed them."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import torch

DOCS = Path(__file__).parents[1] / "docs"
PERFORMANCE = DOCS / "performance.md"


def write_part(page: Path, name: str, text: str) -> None:
    """Replace the text between the lines `<!-- NAME: begin ... -->` and `<!-- NAME: end -->`.

    Raises:
        SystemExit: When the page has no such lines.
    """
    lines = page.read_text(encoding="utf-8").splitlines()
    begin = next((at for at, line in enumerate(lines) if line.startswith(f"<!-- {name}: begin")), None)
    end = next((at for at, line in enumerate(lines) if line.startswith(f"<!-- {name}: end")), None)
    if begin is None or end is None or end < begin:
        raise SystemExit(f"{page} has no lines `<!-- {name}: begin -->` and `<!-- {name}: end -->`")
    page.write_text("\n".join([*lines[: begin + 1], "", text.strip("\n"), "", *lines[end:]]) + "\n", encoding="utf-8")
    print(f"wrote {page} ({name})")


def write_section(name: str, lines: Iterable[str], *, packages: Sequence[str] = ()) -> None:
    """Write a section of docs/performance.md; one that the page lacks goes to its end."""
    if f"<!-- {name}: begin" not in PERFORMANCE.read_text(encoding="utf-8"):
        with PERFORMANCE.open("a", encoding="utf-8") as page:
            page.write(f"\n<!-- {name}: begin -->\n<!-- {name}: end -->\n")
    write_part(PERFORMANCE, name, "\n".join([*lines, "", circumstances(packages)]))


def circumstances(packages: Sequence[str] = ()) -> str:
    """Machine, load, versions and day of a measurement, in one line."""
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in ("torch", "torchvision", *packages))
    load = f"load average {os.getloadavg()[0]:.1f} at the end"
    day = datetime.now(UTC).date().isoformat()
    return f"*{machine()}; {load}; Python {platform.python_version()}, {versions}; {day}.*"


def machine() -> str:
    """The accelerator, the processor and its memory, in words."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    host = f"{os.cpu_count()}-core {processor()}, {memory:.0f} GiB"
    return f"{torch.cuda.get_device_name(0)} on a {host} host" if torch.cuda.is_available() else f"{host}, no GPU"


def processor() -> str:
    """The processor's name as Linux knows it, else its architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(map(str, row))} |" for row in (head, ["---"] * len(head), *rows)]
