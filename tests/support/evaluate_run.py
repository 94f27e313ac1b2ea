"""Explain and evaluate a small folder of images."""

from __future__ import annotations

import pathlib

from heatlas.engine.metrics import METRICS
from heatlas.pipeline.cli.app import main

from ..support.tiny_run import command

COUNT = 13


BAD = "bee/004.png"


DEAR = ("coherency", "adcc", "max_sensitivity")


CHEAP = [name for name, metric in METRICS.items() if not metric.layers and name not in DEAR and not metric.dense]


FULL_SIZE = ("--store.map-size", "input", "--store.no-map-png")


def explain(folder: pathlib.Path, out: pathlib.Path, *more: str) -> int:
    return main(command(folder / "data.jsonl", out, *FULL_SIZE, "--chance-maps", "0", *more))


def evaluate(out: pathlib.Path, *metrics: str, workers: int = 0, more: tuple[str, ...] = ()) -> int:
    return main(["evaluate", str(out), "--metrics", *metrics, "--workers", str(workers), *more])
