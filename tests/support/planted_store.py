"""A small synthetic store with planted facts, from `bench/speed/synthetic_store.py`, and the kinds that were planted."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from .checkout import checkout_module


def write_planted(
    out: Path, rows: int, *, target: str = "predicted", classes: int = 5, seed: int = 0, map_size: int = 14
) -> Path:
    """The store of `rows` images at `out`."""
    synthetic = checkout_module("bench.speed.synthetic_store")
    synthetic.write_store(out, rows, synthetic.World(classes, map_size, seed, target), shard_size=500)
    return out


def kinds(out: Path) -> dict[str, str]:
    """What was planted, by id."""
    return dict(zip(*pq.read_table(out / "planted.parquet").to_pydict().values(), strict=True))
