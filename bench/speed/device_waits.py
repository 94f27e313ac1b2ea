"""How often the host waits for the device while an image is explained and measured, and how many operations it launches.

    python -m bench device_waits

Counted on a CPU with the demo's network: reads of single numbers (`.item()`, `bool()`, `float()`), selections whose size is known only
afterwards (`nonzero`, indexing by a mask) and operations of all kinds. On an accelerator each of the first two stalls the queue, and each
operation is a launch.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from heatlas.engine.methods.registry import bind_method
from heatlas.engine.metrics import spelt_out
from heatlas.engine.session import ExplainSession
from heatlas.pipeline.demo.network import demo_model

from ..page_part import table, write_section
from .device_operations import Operations

CASES = (("grad_cam", ""), ("grad_cam", "paper"), ("rise", ""), ("sise", ""), ("sise", "standard"))
OPTIONS: dict[str, dict[str, Any]] = {"rise": {"masks": 64}}
IMAGES = 8
BEFORE = ("7.0, 58", "11.0, 136", "6.0, 257", "23.0, 883", "31.0, 1,685")
"""Waits and operations of the same cases as this script counted them at commit 25ce3b2, before facts of rows were read in one piece."""


def counted(method: str, metrics: str) -> tuple[float, float]:
    """Waits and operations of one image, the model's own passes included."""
    images = torch.rand(IMAGES, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    explainer = bind_method(method, demo_model().eval(), batch_size=64, **OPTIONS.get(method, {}))
    session = ExplainSession(explainer, spelt_out([metrics] if metrics else []))
    session.push(0, images[0])
    session.finish()  # plans its layers
    with Operations() as operations:
        for key, image in enumerate(images):
            session.push(key, image)
        session.finish()
    return sum(operations.waits.values()) / IMAGES, operations.launched / IMAGES


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    rows = []
    for (method, metrics), before in zip(CASES, BEFORE, strict=True):
        waits, operations = counted(method, metrics)
        rows.append((method, metrics or "none", f"{waits:.1f}", f"{operations:,.0f}", before))
        print(*rows[-1])
    write_section(
        "device_waits",
        [
            "## Waits for the device",
            "",
            "Per image, counted on a CPU with the demo's network (56 x 56, batches of 64), `python -m bench device_waits`. A wait is a read of a "
            "single number or a selection whose size is known only afterwards; SISE's are the choice of channels, made on the host from "
            "numbers that one read per image brings there. Reads in one piece (one or two per image and one for its metrics) come on top.",
            "",
            *table(("method", "metrics", "waits", "operations", "before (waits, operations)"), rows),
        ],
    )


if __name__ == "__main__":
    main()
