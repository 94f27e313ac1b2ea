"""Writes a small store as `heatlas report` meets them: labels, truth, chance baselines, errors, images that are there or gone, hostile names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from heatlas.pipeline.shards import plan_shards
from heatlas.pipeline.store.committed_shards import row_totals
from heatlas.pipeline.store.parquet_sink import ParquetSink
from heatlas.pipeline.store.run_file import claim_run
from heatlas.pipeline.store.schema import StoreLayout
from heatlas.pipeline.store.success_file import write_success
from heatlas.workers.images.preprocess import Preprocess
from heatlas.workers.samples import Row, Sample
from PIL import Image

SIDE = 24
PREPROCESS = Preprocess(size=(SIDE, SIDE), resize="squash")
HOSTILE_CLASS = "<script>complain('class')</script>"
CLASSES = ("ant", HOSTILE_CLASS, "cat\u202etac")
HOSTILE_IDS = (
    "<img src=x onerror=complain('id')>.png",
    "\"'><svg onload=complain(1)>",
    "</script><script>complain(2)</script>",
    "\u202egnp.exe",
    "{{ 7 * 7 }}{% raw %}",
    "tab\there\x1b[2J",
    "שלום/صورة.png",
)
METRICS = {"ebpg": "higher", "drop_pct": "lower", "border_share": "neither", "n_components": "neither"}
LAYOUT = StoreLayout(
    (SIDE, SIDE), metrics=tuple(METRICS), chance_metrics=("ebpg", "drop_pct"), map_size=8,
    metadata={
        "class_names": list(CLASSES),
        "metrics": {
            name: {"definition": f"{name}/v1", "unit": "1", "better": better, "range": [0.0, "inf"], "formula": "a < b"}
            for name, better in METRICS.items()
        },
        "provenance": {"model": "nowhere:model"},
    },
)  # fmt: skip


def looking(at_object: bool) -> np.ndarray:
    """A map with its mass in the middle, or in the lower left corner."""
    map_ = np.zeros((SIDE, SIDE), np.float32)
    map_[8:16, 8:16] = 1.0 if at_object else 0.0
    map_[18:, :6] = 0.0 if at_object else 1.0
    return map_


def row(folder: Path, number: int, identity: str) -> Row:
    """Class 1 looks at the corner and is right; some of class 2 are taken for class 0; every 20th fails."""
    label = number % 3
    path = folder / f"{number:03d}.png"
    Image.new("RGB", (30, 20), (200, number % 256, 40)).save(path)
    sample = Sample(identity, str(path), label)
    if number % 20 == 19:
        return Row(sample, "decode_error", f"<b>cannot</b> decode {path} at byte {number}", seconds=0.1)
    prediction = (label + 1) % 3 if number % 9 == 5 else label
    aside = label == 1
    values = {"ebpg": 0.02 if aside else 0.6, "drop_pct": float(number), "border_share": 0.9 if aside else 0.1,
              "n_components": float(1 + number % 3)}  # fmt: skip
    chance = (
        {"random": {"ebpg": 0.1, "drop_pct": 90.0}, "gaussian": {"ebpg": 0.2, "drop_pct": 80.0}}
        if number < 12
        else None
    )
    return Row(
        sample, "ok", height=20, width=30, prediction=prediction, target=prediction, confidence=0.5 + number / 1000, logit=2.0,
        map=looking(not aside), metrics=values, mask_counts=(3,), n_forwards=5, seconds=0.1, device="cpu", chance=chance,
    )  # fmt: skip


def write_reported(
    out: Path,
    folder: Path,
    count: int = 60,
    *,
    both: bool = False,
    layout: StoreLayout = LAYOUT,
    data_root: Path | None = None,
    shards: int | None = None,
) -> Path:
    """A store at `out` whose images lie in `folder`.

    Args:
        out: Of the store.
        folder: Of the images.
        count: Images; the first have the hostile ids.
        both: Whether wrong images have a second row, for their label.
        layout: Of the files.
        shards: How many of the planned shards are stored; None for all, with the run concluded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ids = [HOSTILE_IDS[number] if number < len(HOSTILE_IDS) else f"image-{number:04d}" for number in range(count)]
    plan = plan_shards(count, 7)
    claim_run(
        str(out),
        {
            "plan": {"samples": count, "shards": len(plan), "digest": "d"},
            "preprocess": asdict(PREPROCESS),
            "method": "sise",
            **({} if data_root is None else {"data_root": str(data_root)}),
        },
        {"model": "nowhere_at_all:model", "data": str(folder), "sise": {"mu": 0.0}, "seed": 0},
    )
    for shard in plan[:shards]:
        rows = [row(folder, number, ids[number]) for number in range(shard.start, shard.stop)]
        if both:
            rows += label_rows(rows)
        assert ParquetSink(str(out), layout).commit(shard, rows)
    if shards is None:
        write_success(str(out), row_totals(str(out)))
    return out


def label_rows(rows: Sequence[Row]) -> list[Row]:
    """Rows that explain the label where the prediction is another class."""
    wrong = [entry for entry in rows if entry.status == "ok" and entry.prediction != entry.sample.label]
    return [replace(entry, target=entry.sample.label, confidence=0.1, chance=None) for entry in wrong]
