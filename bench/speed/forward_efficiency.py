"""Masks per second of the engine over plain forwards of the same model, batch, precision and memory format.

    python -m bench forward_efficiency [--models mobilenet_v2 ...] [--precisions fp32 bf16] [--batch-size 64] [--images 2] [--mu 0] [--fresh]

While the engine explains whole images through a session, a plain forward of the same shape runs beside every batch of the engine,
before it and after it in turns, so that noise of the machine meets both alike. efficiency = (median over batches of plain time /
engine's forward time) x (share of the engine's time that is forwards); selection by gradients, mask making, aggregation and all
Python are the rest. The last batch, which is padded only because the images end here, is left out; what made its masks is not.
Every cell is stored when done; the same command goes on after an interruption. Networks without weights here get random ones.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import nullcontext
from typing import Any

import torch
from heatlas.engine.methods.sise import SISE
from heatlas.engine.scoring.precision import autocast_dtype
from heatlas.engine.scoring.scoring_options import FORWARDS, ForwardKind
from heatlas.engine.session import ExplainSession
from heatlas.workers.worker.malloc import keep_freed_memory
from torch import Tensor, nn

from ..data_sets import boxed_samples, network, prepared
from ..page_part import table, write_section
from ..records import Records

MODELS = ("mobilenet_v2", "resnet18", "resnet50", "vgg16")
TARGET = {"cpu": 0.92, "cuda": 0.95}


class Beside:
    """Stands in for the scorer's forward: does it, and a plain one beside it, and keeps the times of both."""

    def __init__(self, sise: SISE, plain: Tensor):
        self.real = sise.scorer._forward
        self.model, self.precision, self.plain = sise.model, sise.scorer.precision, plain
        self.own: list[float] = []
        self.beside: list[float] = []
        self.cpu: dict[str, list[float]] = {"own": [], "beside": []}
        sise.scorer._forward = self  # type: ignore[method-assign]

    def __call__(self, inputs: Tensor, targets: Tensor, scenes: Tensor | None) -> Tensor:
        scores = None
        for turn in ("own", "beside") if len(self.own) % 2 else ("beside", "own"):
            sync(inputs.device)
            begun, cpu = time.perf_counter(), time.process_time()
            if turn == "own":
                scores = self.real(inputs, targets, scenes)
            else:
                forward(self.model, self.plain, self.precision)
            sync(inputs.device)
            getattr(self, turn).append(time.perf_counter() - begun)
            self.cpu[turn].append(time.process_time() - cpu)
        assert scores is not None
        return scores


def forward(model: nn.Module, batch: Tensor, precision: str) -> Tensor:
    dtype = autocast_dtype(precision, batch.device)
    with torch.inference_mode(), torch.autocast(batch.device.type, dtype=dtype) if dtype else nullcontext():
        return model(batch)


def sync(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def measure(
    name: str, precision: str, device: str, batch_size: int, images: int, mu: float, kind: ForwardKind
) -> dict[str, Any]:
    """One cell of the table."""
    model = network(name).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    pictures = [prepared(sample).image.to(device) for sample in boxed_samples(images)]
    sise = SISE(model, batch_size=batch_size, precision=precision, mu=mu, forward=kind)
    batch = torch.stack([pictures[0]] * batch_size).to(memory_format=torch.channels_last)
    sise.plan(pictures[0])
    sise.scorer.warm_up(pictures[0])
    sise.layer_masks(pictures[0], None)  # the first backward pass of a process costs more than those of a run
    forward(model, batch, precision)
    beside = Beside(sise, batch)
    session = ExplainSession(sise)
    begun, cpu = time.perf_counter(), time.process_time()
    left = [explanation for key, image in enumerate(pictures) for explanation in session.push(key, image)]
    full = len(beside.own)
    left += session.finish()
    sync(batch.device)
    total = time.perf_counter() - begun - sum(beside.beside) - sum(beside.own[full:])
    cpu_total = time.process_time() - cpu - sum(beside.cpu["beside"]) - sum(beside.cpu["own"][full:])
    own, plain = beside.own[:full], beside.beside[:full]
    ratio = statistics.median(a / b for a, b in zip(plain, own, strict=True))
    share = sum(own) / total
    return {
        "efficiency": ratio * share, "forward_ratio": ratio, "forward_share": share,
        "forward_cpu_share": sum(beside.cpu["own"][:full]) / cpu_total, "masks": full * batch_size,
        "plain_per_second": batch_size / statistics.median(plain),
        "statuses": sorted({explanation.status for explanation in left}),
    }  # fmt: skip


def lines(figures: dict[str, Any]) -> list[str]:
    rows = []
    for key, record in figures.items():
        name, precision, device, batch, stand_in, mu = key.split()
        target = TARGET[device]
        verdict = "yes" if record["efficiency"] >= target else f"**no** ({target:g})"
        rows.append([
            f"{name}{'' if stand_in == '-' else ' ' + stand_in}", precision, device, batch, mu, f"{record['plain_per_second']:.1f}", record["masks"],
            f"{record['forward_ratio']:.3f}", f"{record['forward_share']:.3f}",
            f"{record['forward_cpu_share']:.3f}", f"**{record['efficiency']:.3f}**", verdict,
        ])  # fmt: skip
    head = ("network", "precision", "device", "batch", "mu", "plain forwards/s", "masks", "forward ratio", "share of time in forwards", "of CPU time",
            "efficiency", "target met")  # fmt: skip
    return [
        "## Forward efficiency",
        "",
        "Masks per second of the engine over plain forwards per second of the same model, batch, precision and memory format",
        "(channels_last), `python -m bench forward_efficiency`. A plain forward runs beside every batch of the engine; *forward ratio* is the",
        "median of their times' ratio, *share* is how much of the engine's time is forwards (the rest: the gradient pass, making masks,",
        "aggregation, Python), *efficiency* their product. Rows named `fold_bn` score with folded batch norms against the plain model as it is.",
        "",
        *table(head, rows),
        *([] if torch.cuda.is_available() else ["", "Not measured on a GPU."]),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--devices", nargs="+", default=["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--images", type=int, default=2, help="for each cell")
    parser.add_argument(
        "--mu", type=float, default=0.0, help="fewer masks per image, which is harder: the rest weighs more"
    )
    parser.add_argument("--stand-ins", nargs="+", default=["-"], choices=["-", *FORWARDS[1:]])
    parser.add_argument("--fresh", action="store_true", help="forget earlier cells")
    arguments = parser.parse_args()
    keep_freed_memory()
    records = Records("forward_efficiency", fresh=arguments.fresh)
    for device in arguments.devices:
        for precision in arguments.precisions:
            for name in arguments.models:
                for stand_in in arguments.stand_ins:
                    key = f"{name} {precision} {device} {arguments.batch_size} {stand_in} {arguments.mu:g}"
                    if key not in records:
                        kind = "eager" if stand_in == "-" else stand_in
                        records.add(
                            key,
                            measure(
                                name, precision, device, arguments.batch_size, arguments.images, arguments.mu, kind
                            ),
                        )
    write_section("forward_efficiency", lines(records.found))


if __name__ == "__main__":
    main()
