"""Choose a method, export to int8, narrate: classification and segmentation of shapes and tiles; writes a part of docs/edge.md.

    python -m bench edge_loop [--out bench-out/edge] [--only shapes-classification ...] [--count 60] [--masks 128]

Four small networks (284 thousand to 350 thousand parameters, 96 x 96 pixels): classification and segmentation, of the demo's generated shapes and of magnetic tiles
(left out where these are not on the machine). For each: methods are tried on a stratified sample and one is chosen; the test images are explained with it; the
model is exported to int8 and its explanations are compared with the original's on the same masks; 20 rows are put into words. Networks, stores and trials that are
there already are used again.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import heatlas
import torch
from heatlas.pipeline.choose.choose import choose_by_trial
from heatlas.pipeline.demo.dataset import write_dataset
from heatlas.pipeline.edge.edge_model import export_edge
from heatlas.pipeline.narrate.narrate import narrate_store
from heatlas.pipeline.narrate.vision_hook import TEMPLATE

from ..data_sets import DATA
from ..page_part import DOCS, circumstances, table, write_part
from .edge_networks import shape_data, tile_data, train

TILES = DATA / "magnetic_tile"
METHODS = ("grad_cam", "layer_cam", "score_cam", "lafam")
NARRATED = 20
DENSE = ("outside_context", "context_class", "context_share")
MOST_BYTES, MOST_POINTS = 0.30, 1.0
"""What must hold: int8 bytes as a share of float32's, and points of accuracy or mean IoU lost."""


@dataclass(frozen=True)
class Task:
    """A network over a data set."""

    name: str
    model: Callable[[], str]
    """Names it, and trains it where it is not there."""
    data: Path
    metrics: tuple[str, ...]
    """Beside EBPG."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench-out/edge"))
    parser.add_argument("--only", nargs="+", help="tasks, such as tiles-segmentation")
    parser.add_argument("--count", type=int, default=60, help="images measured")
    parser.add_argument("--masks", type=int, default=128)
    parser.add_argument("--trial", type=int, default=24, help="images to choose the method on")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    done = {
        task.name: record_of(task, arguments)
        for task in tasks(arguments.out, arguments.count)
        if not arguments.only or task.name in arguments.only
    }
    missing = [name for name, record in done.items() if not record["holds"]]
    write_part(DOCS / "edge.md", "edge_loop", page_text(done, arguments.masks))
    print(json.dumps(done, indent=1))
    raise SystemExit(f"does not hold: {', '.join(missing)}" if missing else 0)


def tasks(out: Path, count: int) -> list[Task]:
    """What is there to be done; networks are trained where they are not there yet."""
    shapes = out / f"shapes-{2 * count}"
    if not (shapes / "manifest.csv").exists():
        write_dataset(shapes, "test", 2 * count, marking="never")
    made = [
        Task("shapes-classification", lambda: "heatlas.pipeline.demo.network:demo_model", shapes / "manifest.csv", ()),
        Task(
            "shapes-segmentation",
            lambda: trained("shape_segmenter", out, 8, lambda: shape_data(1200)),
            shapes / "manifest.csv",
            DENSE,
        ),
    ]
    if TILES.exists():
        learned, held_out = split_tiles(out)

        def of_pixels() -> tuple[torch.Tensor, torch.Tensor]:
            return tile_data(learned)

        def of_tiles() -> tuple[torch.Tensor, torch.Tensor]:
            images, pixels = tile_data(learned)
            return images, pixels.flatten(1).any(dim=1).long()

        made += [
            Task("tiles-classification", lambda: trained("tile_classifier", out, 30, of_tiles), held_out, ()),
            Task("tiles-segmentation", lambda: trained("tile_segmenter", out, 80, of_pixels), held_out, DENSE),
        ]
    else:
        print(f"no tiles in {TILES}; BENCH_DATA names another folder")
    return made


def split_tiles(out: Path) -> tuple[list[tuple[Path, Path]], Path]:
    """Every second tile to learn from, and a manifest of the others."""
    with (TILES / "labels.csv").open() as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["file"])
    files = [(TILES / row["file"], TILES / row["mask"]) for row in rows]
    held_out = out / "tiles.csv"
    with held_out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "uri", "mask", "label"])
        for row, (image, mask) in list(zip(rows, files, strict=True))[1::2]:
            writer.writerow([image.stem, image, mask, "free" if row["class_name"] == "Free" else "defect"])
    return files[::2], held_out


def trained(name: str, out: Path, epochs: int, data: Any) -> str:
    """The model's name, its weights made where they are not there."""
    path = out / f"{name}.safetensors"
    if not path.exists():
        begun = time.perf_counter()
        images, targets = data()
        train(name, images, targets, epochs=epochs, path=path)
        print(f"trained {name} on {len(images)} images in {time.perf_counter() - begun:.0f} s", flush=True)
    return f"bench.accuracy.edge_networks:{name}@{path}"


