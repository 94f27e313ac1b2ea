"""Writes a store of any size with planted facts, without pictures: what the commands that read a store are measured on.

    python -m bench synthetic_store OUT --rows 1000000 [--map-size 14] [--seed 0] [--classes 20] [--target both]

A run of `heatlas explain` without PNGs would have left the same files: parts, _run.json, _SUCCESS. Beside them `planted.parquet`
(id, kind) tells what was planted: one shortcut class, wrong labels, real mistakes, outliers, duplicates, unstable maps, error rows.
With `--target both` an image whose label is not predicted has a second row, for its label. Written part by part, so that memory does
not grow with the rows; every part depends on nothing but the seed and its own place.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from heatlas.engine.metrics import METRICS
from heatlas.pipeline.explain.fingerprint import metric_facts
from heatlas.pipeline.settings.run import Settings, describe
from heatlas.pipeline.shards import default_shard_size, plan_digest, plan_shards
from heatlas.pipeline.storage.atomic_write import put, put_if_absent
from heatlas.pipeline.storage.location import child
from heatlas.pipeline.store.committed_shards import row_totals
from heatlas.pipeline.store.parquet_bytes import table_to_parquet
from heatlas.pipeline.store.part_names import part_path
from heatlas.pipeline.store.part_origin import PartOrigin, run_identity
from heatlas.pipeline.store.part_summary import with_summary
from heatlas.pipeline.store.run_file import claim_run, read_run
from heatlas.pipeline.store.schema import StoreLayout
from heatlas.pipeline.store.success_file import write_success
from heatlas.workers.samples import Shard

PLANTED = "planted.parquet"
SHORTCUT_CLASS = 3
SHARES = {
    "label_noise": 0.03, "mistake": 0.04, "outlier": 0.002, "duplicate": 0.002, "unstable": 0.003, "decode_error": 0.001,
    "no_evidence": 0.001,
}  # fmt: skip
"""Of all images; of the shortcut class nine in ten of the rest are `shortcut`, what remains is `plain`."""
SHORTCUT_SHARE = 0.9
FAILED = ("decode_error", "no_evidence")
NAMES = tuple(
    name
    for name in METRICS
    if name not in ("layer_agreement", "coherency", "adcc", "road", "infidelity", "single_deletion_rho")
)
CHANCE_METRICS = ("drop_pct", "increase", "ebpg", "bbox")
CHANCE_ROWS = 32
Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class World:
    """What does not change from part to part."""

    classes: int = 20
    map_size: int = 14
    seed: int = 0
    target: Literal["predicted", "both"] = "predicted"
    centres: np.ndarray = field(init=False, repr=False)
    """`(classes, 2)`: where each class usually has its object, from the top and from the left, in [0, 1]."""

    def __post_init__(self) -> None:
        random = np.random.default_rng([self.seed, 0])
        object.__setattr__(self, "centres", random.uniform(0.35, 0.65, (self.classes, 2)))

    @property
    def layout(self) -> StoreLayout:
        names = [f"class-{index:02d}" for index in range(self.classes)]
        facts = {name: metric_facts(name) for name in NAMES}
        return StoreLayout(
            (self.map_size, self.map_size), metrics=NAMES, chance_metrics=CHANCE_METRICS, map_size=self.map_size, with_png=False,
            metadata={"metrics": facts, "class_names": names, "provenance": {"model": "synthetic", "model_digest": "0" * 64}},
        )  # fmt: skip


def write_store(out: str | Path, rows: int, world: World | None = None, *, shard_size: int | None = None,
                say: Callable[[str], object] = lambda _: None) -> None:  # fmt: skip
    """Write the store; what is there already of the same store stays.

    Args:
        out: Local directory.
        rows: Images; with `target="both"` there are a few more rows.
        world: Classes, map size, seed and targets.
        shard_size: Images of a part; None for what `heatlas explain` takes.
        say: Hears of progress.
    """
    world, place = world or World(), str(out)
    shards = plan_shards(rows, shard_size or default_shard_size(rows))
    facts = {"samples": rows, "shards": len(shards), "listing": "synthetic", "digest": plan_digest("synthetic", shards)}
    settings = Settings.model_validate({"model": "synthetic", "data": "synthetic", "out": place, "target": "predicted",
                                        "metrics": NAMES, "store": {"map_size": world.map_size, "map_png": False}})  # fmt: skip
    size = [world.map_size, world.map_size]
    claim_run(place, {"plan": facts, "model": {"digest": "0" * 64}, "preprocess": {"size": size}, "method": "sise",
                      "target": world.target, "metrics": [METRICS[name].definition for name in NAMES],
                      "seed": world.seed, "classes": world.classes}, {**describe(settings), "target": world.target})  # fmt: skip
    layout, planted, run = world.layout, io.BytesIO(), run_identity(read_run(place)["fingerprint"])
    with pq.ParquetWriter(planted, pa.schema([("id", pa.string()), ("kind", pa.string())])) as writer:
        for shard in shards:
            table, kinds = part(world, layout, shard)
            put_if_absent(
                child(place, part_path(shard.index)),
                table_to_parquet(with_summary(table, PartOrigin(run, shard.index, ""))),
            )
            writer.write_table(kinds)
            if shard.index % 200 == 199:
                say(f"{shard.stop:,} of {rows:,} images")
    put(child(place, PLANTED), planted.getvalue())
    write_success(place, row_totals(place))


def part(world: World, layout: StoreLayout, shard: Shard) -> tuple[pa.Table, pa.Table]:
    """The rows of one shard, and the kind of each of its images."""
    random = np.random.default_rng([world.seed, 1, shard.index])
    images = _images(world, random, shard)
    first = _rows(world, random, images, images["prediction"])
    tables = [_table(layout, first, world, with_chance=shard.index == 0)]
    second = images["prediction"] != images["label"]
    if world.target == "both" and second.any():
        chosen = {name: values[second] for name, values in images.items()}
        tables.append(_table(layout, _rows(world, random, chosen, chosen["label"]), world))
    table = pa.concat_tables(tables)
    order = np.argsort(table["id"].to_numpy(zero_copy_only=False), kind="stable")
    kinds = pa.table({"id": pa.array(images["id"].tolist(), pa.string()), "kind": pa.array(images["kind"].tolist())})
    return table.take(pa.array(order)), kinds


def _images(world: World, random: np.random.Generator, shard: Shard) -> Columns:
    """What is true of each image, before anything is explained."""
    index = np.arange(shard.start, shard.stop)
    count, truth = len(index), index % world.classes
    kind = random.choice([*SHARES, "plain"], count, p=[*SHARES.values(), 1 - sum(SHARES.values())]).astype(object)
    kind[(truth == SHORTCUT_CLASS) & (kind == "plain") & (random.random(count) < SHORTCUT_SHARE)] = "shortcut"
    other = (truth + random.integers(1, world.classes, count)) % world.classes
    return {
        "id": np.array([f"img-{number:08d}" for number in index]),
        "kind": kind,
        "label": np.where(kind == "label_noise", other, truth),
        "prediction": np.where(kind == "mistake", other, truth),
        "truth": truth,
        "object": world.centres[truth] + random.normal(0, 0.06, (count, 2)),
    }  # fmt: skip


def _rows(world: World, random: np.random.Generator, images: Columns, target: np.ndarray) -> Columns:
    """Maps and numbers of one explained target of each image."""
    kind, count = images["kind"], len(target)
    sound = target == images["truth"]
    predicted = target == images["prediction"]
    maps = _maps(world, random, images, sound)
    score = np.select(
        [predicted & (kind == "mistake"), predicted, kind == "mistake"],
        [random.uniform(0.4, 0.85, count), random.beta(30, 2, count), random.uniform(0.1, 0.4, count)],
        random.uniform(0.001, 0.05, count),
    )
    faithful = np.clip(np.where(sound, 0.78, 0.35) * score + random.normal(0, 0.05, count), 0, 1)
    sensitivity = np.exp(random.normal(np.where(kind == "unstable", 0.0, -2.0), 0.2))
    apart = images["prediction"] != images["label"]
    return {
        **images, "target": target, "confidence": score, "map": maps, **_descriptors(maps, images["object"]),
        "drop_pct": np.clip(100 * (1 - faithful) * random.uniform(0.3, 0.9, count), 0, 100),
        "increase": (random.random(count) < 0.2 * faithful).astype(float),
        "average_gain_pct": random.uniform(0, 20, count),
        "insertion_auc": faithful,
        "deletion_auc": np.clip(0.3 * score + random.normal(0, 0.03, count), 0, 1),
        "max_sensitivity": sensitivity,
        "label_overlap": np.where(apart, random.uniform(0.02, 0.3, count), np.nan),
    }  # fmt: skip


def _maps(world: World, random: np.random.Generator, images: Columns, sound: np.ndarray) -> np.ndarray:
    """`(n, s, s)` in [0, 1]: a spot on the object for the true class, a faint haze elsewhere for another one."""
    kind, count, size = images["kind"], len(sound), world.map_size
    centre = np.where(sound[:, None], images["object"], random.uniform(0.1, 0.9, (count, 2)))
    width = np.where(sound, random.uniform(0.10, 0.18, count), random.uniform(0.25, 0.5, count))
    marked = kind == "shortcut"
    centre[marked] = np.array((0.93, 0.08)) + random.normal(0, 0.015, (int(marked.sum()), 2))
    width[marked] = random.uniform(0.06, 0.09, int(marked.sum()))
    place = (np.arange(size) + 0.5) / size
    distance = np.hypot(
        place[None, :, None] - centre[:, 0, None, None], place[None, None, :] - centre[:, 1, None, None]
    )
    maps = np.exp(-0.5 * (distance / width[:, None, None]) ** 2)
    ring = np.exp(-0.5 * ((np.hypot(*np.meshgrid(place - 0.5, place - 0.5)) - 0.45) / 0.05) ** 2)
    maps[kind == "outlier"] = ring
    maps = maps * random.uniform(0.6, 0.95, count)[:, None, None] + random.uniform(0, 0.01, maps.shape)
    twins = np.flatnonzero((kind == "duplicate") & (np.arange(count) > 0))
    maps[twins] = maps[twins - 1]
    return maps.astype(np.float16).astype(np.float64)


def _descriptors(maps: np.ndarray, objects: np.ndarray) -> Columns:
    """Metrics that follow from the small map, by their definitions; the object is a disc."""
    count, size = maps.shape[:2]
    flat, total = maps.reshape(count, -1), maps.sum(axis=(1, 2))
    share, place = flat / total[:, None], (np.arange(size) + 0.5) / size
    down, right = ((maps.sum(axis=axis) @ place) / total for axis in (2, 1))
    inner = maps[:, 1:-1, 1:-1].sum(axis=(1, 2))
    apart = (place[None, :, None] - down[:, None, None]) ** 2 + (place[None, None, :] - right[:, None, None]) ** 2
    inside = (
        np.hypot(place[None, :, None] - objects[:, 0, None, None], place[None, None, :] - objects[:, 1, None, None])
        < 0.25
    )
    ordered, rank = np.sort(flat, axis=1), np.arange(1, size * size + 1)
    top = flat >= ordered[:, [round(0.8 * size * size)]]
    hits, area = (top & inside.reshape(count, -1)).sum(axis=1), inside.sum(axis=(1, 2))
    return {
        "entropy": -(share * np.log(np.maximum(share, 1e-12))).sum(axis=1),
        "gini": (ordered @ (2 * rank - size * size - 1)) / (size * size * total),
        "complexity_l1": flat.mean(axis=1), "border_share": (total - inner) / total, "centroid_x": right, "centroid_y": down,
        "spread": np.sqrt((maps * apart).sum(axis=(1, 2)) / total) / np.sqrt(2),
        "n_components": np.ones(count), "top_area": (flat > flat.max(axis=1, keepdims=True) / 2).mean(axis=1),
        "ebpg": (maps * inside).sum(axis=(1, 2)) / total, "bbox": hits / np.maximum(area, 1),
        "relevance_rank_accuracy": hits / np.maximum(area, 1), "miou": hits / np.maximum(top.sum(axis=1) + area - hits, 1),
        "pointing_hit": inside.reshape(count, -1)[np.arange(count), flat.argmax(axis=1)].astype(float),
    }  # fmt: skip


def _table(layout: StoreLayout, rows: Columns, world: World, *, with_chance: bool = False) -> pa.Table:
    """The rows under the store's schema; columns that nothing is known of are null."""
    failed, count = np.isin(rows["kind"].astype(str), FAILED), len(rows["target"])
    undecoded = rows["kind"] == "decode_error"
    status = np.where(failed, rows["kind"], "ok")
    error = {"decode_error": "cannot decode the image", "no_evidence": "a block layer kept no feature map"}
    known: dict[str, Any] = {
        "id": rows["id"], "uri": np.char.add("/synthetic/", rows["id"]), "method": np.full(count, "sise"), "device": np.full(count, "cpu"),
        "status": status, "error": np.array([error.get(cause) for cause in status], object), "label": rows["label"],
        **{name: _blank(rows[name], undecoded) for name in ("prediction", "target", "confidence")},
        "logit": _blank(np.log(rows["confidence"] / (1 - np.minimum(rows["confidence"], 1 - 1e-9))), undecoded),
        "height": np.full(count, 480), "width": np.full(count, 640), "n_masks": np.full(count, 200), "n_forwards": np.full(count, 203),
        "seconds": np.full(count, 0.5),
    }  # fmt: skip
    known |= {name: _blank(rows[name], failed | np.isnan(rows[name])) for name in layout.metrics if name in rows}
    known["map"] = _map_column(rows["map"], failed, world.map_size)
    known["floors"] = _chance(layout, count, CHANCE_ROWS if with_chance else 0)
    known["mask_counts"] = pa.array([[100, 60, 40]] * count)
    arrays = [_column(known.get(field.name), field.type, count) for field in layout.schema()]
    return pa.table(arrays, schema=layout.schema())


