"""How much of a network's own speed the methods reach that are made of a few passes: Grad-CAM and its kin, paths, crops, foveas.

    python -m bench cheap_methods [--images 24] [--model mobilenet_v2] [--batch-size 64] [--rounds 3]

`session` is the engine as a worker drives it, prediction, class list and penultimate features included; `plain` are bare batched passes of
the same network, as many forwards and backwards to the input as the method declares, in batches of the size that the method takes. Random
weights; CPU seconds on a CPU, wall seconds on an accelerator.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from heatlas.engine.explainer import Explainer
from heatlas.engine.methods.registry import bind_method
from heatlas.engine.scoring.precision import gradient_precision
from heatlas.engine.session import ExplainSession, OverviewWanted
from torch import Tensor, nn

from ..page_part import table, write_section

CASES: dict[str, dict[str, Any]] = {
    "grad_cam": {}, "grad_cam_pp": {}, "layer_cam": {}, "refine_cam": {}, "lafam": {},
    "integrated_gradients": {"steps": 4}, "occlusion": {"positions": 3, "output": "logit"}, "fovex": {"fixations": 1, "steps": 4}, "ucag": {},
}  # fmt: skip
SIDE = 224
CROP_SIDE = 322
"""Of UCAG's enlarged crops."""


@dataclass(frozen=True)
class Pace:
    """Seconds per image, session and plain passes."""

    session: float
    plain: float
    forwards: int
    backwards: int


def seconds(work: Callable[[], object], device: torch.device, rounds: int) -> float:
    """The least of several rounds."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter

    def once() -> float:
        begun = clock()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return clock() - begun

    once()
    return min(once() for _ in range(rounds))


def through_session(explainer: Explainer, images: Tensor, overview: OverviewWanted | None) -> tuple[int, int]:
    """Explain all; forwards and backwards of one image."""
    session = ExplainSession(explainer, overview=overview)
    done = [entry for key, image in enumerate(images) for entry in session.push(key, image)] + session.finish()
    if any(entry.status != "ok" for entry in done):
        raise SystemExit(f"{explainer.declared.name}: {[entry.error for entry in done if entry.error][:1]}")
    return done[0].n_forwards, done[0].n_backwards


def plain_passes(model: nn.Module, images: Tensor, backwards: bool) -> None:
    """One forward, and a backward to the input, of a batch."""
    with gradient_precision(images.device), torch.set_grad_enabled(backwards):
        batch = images.clone().requires_grad_(backwards)
        logits = model(batch)
        if backwards:
            torch.autograd.grad(logits.amax(dim=1).sum(), batch)


def pace(name: str, model: nn.Module, images: Tensor, batch_size: int, rounds: int) -> Pace:
    explainer = bind_method(name, model, batch_size=batch_size, **CASES[name])
    device = images.device
    n_forwards, n_backwards = through_session(explainer, images[:1], None)
    session = seconds(lambda: through_session(explainer, images, OverviewWanted()), device, rounds) / len(images)
    rows = explainer.rows_for(images[0])
    side = CROP_SIDE if name == "ucag" else SIDE
    batch = torch.rand(rows, 3, side, side, device=device).to(memory_format=torch.channels_last)
    both = seconds(lambda: plain_passes(model, batch, True), device, rounds) / rows if n_backwards else 0.0
    forward = seconds(lambda: plain_passes(model, batch, False), device, rounds) / rows
    return Pace(session, (n_forwards - n_backwards) * forward + n_backwards * both, n_forwards, n_backwards)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--model", default="mobilenet_v2")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=list(CASES), choices=list(CASES))
    given = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    model = getattr(torchvision.models, given.model)().eval().to(device, memory_format=torch.channels_last)
    images = torch.rand(given.images, 3, SIDE, SIDE, device=device)
    rows = []
    for name in given.methods:
        result = pace(name, model, images, given.batch_size, given.rounds)
        rows.append(
            (
                name,
                f"{result.forwards} / {result.backwards}",
                f"{1000 * result.session:.1f}",
                f"{1000 * result.plain:.1f}",
                f"{result.plain / result.session:.2f}",
            )
        )
        print(*rows[-1], flush=True)
    write_section(
        "cheap_methods",
        [
            "## Cheap methods beside bare passes",
            "",
            f"{given.images} random images of {SIDE} x {SIDE}, {given.model} with random weights, {device.type}, `python -m bench cheap_methods`: "
            "milliseconds per image of the engine (class list and penultimate features included) and of as many bare passes of the same "
            "network in batches of the same size, backwards to the input. Above 1 where a method's backward ends at a high layer.",
            "",
            *table(("method", "forwards / backwards", "session, ms", "passes, ms", "share of the passes' speed"), rows),
        ],
    )


if __name__ == "__main__":
    main()
