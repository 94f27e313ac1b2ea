"""CPU seconds of the engine beside the network's own passes, stage by stage, with a network that costs next to nothing.

    python -m bench host_work [--images 8]

The network pools and mixes channels: its maps have the shapes of MobileNetV2's blocks and its forwards a small share of their cost, which is
measured and taken away. What is left is what the host does for an image: masks, selection, fusion, the surrogate, metrics, Python.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from heatlas.engine.methods.registry import bind_method
from heatlas.engine.metrics import spelt_out
from heatlas.engine.session import ExplainSession, OverviewWanted
from heatlas.engine.time_spent import WorkMeter
from heatlas.workers.worker.malloc import keep_freed_memory
from torch import Tensor, nn

from ..page_part import table, write_section

SIDE, CLASSES = 224, 1000
CHANNELS = (16, 24, 32, 96, 160)
CASES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("grad_cam", "", {}), ("grad_cam", "standard", {}), ("rise", "", {"masks": 200}), ("sise", "", {}), ("sise", "paper", {}),
    ("sise", "", {"budget": "balanced"}), ("sise", "", {"budget": "fast"}),
)  # fmt: skip
STAGES = ("masks", "forwards", "gradients", "method", "metrics")


class FreeNetwork(nn.Module):
    """Five blocks of a pooling and a convolution of single pixels, and a linear head: 1 % of MobileNetV2's products."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        pairs = zip((3, *CHANNELS), CHANNELS, strict=False)
        self.blocks = nn.Sequential(
            *(nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(*pair, kernel_size=1), nn.ReLU()) for pair in pairs)
        )
        self.head = nn.Linear(CHANNELS[-1], CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(x).mean((2, 3)))


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8)
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    images = torch.rand(given.images, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    rows = []
    for method, metrics, options in CASES:
        stages, forwards = host_milliseconds(method, metrics, options, images)
        name = " ".join([method, *(f"{key}={value}" for key, value in options.items())])
        shown = [f"{max(0.0, stages.get(stage, 0.0)):.1f}" for stage in STAGES]
        rows.append((name, metrics or "none", forwards, *shown, f"{sum(stages.values()):.1f}"))
        print(*rows[-1], flush=True)
    head = ("method", "metrics", "forwards", *(f"{stage}, ms" for stage in STAGES), "together, ms")
    write_section(
        "host_work",
        [
            "## Work beside the network",
            "",
            f"CPU milliseconds per image, stage by stage (`engine/time_spent.py`), of a network that costs next to nothing: {given.images} random images of {SIDE} x {SIDE}, "
            f"maps of {', '.join(map(str, CHANNELS))} channels, {CLASSES} classes, batches of 64, one thread, `python -m bench host_work`. The network's forwards are "
            "taken away, its backward pass is not. Not compared with earlier releases, whose engine had no stages.",
            "",
            *table(head, rows),
        ],
    )


if __name__ == "__main__":
    main()
