"""Peak memory against batch size and number of maps, each cell in a process of its own.

    python -m bench memory [--batch-sizes 8 16 32 64] [--mus 0.9 0.5 0.3 0] [--images 1 3] [--fresh]

The engine must not hold masks beyond a batch, so the peak may grow with the batch and not with the number of masks or images.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from typing import Any

import torch
from heatlas.engine.methods.sise import SISE
from heatlas.engine.session import ExplainSession
from heatlas.workers.worker.malloc import keep_freed_memory

from ..data_sets import boxed_samples, network, prepared
from ..page_part import table, write_section
from ..records import Records

NETWORK = "mobilenet_v2"


def cell(batch_size: int, mu: float, images: int, precision: str) -> dict[str, Any]:
    """Peak of this process in MiB: after one plain forward of the batch, and after explaining."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = network(NETWORK).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    keep_freed_memory()
    pictures = [prepared(sample).image for sample in boxed_samples(images)]
    with torch.inference_mode(), torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16"):
        model(torch.zeros(batch_size, 3, 224, 224, device=device).to(memory_format=torch.channels_last))
    plain = peak()
    session = ExplainSession(SISE(model, mu=mu, batch_size=batch_size, precision=precision))
    result = [
        explanation for key, image in enumerate(pictures) for explanation in session.push(key, image)
    ] + session.finish()
    return {
        "masks": sum(sum(record.mask_counts) for record in result),
        "plain": plain,
        "engine": peak(),
        "device": device_peak(),
    }


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def device_peak() -> float | None:
    return torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None


def in_a_process(batch_size: int, mu: float, images: int, precision: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench", "memory", "--cell", json.dumps([batch_size, mu, images, precision])]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def lines(figures: dict[str, Any]) -> list[str]:
    rows = []
    for key, record in sorted(figures.items(), key=lambda item: (int(item[0].split()[0]), item[1]["masks"])):
        batch, _, images, precision = key.split()
        device = [] if record["device"] is None else [f"{record['device']:.0f}"]
        rows.append([batch, images, record["masks"], precision, f"{record['plain']:.0f}", f"{record['engine']:.0f}", f"{record['engine'] - record['plain']:+.0f}", *device])  # fmt: skip
    head = [
        "batch",
        "images",
        "masks",
        "precision",
        "peak RSS after one plain forward, MiB",
        "after the engine, MiB",
        "difference",
    ]
    head += ["peak device memory, MiB"] if any(record["device"] is not None for record in figures.values()) else []
    return [
        "## Memory",
        "",
        f"Peak resident memory of a process with {NETWORK} at 224 x 224, Python and torch included, `python -m bench memory`. Masks are varied",
        "by mu and by the number of images that go through one session. What the engine adds to a plain forward of the same batch is the",
        "batch's input buffer and masks, and the gradient pass of one image.",
        "",
        *table(head, rows),
        *([] if torch.cuda.is_available() else ["", "Not measured on a GPU."]),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--mus", type=float, nargs="+", default=[0.9, 0.5, 0.0])
    parser.add_argument("--images", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--precision", default="bf16", choices=["fp32", "bf16"])
    parser.add_argument("--fresh", action="store_true", help="forget earlier cells")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cell:
        print(json.dumps(cell(*json.loads(arguments.cell))))
        return
    records = Records("memory", fresh=arguments.fresh)
    few, middle = min(arguments.images), sorted(arguments.batch_sizes)[len(arguments.batch_sizes) // 2]
    cells = [(batch, max(arguments.mus), few) for batch in arguments.batch_sizes]
    cells += [(middle, mu, images) for images in arguments.images for mu in arguments.mus]
    for batch, mu, images in dict.fromkeys(cells):
        key = f"{batch} {mu:g} {images} {arguments.precision}"
        if key not in records:
            records.add(key, in_a_process(batch, mu, images, arguments.precision))
    write_section("memory", lines(records.found))


if __name__ == "__main__":
    main()
