"""CPU seconds of the engine beside the network's own passes, stage by stage, with a network that costs next to nothing.

    python -m bench host_work [--images 8] [--before COMMIT]

The network pools and mixes channels: its maps have the shapes of MobileNetV2's blocks and its forwards a small share of their cost, which is
measured and taken away. What is left is what the host does for an image: masks, selection, fusion, the surrogate, metrics, Python.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from heatlas.engine.methods.registry import bind_method
from heatlas.engine.metrics import spelt_out
from heatlas.engine.session import ExplainSession, OverviewWanted
from heatlas.engine.time_spent import WorkMeter
from heatlas.workers.worker.malloc import keep_freed_memory
from torch import Tensor, nn

from ..page_part import table, write_section
from . import host_total
from .host_total import CASES, CHANNELS, CLASSES, SIDE, FreeNetwork, random_images

BEFORE = "25ce3b2"
"""Before the engine's host work was looked at; `device_waits` compares with the same commit."""
STAGES = ("masks", "forwards", "gradients", "method", "metrics")


@contextmanager
def counted_forwards(model: nn.Module, meter: WorkMeter) -> Iterator[Counter[str]]:
    """CPU seconds of the forwards meanwhile, by the stage that they are charged to."""
    seconds = Counter[str]()
    begun: list[float] = []

    def end(module: nn.Module, given: Any, output: Any) -> None:
        seconds[meter._open[-1]] += time.process_time() - begun.pop()  # pyright: ignore[reportArgumentType]

    hooks = (
        model.register_forward_pre_hook(lambda module, given: begun.append(time.process_time())),
        model.register_forward_hook(end),
    )
    try:
        yield seconds
    finally:
        for hook in hooks:
            hook.remove()


def host_milliseconds(
    method: str, metrics: str, options: dict[str, Any], images: Tensor
) -> tuple[dict[str, float], float]:
    """By stage and image, the network's forwards taken away; and the forwards of an image."""
    model, meter = FreeNetwork().eval(), WorkMeter(time.process_time)
    explainer = bind_method(method, model, batch_size=64, **options)
    session = ExplainSession(explainer, spelt_out([metrics] if metrics else []), overview=OverviewWanted(), meter=meter)
    session.push(0, images[0])
    session.finish()
    meter.take()
    with counted_forwards(model, meter) as seconds:
        done = [entry for key, image in enumerate(images) for entry in session.push(key, image)] + session.finish()
    if any(entry.status != "ok" for entry in done):
        raise SystemExit(f"{method}: {[entry.error for entry in done if entry.error][:1]}")
    stages, _ = meter.take()
    for name, forwards in seconds.items():
        stages[name] -= forwards
    return {name: 1000 * value / len(images) for name, value in stages.items()}, done[-1].n_forwards


def totals_of(tree: Path, images: int) -> list[float]:
    """What `host_total` measures with the heatlas of a tree, a folder named `heatlas`."""
    kept = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "17179869184", "PYTHONPATH": str(tree.parent)}
    command = [sys.executable, str(Path(host_total.__file__).resolve()), str(images)]
    done = subprocess.run(
        command, env={**os.environ, **kept}, cwd=tree.parent, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def before_and_now(commit: str, images: int) -> list[tuple[float, float]]:
    """Milliseconds of every case at a commit and in this tree, by the same clock."""
    here = Path(__file__).resolve().parents[2]
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "heatlas"
        git = ["git", "-C", str(here), "worktree"]
        subprocess.run([*git, "add", "--detach", str(tree), commit], check=True, capture_output=True)
        try:
            before = totals_of(tree, images)
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True, capture_output=True)
    return list(zip(before, totals_of(here, images), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--before", default=BEFORE, help="commit to compare with, or nothing")
    given = parser.parse_args()
    compared = before_and_now(given.before, given.images) if given.before else [(float("nan"),) * 2] * len(CASES)
    torch.set_num_threads(1)
    keep_freed_memory()
    images = random_images(given.images)
    rows = []
    for (method, metrics, options), (before, now) in zip(CASES, compared, strict=True):
        stages, forwards = host_milliseconds(method, metrics, options, images)
        name = " ".join([method, *(f"{key}={value}" for key, value in options.items())])
        shown = [f"{max(0.0, stages.get(stage, 0.0)):.1f}" for stage in STAGES]
        rows.append(
            (
                name,
                metrics or "none",
                forwards,
                *shown,
                f"{sum(stages.values()):.1f}",
                f"{before:.1f}",
                f"{now:.1f}",
                f"{now / before:.2f}",
            )
        )
        print(*rows[-1], flush=True)
    head = (
        "method",
        "metrics",
        "forwards",
        *(f"{stage}, ms" for stage in STAGES),
        "together, ms",
        "all, before, ms",
        "all, now, ms",
        "now / before",
    )
    write_section(
        "host_work",
        [
            "## Work beside the network",
            "",
            f"CPU milliseconds per image, stage by stage (`engine/time_spent.py`), of a network that costs next to nothing: {given.images} random images of {SIDE} x {SIDE}, "
            f"maps of {', '.join(map(str, CHANNELS))} channels, {CLASSES} classes, batches of 64, one thread, `python -m bench host_work`. The network's forwards are "
            "taken away, its backward pass is not. The last columns are the process's CPU time for the same images at commit "
            f"{given.before or '-'}, whose engine had no stages, and now: without the class list and features, which were a forward of their own then. "
            "Calls around the network fell (Grad-CAM without metrics: a third); what else there is on a CPU is arithmetic that did not: masks upsampled and multiplied, random masks summed, the surrogate.",
            "",
            *table(head, rows),
        ],
    )


if __name__ == "__main__":
    main()
