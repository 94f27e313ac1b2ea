"""How much a map differs from itself when only last bits change: the same image, class and settings, computed a little differently.

    python -m bench noise_floor [--images 4] [--network mobilenet_v2] [--mu 0.3]

No agreement of one way of explaining with another can be better than this. Real images, SISE; needs the evaluation data.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from heatlas.engine.methods.sise import SISE
from heatlas.engine.metrics.ranking import spearman
from heatlas.workers.training.agreement import weighted_jaccard
from heatlas.workers.worker.malloc import keep_freed_memory
from torch import Tensor, nn

from ..data_sets import boxed_samples, network, prepared
from ..page_part import table, write_section

BATCH = 32
Variant = tuple[str, dict[str, Any], int]
"""Name, options of the scorer, threads."""


def variants(device: str) -> list[Variant]:
    """What is compared with fp32, eager, batches of 32 and one thread."""
    cases: list[Variant] = [
        ("fp32 again", {}, 1),
        ("fp32, batches of 8", {"batch_size": 8}, 1),
        ("fp32, batch norms folded", {"forward": "fold_bn"}, 1),
        ("fp32, 2 threads", {}, 2),
        ("bf16 masked forwards", {"precision": "bf16"}, 1),
    ]
    return [*cases, ("TF32 masked forwards", {"precision": "tf32"}, 1)] if device == "cuda" else cases


def explained(model: nn.Module, image: Tensor, mu: float, options: dict[str, Any], threads: int) -> Tensor | None:
    """The map of the predicted class; None where there is none."""
    torch.set_num_threads(threads)
    result = SISE(model, mu=mu, **{"batch_size": BATCH, **options})(image[None])
    return result.maps[0].cpu() if result.statuses == ["ok"] else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--network", default="mobilenet_v2")
    parser.add_argument("--mu", type=float, default=0.3)
    given = parser.parse_args()
    keep_freed_memory()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = network(given.network).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    seen: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for sample in boxed_samples(given.images):
        image = prepared(sample).image.to(device)
        own = explained(model, image, given.mu, {}, 1)
        for name, options, threads in variants(device) if own is not None else ():
            other = explained(model, image, given.mu, options, threads)
            if own is None or other is None:
                continue
            pair = own[None], other[None]
            ranks = float(spearman(pair[0].flatten(1), pair[1].flatten(1)))
            seen[name].append((float(weighted_jaccard(*pair)), ranks, float((own - other).abs().max())))
            print(name, *(f"{value:.4f}" for value in seen[name][-1]), flush=True)
    rows = []
    for name, values in seen.items():
        jaccard, ranks, apart = np.array(values).T
        rows.append(
            (name, len(values), f"{jaccard.mean():.4f} ({jaccard.min():.3f})", f"{ranks.mean():.4f} ({ranks.min():.3f})", f"{apart.max():.3g}")
        )  # fmt: skip
    head = (
        "computed as",
        "images",
        "weighted Jaccard, mean (least)",
        "Spearman, mean (least)",
        "largest difference of a pixel",
    )
    write_section(
        "noise_floor",
        [
            "## The noise floor",
            "",
            f"A map against itself: the same image and class by SISE, mu = {given.mu:g}, {given.network} on {device}, against fp32, eager, batches of {BATCH}, one "
            "thread; `python -m bench noise_floor`. The gradient pass is fp32 in all, so the same maps are selected; what is left are gates whose threshold a "
            "pixel crosses by a last bit. No agreement in the other tables can be better than this.",
            "",
            *table(head, rows),
            *([] if device == "cuda" else ["", "Not measured on a GPU, so without TF32."]),
        ],
    )


if __name__ == "__main__":
    main()
