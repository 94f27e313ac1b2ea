"""Which rows an intervention is about, by class, and the region of each: a named place, clusters, or masks that people decided on."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq

from ...errors import StorageError, UsageError, did_you_mean
from ...statuses import OK
from ..cluster.cluster_tables import place
from ..decisions.current import Decisions
from ..decisions.upright_masks import WHOLE_SHARE, image_sizes, upright_mask
from ..features.cue_table import KIND_TEXTS, class_cues, cues_of
from ..storage.location import child, locate, names_in
from ..store.object_rows import one_object
from ..store.sql import literal
from ..text import class_name
from .places import PLACES, Region, RegionOf, box_of, hot_region, place_region, place_text

if TYPE_CHECKING:
    from ..features.compute import StoredModel
    from ..store.reader import StoreReader

CLUSTER = re.compile(r"cluster:(?P<name>.+):(?P<number>\d+)")
CLUSTERS, MASKS, CUES = "clusters", "masks", "cues"
CLEAN = ("core", "ok")
"""Decisions about images that carry no mark."""
WHOLE_LOOKED_AT = 32
"""Masks of a class by which it is told whether they stand for the whole image."""
FEWEST_IMAGES = 5
"""Rows without which a group is not measured."""
REGION_CHOICES = (
    f"a place ({', '.join(PLACES)}), a box x0,y0,x1,y1 in shares, {CLUSTERS}, cluster:CLASS:NUMBER, {MASKS} or {CUES}"
)


@dataclass(frozen=True)
class ExplainedRow:
    """One row with a map."""

    id: str
    target: int
    prediction: int
    label: int | None


@dataclass(frozen=True, eq=False)
class RowGroup:
    """Rows of one class whose regions are measured together."""

    name: str
    """Of the class, and of the cluster where it is one."""
    target: int
    what: str
    """The region in words."""
    rows: tuple[ExplainedRow, ...]
    region_of: RegionOf | None
    """None for a cue that is no region."""
    cue: str | None = None
    """Kind of the cue, where it is one."""
    rest: tuple[ExplainedRow, ...] = ()
    """Of a cue that is no region: rows of the class that are known not to carry it; empty where all others of the class count as such."""


def explained_rows(atlas: StoreReader, method: str) -> list[ExplainedRow]:
    """The rows of a method that are ok, by id and target; of several objects of a class in an image the largest."""
    where = f"status = '{OK}' AND method = {literal(method)} AND target IS NOT NULL AND prediction IS NOT NULL AND {one_object(atlas.schema)}"
    rows = atlas.table(["id", "target", "prediction", "label"], where).sort_by(
        [("id", "ascending"), ("target", "ascending")]
    )
    return [ExplainedRow(*row) for row in zip(*rows.to_pydict().values(), strict=True)]


def chosen_method(atlas: StoreReader, method: str | None) -> str:
    """The method whose rows are meant.

    Raises:
        UsageError: For a method that the store does not have.
    """
    counts = Counter(
        dict(atlas.query_rows(f"SELECT method, count(*) FROM atlas WHERE status = '{OK}' GROUP BY method"))
    )
    if not counts:
        raise UsageError(f"{atlas.uri} has no row with a map")
    if method is not None and method not in counts:
        raise UsageError(
            f"{atlas.uri} has no rows of the method {method!r}{did_you_mean(method, counts)}; it has {', '.join(counts)}"
        )
    return method or min(counts, key=lambda name: (-counts[name], name))


def row_groups(
    atlas: StoreReader,
    model: StoredModel,
    region: str,
    rows: Sequence[ExplainedRow],
    decisions: Decisions,
    classes: Sequence[int] | None,
) -> list[RowGroup]:
    """The groups that a region names, by class.

    Args:
        atlas: The store.
        model: Of its run, whose input size the regions have.
        region: As `REGION_CHOICES` says.
        rows: Of `explained_rows`.
        decisions: What people decided about the store.
        classes: Class indices; None for all.

    Raises:
        UsageError: If the region is unknown, or the store lacks what it needs.
    """
    size = model.preprocess.size
    if region == MASKS:
        groups = _mask_groups(atlas, model, rows, decisions)
    elif region == CLUSTERS or CLUSTER.fullmatch(region):  # before boxes: a class may have a comma in its name
        groups = _cluster_groups(atlas, region, size, rows)
    elif region in PLACES or box_of(region) is not None:
        groups = _place_groups(atlas, place_region(region, size), place_text(region), rows)
    elif region == CUES:
        groups = _cue_groups(atlas, rows)
    else:
        raise UsageError(
            f"there is no region {region!r}{did_you_mean(region, (*PLACES, CLUSTERS, MASKS, CUES))}; give {REGION_CHOICES}"
        )
    return [group for group in groups if classes is None or group.target in classes]


def _predicted(rows: Sequence[ExplainedRow]) -> Mapping[int, list[ExplainedRow]]:
    """Rows that explain what is predicted, by class."""
    by_class: dict[int, list[ExplainedRow]] = defaultdict(list)
    for row in rows:
        if row.target == row.prediction:
            by_class[row.target].append(row)
    return dict(sorted(by_class.items()))


def _place_groups(atlas: StoreReader, region: Region, what: str, rows: Sequence[ExplainedRow]) -> list[RowGroup]:
    return [
        RowGroup(class_name(atlas.class_names, target), target, what, tuple(own), lambda identity: region)
        for target, own in _predicted(rows).items()
    ]


def _mask_groups(
    atlas: StoreReader, model: StoredModel, rows: Sequence[ExplainedRow], decisions: Decisions
) -> list[RowGroup]:
    masks = {
        decision.id: decision.mask
        for decision in decisions.current
        if decision.kind == "shortcut" and decision.mask is not None and decision.object_id is None
    }
    if not masks:
        raise UsageError(
            f"no shortcut decision of {atlas.uri} has a mask; paint one in `heatlas view`, import masks with `heatlas annotate`, or let "
            "`heatlas spread` make them"
        )

    sizes = image_sizes(atlas)

    def region_of(identity: str) -> Region:
        mask = upright_mask(identity, masks[identity], sizes.get(identity))
        return model.preprocess.geometry(*mask.shape).mask(mask)

    clean = {decision.id for decision in decisions.current if decision.kind in CLEAN and decision.object_id is None}
    groups = []
    for target, several in _predicted(rows).items():
        own = tuple(row for row in several if row.id in masks)
        name = class_name(atlas.class_names, target)
        whole = [float(region_of(row.id).mean()) > WHOLE_SHARE for row in own[:WHOLE_LOOKED_AT]]
        if own and sum(whole) > len(whole) / 2:  # pasted, the whole image would be another image: exchange its colours
            rest = tuple(row for row in several if row.id in clean)
            groups.append(
                RowGroup(name, target, "the colours of what was painted as a shortcut as a whole", own, None, "colour",
                         rest if len(rest) >= FEWEST_IMAGES else ())
            )  # fmt: skip
        elif own:
            groups.append(RowGroup(name, target, "what was painted as a shortcut", own, region_of))
    return groups


def _cluster_groups(
    atlas: StoreReader, region: str, size: tuple[int, int], rows: Sequence[ExplainedRow]
) -> list[RowGroup]:
    fs, path = locate(child(atlas.uri, "clusters"))
    if not {"clusters.parquet", "members.parquet"} <= set(names_in(fs, path)):
        raise UsageError(f"{atlas.uri} has no clusters yet; run `heatlas cluster {atlas.uri}` first")
    try:
        clusters, members = (pq.read_table(f"{path}/{name}.parquet", filesystem=fs) for name in ("clusters", "members"))
        facts = _map_shape(clusters.schema.metadata)
    except (OSError, ValueError, KeyError) as error:
        raise StorageError(
            f"cannot read the clusters of {atlas.uri}: {error}; run `heatlas cluster {atlas.uri}` again"
        ) from error
    wanted = CLUSTER.fullmatch(region)
    by_row = {(row.id, row.target): row for row in rows}
    ids: dict[tuple[int, int], list[ExplainedRow]] = defaultdict(list)
    for member in members.to_pylist():
        if (row := by_row.get((member["id"], member["target"]))) is not None:
            ids[member["class"], member["cluster"]].append(row)
    groups = []
    for cluster in clusters.to_pylist():
        key = cluster["class"], cluster["cluster"]
        if wanted and (cluster["class_name"], cluster["cluster"]) != (wanted["name"], int(wanted["number"])):
            continue
        hot = hot_region(np.asarray(cluster["mean_map"], np.float32).reshape(facts), size)
        down, right = (
            float(np.flatnonzero(hot.any(axis=1 - axis)).mean() / size[axis]) if hot.any() else 0.5 for axis in (0, 1)
        )
        groups.append(
            RowGroup(f"{cluster['class_name']}, cluster {cluster['cluster']}", cluster["class"], f"where its maps are hot ({place(down, right)})",
                     tuple(ids[key]), lambda identity, hot=hot: hot)
        )  # fmt: skip
    if not groups:
        names = [f"cluster:{row['class_name']}:{row['cluster']}" for row in clusters.to_pylist()]
        raise UsageError(
            f"{atlas.uri} has no {region!r}; it has {', '.join(names[:20])}{' ...' if len(names) > 20 else ''}"
        )
    return groups


def _map_shape(metadata: Mapping[bytes, bytes] | None) -> tuple[int, int]:
    facts = json.loads((metadata or {})[b"heatlas_clusters"])
    return int(facts["height"]), int(facts["width"])


def _cue_groups(atlas: StoreReader, rows: Sequence[ExplainedRow]) -> list[RowGroup]:
    table = cues_of(atlas)
    if table is None:
        raise UsageError(f"nobody looked for cues in {atlas.uri} yet; run `heatlas curate {atlas.uri} --probe` first")
    carriers: dict[int, set[str]] = defaultdict(set)
    for row in table.select(["id", "cue_class"]).to_pylist():
        carriers[row["cue_class"]].add(row["id"])
    by_class = _predicted(rows)
    return [
        RowGroup(class_name(atlas.class_names, cue.label), cue.label, KIND_TEXTS.get(cue.kind, cue.kind),
                 tuple(row for row in by_class.get(cue.label, ()) if row.id in carriers[cue.label]), None, cue.kind)
        for cue in class_cues(table)
    ]  # fmt: skip
