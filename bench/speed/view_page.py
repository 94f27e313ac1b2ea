"""Speed of `heatlas view` in a browser over a large store: start, first paint, brush, scroll, and the server's memory.

    python -m bench synthetic_store STORE --rows 1000000 --map-size 14 && heatlas compact STORE
    python -m bench view_page STORE [--repeats 7] [--write]

The server is a process of its own; Chromium is headless and driven over its own pipe as in the tests. `--write` puts the figures into docs/view.md.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..page_part import DOCS, circumstances, table, write_part

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.support.browser import Page, browser_page

PATIENCE_SECONDS = 120.0
READY = "document.documentElement.dataset.ready === '1'"
PAINTED = f"{READY} && document.querySelectorAll('.cell').length > 10"
WANTED = {"first paint": "< 2 s", "brush": "< 0.5 s", "server memory": "< 1.5 GB"}


@contextlib.contextmanager
def served(store: str) -> Iterator[tuple[str, subprocess.Popen[str], float]]:
    """Address, process and seconds until the address was printed."""
    begun = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "heatlas", "view", store], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield line.split(": ", 1)[1].strip(), process, time.monotonic() - begun
    finally:
        process.terminate()
        process.wait(20)


def until(page: Page, script: str) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not page.run(script):
        if time.monotonic() > end:
            raise SystemExit(f"never true: {script}")
        time.sleep(0.005)


def timed(action: Callable[[], None]) -> float:
    begun = time.monotonic()
    action()
    return time.monotonic() - begun


def measure(page: Page, url: str, repeats: int) -> dict[str, list[float]]:
    """Seconds of every step, `repeats` times."""
    result: dict[str, list[float]] = {
        name: [] for name in ("first paint", "brush", "filter and sort", "scroll", "id found")
    }

    def open_page() -> None:
        page.open(url)
        until(page, PAINTED)

    for repeat in range(repeats):
        result["first paint"].append(timed(open_page))
        for name, script in steps(repeat).items():
            rows = page.run("document.getElementById('totals').dataset.rows")
            before = page.run("document.querySelector('.cell')?.title ?? ''")
            changed = f"document.getElementById('totals').dataset.rows !== '{rows}' && document.querySelectorAll('.cell').length > 0"
            if name == "scroll":
                changed = f"document.querySelectorAll('.cell').length > 10 && ![...document.querySelectorAll('.cell')].some((one) => one.title === {before!r})"

            def step(script: str = script, changed: str = changed) -> None:
                page.run(script)
                until(page, changed)

            result[name].append(timed(step))
    return result


def steps(repeat: int) -> dict[str, str]:
    """What is done, by name; every time with other values, so that nothing is answered from memory."""
    low = 0.30 + repeat / 100
    return {
        "scroll": f"(() => {{ const grid = document.getElementById('grid'); grid.scrollTop = grid.scrollHeight * {0.4 + repeat / 20}; }})()",
        "brush": f"(() => {{ location.hash = 'r.ebpg=..{low}'; }})()",
        "filter and sort": f"(() => {{ location.hash = 'r.ebpg=..{low}&r.confidence={0.5 + repeat / 50}..&sort=gini&descending=1'; }})()",
        "id found": f"(() => {{ location.hash = 'text={repeat * 7919 + 100_003}'; }})()",
    }


def memory_gb(process: subprocess.Popen[str], field: str) -> float:
    """Resident memory of the server in GB: `VmHWM` at its peak, `VmRSS` now."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith(field)).split()[1]) * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    with served(asked.store) as (url, process, start), tempfile.TemporaryDirectory() as folder:
        with browser_page(Path(folder)) as page:
            page.resize(1280, 800)
            result = measure(page, url, asked.repeats)
            images = page.run("(async () => (await (await fetch('api/store')).json()).images)()")
        peak, now = memory_gb(process, "VmHWM"), memory_gb(process, "VmRSS")
    rows: list[list[Any]] = [["until the address is printed", f"{start:.1f} s", "", ""]]
    rows += [
        [name, f"{statistics.median(values):.2f} s", f"{min(values):.2f} to {max(values):.2f} s", WANTED.get(name, "")]
        for name, values in result.items()
    ]
    rows.append(["server memory, peak while loading", f"{peak:.2f} GB", "", WANTED["server memory"]])
    rows.append(["server memory, at the end", f"{now:.2f} GB", "", WANTED["server memory"]])
    lines = [*table(["step", "median", "range", "wanted"], rows), "",
             f"{images:,} images, one row each, {asked.repeats} times. First paint: from opening the address to filters and images on the screen. The other steps: "
             "until counts and images have changed; every time with other values.", "", circumstances(("duckdb", "starlette"))]  # fmt: skip
    print("\n".join(lines))
    if asked.write:
        write_part(DOCS / "view.md", "view_page", "\n".join(lines))


if __name__ == "__main__":
    main()
