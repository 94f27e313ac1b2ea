"""How far maps and metrics with bf16 and fp16 forwards are from those with fp32, on real images.

    python -m bench precision [--images 24] [--networks mobilenet_v2 squeezenet1_0] [--precisions bf16] [--mu 0] [--fresh]

Images are taken one after the other through every precision and stored when done; the same command goes on after an interruption,
and a larger --images continues a smaller one.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from heatlas.engine.methods.sise import SISE
from heatlas.engine.metrics.ranking import spearman
from heatlas.engine.session import Explained, ExplainSession
from heatlas.workers.samples import Sample
from heatlas.workers.worker.malloc import keep_freed_memory
from torch import Tensor, nn

from ..data_sets import boxed_samples, network, prepared
from ..page_part import table, write_section
from ..records import Records

METRICS = ("drop_pct", "increase", "ebpg")


def weighted_jaccard(first: Tensor, second: Tensor) -> float:
    """Sum of pixelwise minima over sum of maxima."""
    return float(torch.minimum(first, second).sum() / torch.maximum(first, second).sum())


def explained(model: nn.Module, sample: Sample, precision: str, mu: float, target: int | None) -> Explained:
    result = prepared(sample)
    session = ExplainSession(SISE(model, precision=precision, mu=mu, batch_size=32), METRICS)
    return [*session.push(0, result.image, target=target, truth=result.truth), *session.finish()][0]


def compare(model: nn.Module, sample: Sample, precisions: list[str], mu: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """What each precision says of one image beside fp32, for fp32's class."""
    full = explained(model, sample, "fp32", mu, None)
    for precision in precisions:
        other = explained(model, sample, precision, mu, full.target)
        if full.map is None or other.map is None:
            yield precision, {"status": f"fp32 {full.status}, {precision} {other.status}"}
            continue
        pairs = {name: (full.metrics[name], other.metrics[name]) for name in METRICS}
        yield (
            precision,
            {
                "spearman": float(spearman(full.map.flatten()[None], other.map.flatten()[None])),
                "jaccard": weighted_jaccard(full.map, other.map),
                **{
                    name: None if before is None or after is None else after - before
                    for name, (before, after) in pairs.items()
                },
            },
        )


def lines(figures: dict[str, Any]) -> list[str]:
    cells: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for key, record in figures.items():
        if "spearman" in record:
            cells.setdefault(tuple(key.split(" ", 4)[:4]), []).append(record)
    rows = []
    for (name, precision, mu, device), values in sorted(cells.items()):
        agreement = [np.array([value[key] for value in values]) for key in ("spearman", "jaccard")]
        shifts = [np.array([value[key] for value in values if value[key] is not None]) for key in METRICS]
        rows.append([
            name, precision, mu, device, len(values), *(f"{similarity.mean():.4f} ({similarity.min():.3f})" for similarity in agreement),
            *(f"{shift.mean():+.4f} (sd {shift.std():.3f})" for shift in shifts),
        ])  # fmt: skip
    head = ("network", "precision", "mu", "device", "images", "Spearman, mean (least)", "weighted Jaccard, mean (least)", "Drop %: mean shift", "Increase",
            "EBPG")  # fmt: skip
    return [
        "## Agreement of precisions",
        "",
        "The same images with bf16 and fp16 forwards beside fp32, for the class that fp32 predicts; `python -m bench precision`. The gradient",
        "pass is fp32 in all. A shift is the metric's value in the lower precision minus that in fp32, which also holds what the metric's own",
        "forwards lose. Boxed ImageNet validation images; weighted Jaccard is the sum of pixelwise minima over the sum of maxima.",
        "",
        *table(head, rows),
        *([] if torch.cuda.is_available() else ["", "Not measured on a GPU."]),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--networks", nargs="+", default=["mobilenet_v2", "squeezenet1_0"])
    parser.add_argument("--precisions", nargs="+", default=["bf16"])
    parser.add_argument("--mu", type=float, default=0.0)
    parser.add_argument("--fresh", action="store_true", help="forget earlier images")
    arguments = parser.parse_args()
    keep_freed_memory()
    records = Records("precision", fresh=arguments.fresh)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    models = {
        name: network(name).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        for name in arguments.networks
    }
    for sample in boxed_samples(arguments.images):
        for name, model in models.items():
            keys = {
                precision: f"{name} {precision} {arguments.mu:g} {device} {sample.id}"
                for precision in arguments.precisions
            }
            missing = [precision for precision, key in keys.items() if key not in records]
            for precision, values in compare(model, sample, missing, arguments.mu) if missing else ():
                records.add(keys[precision], values)
    write_section("precision", lines(records.found))


if __name__ == "__main__":
    main()
