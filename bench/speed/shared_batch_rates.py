"""Our Score-CAM and RISE, several images sharing mask batches, beside the peers' Score-CAM, at the same number of masks per image."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from heatlas.engine.explainer import Explainer
from heatlas.engine.layers.blocks import block_layers
from heatlas.engine.methods.registry import bind_method
from heatlas.engine.scoring.scoring_options import Scoring
from heatlas.workers.worker.malloc import keep_freed_memory, return_freed_memory
from torch import Tensor, nn

from ..data_sets import boxed_samples, network, prepared
from ..page_part import table
from ..records import Records
from .peers import RUNS

SCORE_CAMS = ("pytorch-grad-cam ScoreCAM", "torchcam ScoreCAM")
BATCH = 32


def score_cams(name: str, count: int, layer: str | None, rounds: int, records: Records) -> None:
    """Masks per second over the same images, in turns."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    plain, fast = network(name).to(device), network(name).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.stack([prepared(sample).image for sample in boxed_samples(count)]).to(device)
    plan = block_layers(plain, images[:1], layers=None if layer is None else [layer])
    with torch.no_grad():
        targets = plain(images).argmax(dim=1).tolist()
    last, masks = plan[-1].name, plan[-1].channels
    runs: dict[str, Callable[[], int]] = {}
    for precision in ("fp32", "bf16"):
        scoring = Scoring(batch_size=BATCH, precision=precision, forward="fold_bn")
        for method, settings in (("score_cam", {"layer": last}), ("rise", {"masks": masks})):
            made = warmed(method, fast, scoring, images, targets, **settings)
            runs[f"heatlas {method} {precision}"] = partial(ours, made, images, targets)
    for peer in SCORE_CAMS:
        for tuned in (False, True):
            model = fast if tuned else plain
            runs[f"{peer}{' tuned' if tuned else ''}"] = partial(theirs, peer, tuned, model, last, images, targets)
    for number in range(rounds):
        key = f"score_cam|{name}|{last}|{count}|{number}"
        if key in records:
            continue
        turn = 3 * number % len(runs)  # so that nobody always comes first
        rates = {label: rate(label, runs[label], device) for label in [*list(runs)[turn:], *list(runs)[:turn]]}
        records.add(key, {label: rates[label] for label in runs})


def rate(label: str, run: Callable[[], int], device: str) -> dict[str, float]:
    """Masks per second, in a process that keeps freed memory but for the peers as their users run them."""
    (keep_freed_memory if label.startswith("heatlas") or label.endswith("tuned") else return_freed_memory)()
    begun = time.perf_counter()
    masks = run()
    if device == "cuda":
        torch.cuda.synchronize()
    return {"masks": masks, "rate": masks / (time.perf_counter() - begun)}


def warmed(
    name: str, model: nn.Module, scoring: Scoring, images: Tensor, targets: list[int], **settings: Any
) -> Explainer:
    """A method that has traced and folded its model, as it has after the first image of a run."""
    method = bind_method(name, model, scoring=scoring, **settings)
    method.explain(images[:1], targets[:1])
    return method


def ours(method: Explainer, images: Tensor, targets: list[int]) -> int:
    return sum(method.explain(images, targets).n_forwards) - len(images)


def theirs(peer: str, tuned: bool, model: nn.Module, layer: str, images: Tensor, targets: list[int]) -> int:
    """One image after the other, as the libraries take them with a class each."""
    with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=tuned):
        return sum(
            RUNS[peer](model, layer, image, target, None, BATCH)[1]
            for image, target in zip(images, targets, strict=True)
        )


def score_cam_lines(figures: dict[str, Any]) -> list[str]:
    """The section's tables."""
    out = []
    for name, layer, count in dict.fromkeys(
        tuple(key.split("|")[1:4]) for key in figures if key.startswith("score_cam|")
    ):
        rounds = [record for key, record in figures.items() if key.startswith(f"score_cam|{name}|{layer}|{count}|")]
        rows = []
        for label in rounds[0]:
            ratios = [round_[label]["rate"] / max(round_[peer]["rate"] for peer in SCORE_CAMS) for round_ in rounds]
            tuned = [
                round_[label]["rate"] / max(round_[f"{peer} tuned"]["rate"] for peer in SCORE_CAMS) for round_ in rounds
            ]
            rate = statistics.median(round_[label]["rate"] for round_ in rounds)
            rows.append(
                [
                    label,
                    f"{rounds[0][label]['masks']:.0f}",
                    f"{rate:.1f}",
                    f"{statistics.median(ratios):.2f}",
                    f"{statistics.median(tuned):.2f}",
                ]
            )
        out += ["", f"### Score-CAM and RISE, {name}, {count} images, layer {layer}", "",
                f"Ours with `fold_bn`, all images in shared batches of {BATCH}; medians of {len(rounds)} rounds in turns. Maps that are the same everywhere are no",
                "masks here; the peers score them.", "",
                *table(("method", "masks in all", "masks/s", "x the best peer", "x the best tuned peer"), rows)]  # fmt: skip
    return out
