"""A small synthetic store with planted facts, from `bench/speed/synthetic_store.py`, and the kinds that were planted."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow.parquet as pq

ROOT = Path(__file__).parent.parent.parent


def write_planted(
    out: Path, rows: int, *, target: str = "predicted", classes: int = 5, seed: int = 0, map_size: int = 14
) -> Path:
    """The store of `rows` images at `out`."""
    sys.path.insert(0, str(ROOT))
    try:
        from bench.speed.synthetic_store import World, write_store
    finally:
        sys.path.remove(str(ROOT))
    write_store(out, rows, World(classes, map_size, seed, target), shard_size=500)  # pyright: ignore[reportArgumentType]
    return out


def kinds(out: Path) -> dict[str, str]:
    """What was planted, by id."""
    return dict(zip(*pq.read_table(out / "planted.parquet").to_pydict().values(), strict=True))
