"""Cluster the maps of every class (after SpRAy, Lapuschkin et al. 2019): on which regions does the model decide for a class?

A class that is recognised by a mark at a fixed place has a tight cluster there, whatever its images show.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import UsageError
from ..curate.low_resolution_maps import KEYS, LowMaps, low_maps
from ..features.image_table import features_of
from ..storage.atomic_write import put
from ..storage.location import child
from ..text import class_name, counted
from .cluster_tables import CLUSTERS, MEMBERS, METADATA_KEY, reason
from .density import density_groups
from .embedding import embed, joined
from .separation import SEEN, mean_distance, separations, tightness

if TYPE_CHECKING:
    from ..store.reader import StoreReader

FOLDER = "clusters"
SIDE = 14
TYPICAL = 12
"""Ids named for each cluster, the most typical first."""
LEAST = 5
LEAST_SHARE = 0.02
Target = Literal["predicted", "label"]
WHERE = {"predicted": "target = prediction", "label": "target = label"}
FACTS = ("label", "prediction", "confidence", "ebpg", "border_share")
"""Columns that describe a cluster, where the store has them."""


@dataclass(frozen=True)
class Clusters:
    """The clusters of a store and the cluster of every map."""

    clusters: pa.Table
    """As `CLUSTERS`, the tightest that hold much of their class first (tightness times share)."""
    members: pa.Table
    """As `MEMBERS`, by id."""

    def write(self, out: str) -> tuple[str, str]:
        """Write `clusters.parquet` and `members.parquet` below OUT/clusters, replacing older ones; returns their URIs."""
        places = child(out, f"{FOLDER}/clusters.parquet"), child(out, f"{FOLDER}/members.parquet")
        for uri, table in zip(places, (self.clusters, self.members), strict=True):
            buffer = io.BytesIO()
            pq.write_table(table, buffer, compression="zstd")
            put(uri, buffer.getvalue())
        return places


def cluster_maps(
    atlas: StoreReader,
    *,
    target: Target = "predicted",
    min_size: int | None = None,
    side: int = SIDE,
    seed: int = 0,
    features: bool = False,
) -> Clusters:
    """Cluster the maps of every class, alone or together with the features of their images.

    Args:
        atlas: The store.
        target: Group rows by the class that is explained: those that explain their predicted class, or their label.
        min_size: Fewest maps of a cluster, at least 2; None for 2 % of the class's maps, at least 5.
        side: Longer side to which maps are reduced before they are compared, 2 to 64.
        seed: Seed of the samples that large classes need, at least 0.
        features: Compare features of the images, too: groups then share what the model looks at and what it sees there.

    Returns:
        Equal for equal stores and arguments.

    Raises:
        UsageError: If an argument is out of range, the run stored no maps, no row explains such a target, or features are wanted
            that the store does not have.
        StorageError: If a part cannot be read.
    """
    _check(target, min_size, side, seed)
    facts = tuple(name for name in FACTS if name in atlas.schema.names)
    low = low_maps(atlas, side, where=WHERE[target], columns=(*KEYS, *facts))
    if not len(low):
        other = "label" if target == "predicted" else "predicted"
        raise UsageError(f"no row of {atlas.uri} with a map explains its {'prediction' if target == 'predicted' else 'label'}; "
                         f"try --target {other}")  # fmt: skip
    seen = _features(atlas, low) if features else None
    rows, members, usual = [], [], _usual_distances(low, seed)
    for method, index, places in _classes(low):
        points = embed(_taken(low, places).mass())
        points = points if seen is None else joined(points, seen[places])
        own_rows, own = _one_class(
            low, places, points, (method, index), atlas.class_names, usual[method], min_size, seed
        )
        rows += own_rows
        members.append(own)
    rows.sort(key=lambda row: (row["method"], -row["tightness"] * row["share"], row["class"], row["cluster"]))
    told = {
        "height": low.height,
        "width": low.width,
        "target": target,
        "seed": seed,
        "min_size": min_size,
        "side": side,
        "features": features,
    }
    schema = CLUSTERS.with_metadata({METADATA_KEY: json.dumps(told).encode()})
    table = pa.concat_tables(members).sort_by([("id", "ascending"), ("method", "ascending")])
    return Clusters(pa.Table.from_pylist(rows, schema=schema), table.replace_schema_metadata(schema.metadata))


def clusters_text(clusters: Clusters, places: tuple[str, str], shown: int = 10) -> str:
    """The clusters as text, in the order of the table."""
    rows = clusters.clusters.to_pylist()
    per_class = Counter((row["method"], row["class"]) for row in rows)
    several = sum(count > 1 for count in per_class.values())
    alone = sum(cluster == -1 for cluster in clusters.members["cluster"].to_pylist())
    told = json.loads((clusters.clusters.schema.metadata or {}).get(METADATA_KEY, b"{}"))
    what = "features and maps: " if told.get("features") else ""
    lines = [f"{what}{counted(len(clusters.members), 'map')} of {len(per_class)} {'class' if len(per_class) == 1 else 'classes'} in {counted(len(rows), 'cluster')}, {alone:,} in no cluster; "
             f"{several} of the classes with more than one"]  # fmt: skip
    lines += [f"  {row['reason']}; such as {', '.join(row['members'][:2])}" for row in rows[:shown]]
    if len(rows) > shown:
        lines.append(f"  and {len(rows) - shown} more in the table")
    return "\n".join([*lines, f"clusters: {places[0]}, {places[1]}"])


def _check(target: str, min_size: int | None, side: int, seed: int) -> None:
    if target not in WHERE:
        raise UsageError(f"target must be one of {', '.join(WHERE)}, got {target!r}")
    if min_size is not None and min_size < 2:
        raise UsageError(f"min_size must be at least 2, got {min_size}; leave it out for 2 % of each class")
    if not 2 <= side <= 64:
        raise UsageError(f"side must be from 2 to 64 pixels, got {side}; leave it out for {SIDE}")
    if seed < 0:
        raise UsageError(f"seed must be at least 0, got {seed}")


def _features(atlas: StoreReader, low: LowMaps) -> np.ndarray:
    """Features of each map's image; NaN where there are none."""
    known = features_of(atlas)
    if known is None:
        raise UsageError(
            f"cannot compare features: {atlas.uri} has none; `heatlas curate {atlas.uri} --probe` computes them, or leave --features out"
        )
    places = {identity: place for place, identity in enumerate(known.ids)}
    rows = [places.get(identity, -1) for identity in low.rows["id"].to_pylist()]
    padded = np.concatenate([known.features, np.full((1, known.features.shape[1]), np.nan, np.float32)])
    return padded[rows]


