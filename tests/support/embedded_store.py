"""Writes a small store with what the view links: features, maps of blocks, and a manifest that marks objects by boxes or a mask."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from heatlas.pipeline.shards import plan_shards
from heatlas.pipeline.store.committed_shards import row_totals
from heatlas.pipeline.store.parquet_sink import ParquetSink
from heatlas.pipeline.store.run_file import claim_run
from heatlas.pipeline.store.schema import MethodColumn
from heatlas.pipeline.store.success_file import write_success
from PIL import Image

from .reported_store import LAYOUT, PREPROCESS
from .reported_store import row as reported_row

BLOCKS = (2, 4, 4)
FEATURES = 6
BOX, MASKED = (0.0, 0.0, 15.0, 10.0), 3
"""Box of every image in its 30 x 20 pixels, and the number of the image that has a mask instead: its right half."""
COLUMNS = (MethodColumn("block_maps", BLOCKS, "map of every block"),)
EMBEDDED_LAYOUT = replace(LAYOUT, method_columns=COLUMNS, feature_width=FEATURES)


def write_embedded(out: Path, folder: Path, count: int = 40, *, data: str | None = None) -> Path:
    """A store at `out` over `folder/data.jsonl`, which marks an object in every image but the last.

    Args:
        out: Of the store.
        folder: Of images and manifest.
        count: Images.
        data: How the run names the manifest; None for its whole path.
    """
    folder.mkdir(parents=True)
    mask = np.zeros((20, 30), np.uint8)
    mask[:, 15:] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    plan, manifest = plan_shards(count, 9), folder / "data.jsonl"
    claim_run(
        str(out),
        {
            "plan": {"samples": count, "shards": len(plan), "digest": "d"},
            "preprocess": asdict(PREPROCESS),
            "method": "sise",
        },
        {"model": "nowhere_at_all:model", "data": data or str(manifest), "seed": 0},
    )
    lines = []
    for shard in plan:
        rows = []
        for number in range(shard.start, shard.stop):
            row = reported_row(folder, number, f"image-{number:04d}")
            mark = {"mask": "mask.png"} if number == MASKED else {"boxes": [list(BOX)]} if number < count - 1 else {}
            lines.append({"id": row.sample.id, "uri": f"{number:03d}.png", "label": row.sample.label, **mark})
            if row.status == "ok":
                row.features = features_of(number)
                row.extras = {"block_maps": blocks_of(number)}
            rows.append(row)
        assert ParquetSink(str(out), EMBEDDED_LAYOUT).commit(shard, rows)
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_success(str(out), row_totals(str(out)))
    return out


def features_of(number: int) -> np.ndarray:
    """Images of one class lie together."""
    random = np.random.default_rng(number)
    return (np.eye(3, FEATURES)[number % 3] * 4 + random.uniform(0, 1, FEATURES)).astype(np.float32)


def blocks_of(number: int) -> np.ndarray:
    values = np.zeros(BLOCKS, np.float32)
    values[0, 0, 0], values[1, 3, 3] = 0.5, 1.0 + number
    return values
