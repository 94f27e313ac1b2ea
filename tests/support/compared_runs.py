"""Small stores to compare."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
from heatlas.pipeline.settings.load import load_settings
from heatlas.pipeline.settings.run import describe
from heatlas.pipeline.shards import plan_shards
from heatlas.pipeline.store.parquet_sink import ParquetSink
from heatlas.pipeline.store.run_file import claim_run
from heatlas.pipeline.store.schema import StoreLayout
from heatlas.workers.images.preprocess import Preprocess
from heatlas.workers.samples import Row, Sample

HOSTILE = "<img src=x onerror=alert(1)>"


NAMES = ("ant", "bee", HOSTILE)


SIZE = (28, 28)


def spot(row: int, column: int) -> np.ndarray:
    """A map with a 4x4 block, which is 2x2 of the 14x14 that are compared."""
    map_ = np.zeros(SIZE, np.float32)
    map_[row : row + 4, column : column + 4] = 1
    return map_


def row(identity: str, *, label: int | None = 0, prediction: int = 0, target: int | None = None, map_: np.ndarray | None = None,
        score: float = 0.9, value: float = 0.5, uri: str = "/x.png") -> Row:  # fmt: skip
    return Row(Sample(identity, uri, label), "ok", None, 28, 28, prediction, prediction if target is None else target, score, 1.0,
               spot(0, 0) if map_ is None else map_, {"ebpg": value, "drop_pct": 10 * value})  # fmt: skip


def store(out: Path, rows: list[Row], *, shard_size: int = 4, method: str = "sise", target: str = "predicted", backwards: bool = False,
          map_size: int | str = "input", with_map: bool = True, definition: str = "ebpg/v1", names=NAMES) -> Path:  # fmt: skip
    settings = describe(load_settings({"model": "tiny:model", "data": "photos", "out": str(out), "target": target}))
    claim_run(
        str(out), {"plan": {"samples": 1}, "preprocess": asdict(Preprocess(size=SIZE)), "method": method}, settings
    )
    layout = StoreLayout(
        SIZE, method=method, metrics=("ebpg", "drop_pct"), map_size=map_size, with_map=with_map, with_png=False,
        metadata={"class_names": list(names), "metrics": {
            "ebpg": {"definition": definition, "unit": "1", "better": "higher"},
            "drop_pct": {"definition": "drop_pct/v1", "unit": "%", "better": "lower"}}},
    )  # fmt: skip
    shards = plan_shards(len(rows), shard_size)
    for shard in shards:
        some = rows[::-1] if backwards else rows
        assert ParquetSink(str(out), layout).commit(shard, some[shard.start : shard.stop])
    return out
