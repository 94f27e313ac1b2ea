"""A small store to export, with hostile ids and class names."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.settings.load import load_settings
from heatlas.pipeline.settings.run import describe
from heatlas.pipeline.store.parquet_sink import ParquetSink
from heatlas.pipeline.store.run_file import claim_run
from heatlas.pipeline.store.schema import StoreLayout
from heatlas.workers.images.preprocess import Preprocess
from heatlas.workers.samples import Row, Sample, Shard
from PIL import Image

NAMES = ("=1+1", '<b>a,b"c', "-cat")


SIZE = (24, 32)


PREPROCESS = Preprocess(size=SIZE)


IDS = ["../../../etc/passwd", "/abs/olute.png", "=cmd|' /C calc'!A0", "@sum(1)", "A.png", "a.png", "a/b.png", "a_b.png", "con", "x" * 300,
       "line\nbreak", "\u202egnp.exe", "<script>alert(1)</script>", "\uff1d1", "-1", "ä ö"]  # fmt: skip


BROKEN, GONE = "con", "x" * 300


LAYOUT = StoreLayout(
    SIZE, metrics=("drop_pct", "ebpg"), map_size=16, extra=(("=odd name", "string"), ("n", "int64"), ("ratio", "double")),
    metadata={"class_names": list(NAMES), "metrics": {"ebpg": {"definition": "ebpg/v1"}, "drop_pct": {"definition": "drop_pct/v1"}}},
)  # fmt: skip


def claim(out: Path, *, classes: tuple[str, ...] = NAMES, score: str | None = None) -> None:
    settings = describe(load_settings({"model": "tiny:model", "data": "photos", "out": str(out)}))
    fingerprint = {"plan": {"samples": 1, "shards": 1, "digest": "d"}, "preprocess": asdict(PREPROCESS)}
    claim_run(str(out), fingerprint, {**settings, **({"score": score} if score else {})})


def map_at(row: int, column: int) -> np.ndarray:
    """A block of 8x8 at its place."""
    map_ = np.zeros(SIZE, np.float32)
    map_[row : row + 8, column : column + 8] = 1
    return map_


def write_store(folder: Path) -> Path:
    """Images 60x40; one broken, one gone since, and the first one explained for its label too."""
    rows = []
    for number, identity in enumerate(sorted(IDS)):
        place = folder / f"{number}.png"
        Image.fromarray(np.full((40, 60, 3), 10 * number, np.uint8)).save(place)
        extra = (("=odd name", "=2*3"), ("n", number), ("ratio", float("nan") if number else 0.5))
        sample = Sample(identity, str(place), number % 3, extra=extra)
        if identity == BROKEN:
            rows.append(Row(sample, "decode_error", "=no image", seconds=0.1))
            continue
        facts = {"height": 40, "width": 60, "prediction": 1, "target": 1, "confidence": 0.75, "logit": -1.5, "map": map_at(8, 16),
                 "metrics": {"drop_pct": -2.5, "ebpg": None}, "mask_counts": (1, 2), "n_forwards": 5, "device": "cpu"}  # fmt: skip
        rows.append(Row(sample, "ok", **facts))
        if number == 0:
            rows.append(Row(sample, "ok", **{**facts, "target": 0, "confidence": 0.2, "map": map_at(0, 0)}))
    claim(folder / "out")
    assert ParquetSink(str(folder / "out"), LAYOUT).commit(Shard(0, 0, 8), rows[:9])
    assert ParquetSink(str(folder / "out"), LAYOUT).commit(Shard(1, 8, 16), rows[9:])
    (folder / f"{sorted(IDS).index(GONE)}.png").unlink()
    return folder / "out"


def export(store, to, place, *more) -> int:
    return main(["export", str(store), "--format", to, "--out", str(place), *map(str, more)])