def record_of(task: Task, arguments: argparse.Namespace) -> dict[str, Any]:
    """Choose, explain, export, narrate."""
    model = task.model()
    begun, place = time.perf_counter(), arguments.out / task.name
    settings: dict[str, Any] = {"model": model, "data": str(task.data), "workers": 0}
    chosen = choose_by_trial(settings, METHODS, place / "trial", count=arguments.trial)
    store = place / chosen.choice.method
    heatlas.explain_dataset(
        **settings, out=store, method=chosen.choice.method, metrics=("ebpg", *task.metrics), chance_maps=0
    )
    calibration = 32 if "shapes" in task.name else 16
    report = export_edge(store, place / "edge", calibration=calibration, count=arguments.count, masks=arguments.masks)
    narrated = narrate_store(store, limit=NARRATED)
    facts = report.facts
    lost = -100 * facts["change"]["mean"]
    grounded = narrated.statuses().get(TEMPLATE, 0)
    holds = facts["size_share"] < MOST_BYTES and lost <= MOST_POINTS and grounded == len(narrated.rows) == NARRATED
    names = ("images", "labelled", "parameters", "float_bytes", "int8_bytes", "size_share", "latency", "accuracy", "change", "agreement", "noise", "noise_floor_iou", "drifted", "same_prediction", "d_ebpg")  # fmt: skip
    record = {
        "method": chosen.choice.method, "reason": chosen.choice.reason, "grounded": f"{grounded} of {len(narrated.rows)}", "holds": holds,
        "text": narrated.rows["text"][0].as_py(), "seconds": round(time.perf_counter() - begun), **{name: facts.get(name) for name in names},
    }  # fmt: skip
    print(task.name, record["seconds"], "s", flush=True)
    return record


def page_text(done: dict[str, dict[str, Any]], masks: int) -> str:
    """The tables."""
    size = table(
        ["network", "chosen", "float32 -> int8", "share", "latency, float32 -> int8", "accuracy or mean IoU", "change in points (95 %)", "narrated, grounded"],
        (
            [name, f"`{record['method']}`", f"{record['float_bytes'] / 1e3:.0f} -> {record['int8_bytes'] / 1e3:.0f} kB", f"{100 * record['size_share']:.1f} %",
             f"{1e3 * record['latency']['float']['median']:.2f} -> {1e3 * record['latency']['int8']['median']:.2f} ms (p95 {1e3 * record['latency']['int8']['p95']:.2f})",
             f"{percent(record['accuracy']['base'])} -> {percent(record['accuracy']['edge'])}",
             f"{100 * record['change']['mean']:+.1f} ({100 * record['change']['interval'][0]:+.1f} to {100 * record['change']['interval'][1]:+.1f})", record["grounded"]]
            for name, record in done.items()
        ),
    )  # fmt: skip
    drift = table(
        ["network", "images", "same prediction", "IoU, same masks", "IoU, noise", "noise floor", "rank correlation", "its noise", "mass moved", "its noise", "drifted"],
        (
            [name, record["images"], record["same_prediction"], *(number(record[part]["iou"]) for part in ("agreement", "noise")), number(record["noise_floor_iou"]),
             *(number(record[part][column]) for column in ("spearman", "wasserstein") for part in ("agreement", "noise")), f"{record['drifted']} of {record['images']}"]
            for name, record in done.items()
        ),
    )  # fmt: skip
    texts = [f"- {name}: {record['text']}" for name, record in done.items()]
    minutes = ", ".join(f"{name} {record['seconds'] / 60:.1f}" for name, record in done.items())
    reasons = [f"- {name}: {record['reason']}" for name, record in done.items()]
    return "\n".join([
        *size, "", f"Explanations of both from the same {masks} masks, beside the original's own under other masks:", "", *drift, "",
        "Why the method was chosen:", "", *reasons, "", "The first row of each, in words:", "", *texts, "",
        f"Minutes: {minutes}, training apart. " + circumstances(("onnxruntime",)),
    ])  # fmt: skip


def percent(share: dict[str, Any]) -> str:
    low, high = (100 * end for end in share["interval"])
    return f"{100 * share['mean']:.1f} % ({low:.1f} to {high:.1f})"


def number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    main()