def _column(values: Any, kind: pa.DataType, count: int) -> pa.Array:
    if values is None:
        return pa.nulls(count, kind)
    return values.cast(kind) if isinstance(values, pa.Array) else pa.array(values.tolist(), kind)


def _blank(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    result = values.astype(object)
    result[where] = None
    return result


def _map_column(maps: np.ndarray, failed: np.ndarray, size: int) -> pa.Array:
    flat = pa.array(maps.astype(np.float16).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, size * size, mask=pa.array(failed))


def _chance(layout: StoreLayout, count: int, wanted: int) -> pa.Array:
    values = {"drop_pct": 60.0, "increase": 0.05, "ebpg": 0.2, "bbox": 0.2}
    values_of_row = {field.name: values for field in layout.chance_type}
    return pa.array([values_of_row if place < wanted else None for place in range(count)], layout.chance_type)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("out")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--map-size", type=int, default=14)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", choices=("predicted", "both"), default="predicted")
    parser.add_argument("--shard-size", type=int, default=None)
    asked = parser.parse_args()
    begun = time.monotonic()
    world = World(asked.classes, asked.map_size, asked.seed, asked.target)
    write_store(asked.out, asked.rows, world, shard_size=asked.shard_size, say=lambda text: print(text, flush=True))
    print(f"{asked.rows:,} images in {asked.out} after {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
