"""What metrics cost beside the explanation: seconds per image without metrics and with each preset.

    python -m bench metric_cost [--images 4] [--model mobilenet_v2] [--methods grad_cam sise]

Random weights and images; CPU seconds on a CPU, wall seconds on an accelerator. `full` explains every image up to 13 times more, so
that it costs what the method costs: next to nothing of Grad-CAM, thirteen times the masks of SISE.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
import torchvision
from heatlas.engine.methods.registry import bind_method
from heatlas.engine.metrics import spelt_out
from heatlas.engine.session import ExplainSession, OverviewWanted
from torch import Tensor, nn

from ..page_part import table, write_section

PRESETS = ("", "paper", "standard", "full")
SETTINGS: dict[str, dict[str, Any]] = {"sise": {"mu": 0.9}}
SIDE = 224


def cost(method: str, preset: str, model: nn.Module, images: Tensor, batch_size: int) -> tuple[float, int, int]:
    """Seconds, forwards and backwards of an image."""
    explainer = bind_method(method, model, batch_size=batch_size, **SETTINGS.get(method, {}))
    names = spelt_out([preset] if preset else [])
    clock = time.process_time if images.device.type == "cpu" else time.perf_counter
    begun = 0.0
    for chosen in (images[:1], images):  # the first image plans its layers
        session = ExplainSession(explainer, names, overview=OverviewWanted())
        begun = clock()
        done = []
        for key, image in enumerate(chosen):
            done += session.push(key, image, label=key, truth=torch.ones(SIDE, SIDE, dtype=torch.bool).triu())
        done += session.finish()
    return (clock() - begun) / len(images), done[0].n_forwards, done[0].n_backwards


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--model", default="mobilenet_v2")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--methods", nargs="+", default=["grad_cam"])
    given = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    model = getattr(torchvision.models, given.model)().eval().to(device, memory_format=torch.channels_last)
    images = torch.rand(given.images, 3, SIDE, SIDE, device=device)
    rows = []
    for method in given.methods:
        standard = 0.0
        for preset in PRESETS:
            seconds, forwards, backwards = cost(method, preset, model, images, given.batch_size)
            standard = seconds if preset == "standard" else standard
            share = f"{seconds / standard:.1f}" if preset == "full" else ""
            rows.append((method, preset or "none", f"{seconds:.2f}", forwards, backwards, share))
            print(*rows[-1], flush=True)
    write_section(
        "metric_cost",
        [
            "## What metrics cost",
            "",
            f"Seconds per image of {given.model} with random weights, {given.images} images of {SIDE} x {SIDE}, batches of {given.batch_size}, "
            f"{device.type}, `python -m bench metric_cost`. `full` removes pixels and solves for what they hide (ROAD), and explains an "
            "image up to 13 times more.",
            "",
            *table(("method", "metrics", "seconds", "forwards", "backwards", "over standard"), rows),
        ],
    )


if __name__ == "__main__":
    main()