def _usual_distances(low: LowMaps, seed: int) -> dict[str, float]:
    """By method, the mean distance of two maps of the run, over all classes."""
    methods = low.rows["method"].to_numpy(zero_copy_only=False)
    usual = {}
    for name in sorted(set(methods)):
        places = np.flatnonzero(methods == name)
        if len(places) > SEEN:
            places = np.sort(np.random.default_rng([seed, len(places)]).choice(places, SEEN, replace=False))
        usual[name] = mean_distance(np.sqrt(_taken(low, places).mass()), seed=seed)
    return usual


def _taken(low: LowMaps, places: np.ndarray) -> LowMaps:
    return LowMaps(low.rows.take(pa.array(places)), low.values[places], low.height, low.width)


def _classes(low: LowMaps) -> Iterator[tuple[str, int, np.ndarray]]:
    """Method, class and row numbers, class by class."""
    keys = low.rows.select(["method", "target"]).to_pandas()
    for key, places in sorted(keys.groupby(["method", "target"], sort=True).indices.items()):
        method, index = key  # pyright: ignore[reportGeneralTypeIssues]  (a pair, because the grouping has two keys)
        yield str(method), int(index), np.sort(places)


def _one_class(
    low: LowMaps,
    places: np.ndarray,
    points: np.ndarray,
    key: tuple[str, int],
    names: tuple[str, ...],
    usual: float,
    min_size: int | None,
    seed: int,
) -> tuple[list[dict[str, Any]], pa.Table]:
    """The clusters of one class (method and class) and its members, by the distances of `points`; `usual` is the mean distance of two maps of the run."""
    method, index = key
    own = _taken(low, places)
    groups = density_groups(points, min_size or max(LEAST, round(LEAST_SHARE * len(own))), seed=seed)
    apart = separations(points, groups.group, seed=seed)
    tight = tightness(np.sqrt(own.mass()), groups.group, usual, seed=seed)
    name = class_name(names, index)
    rows = [_cluster_row(own, points, groups.group == number, {
        "class": index, "cluster": number, "separation": None if np.isnan(apart[number]) else float(apart[number]), "tightness": float(tight[number]), "method": method, "class_name": name,
    }) for number in range(groups.count)]  # fmt: skip
    members = pa.table([
        own.rows["id"].combine_chunks(), own.rows["target"].combine_chunks(), pa.array([index] * len(own), pa.int32()),
        pa.array(groups.group.astype(np.int32)), pa.array(groups.probability), own.rows["method"].combine_chunks(),
    ], schema=MEMBERS)  # fmt: skip
    return rows, members


def _cluster_row(own: LowMaps, points: np.ndarray, inside: np.ndarray, known: dict[str, Any]) -> dict[str, Any]:
    places = np.flatnonzero(inside)
    mean_map = own.values[places].mean(axis=0, dtype=np.float64)
    centre = points[places].mean(axis=0)
    near = places[np.argsort(((points[places] - centre) ** 2).sum(axis=1), kind="stable")[:TYPICAL]]
    row = {
        **known, "size": len(places), "share": len(places) / len(own), "mean_map": mean_map.astype(np.float16),
        "members": own.rows["id"].take(pa.array(near)).to_pylist(),
        **{name: _mean(own.rows, name, places) for name in ("confidence", "ebpg", "border_share")}, "right": _right(own.rows, places),
    }  # fmt: skip
    return {**row, "reason": reason(row, _centre(mean_map.reshape(own.height, own.width)))}


def _mean(rows: pa.Table, name: str, places: np.ndarray) -> float | None:
    values = rows[name].take(pa.array(places)).drop_null() if name in rows.column_names else ()
    return float(np.mean(values)) if len(values) else None


def _right(rows: pa.Table, places: np.ndarray) -> float | None:
    pairs = zip(*(rows[name].take(pa.array(places)).to_pylist() for name in ("label", "prediction")), strict=True)
    known = [label == prediction for label, prediction in pairs if label is not None and prediction is not None]
    return sum(known) / len(known) if known else None


def _centre(mean_map: np.ndarray) -> tuple[float, float]:
    """Where the mass lies, from the top and from the left in [0, 1]; weighted by its square, so that a haze does not count."""
    weight = mean_map**2
    total = weight.sum()
    if not total:
        return 0.5, 0.5
    return tuple(
        float(weight.sum(axis=1 - axis) @ ((np.arange(size) + 0.5) / size) / total)
        for axis, size in enumerate(mean_map.shape)
    )  # pyright: ignore[reportReturnType]
