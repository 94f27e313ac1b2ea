"""`heatlas components`: components of every class's logit, their galleries, and how accuracy goes with them."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...engine.features.logit_components import COMPONENTS, ClassComponents, class_components, linear_head
from ...errors import SampleError, StorageError, UsageError
from ..features.compute import StoredModel, load_stored_model
from ..features.image_table import NO_LABEL, ImageFeatures, features_of
from ..intervene.intervene import class_index
from ..pictures.stored_images import reader_of, stored_preprocess
from ..storage.atomic_write import put
from ..storage.location import child, locate, names_in
from ..store.reader import StoreReader, open_store
from ..text import class_name, counted
from .component_names import ComponentName, latest_names, name_of_component, name_of_record, parse_name
from .gallery_sheet import GalleryLine, draw_galleries
from .spuriosity import SpuriosityRanking, rank_class, ranks_of

FOLDER, NAME, ROWS = "components", "components.parquet", "rows.parquet"
NAMES_KEY = b"heatlas_component_names"
"""Metadata with all names that people gave, also of classes and components that this table does not list."""
FEWEST_IMAGES = 10
SHOWN = 5
"""Images at either end of a gallery."""
DRAWN = 6
"""Components in a gallery, beside those with a name."""
SCHEMA = pa.schema(
    [
        ("class", pa.int32()), ("class_name", pa.string()), ("component", pa.int32()), ("images", pa.int64()), ("share", pa.float64()),
        ("accuracy_low", pa.float64()), ("accuracy_middle", pa.float64()), ("accuracy_high", pa.float64()), ("highest", pa.list_(pa.string())),
        ("lowest", pa.list_(pa.string())), ("kind", pa.string()), ("name", pa.string()), ("constant", pa.float64()), ("mean", pa.list_(pa.float32())),
        ("direction", pa.list_(pa.float32())), ("text", pa.string()),
    ]
)  # fmt: skip
"""`share`: variance of the contribution over that of the logit; `accuracy_*`: of the class's images in the lower, middle and upper third of the contribution;
`highest`, `lowest`: ids, the extreme one first; `kind`, `name`: given by people; `constant`: the mean image's logit."""
ROW_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("class", pa.int32()),
        ("contributions", pa.list_(pa.float32())),
        ("rest", pa.float32()),
        ("spuriosity", pa.float32()),
        ("spuriosity_rank", pa.int32()),
    ]
)
"""`contributions` of the components in order; with `rest` and `constant` they sum to the logit; `spuriosity`: the sum of those that people call a shortcut, null
where they call none so; `spuriosity_rank`: 1 for the image of the class with most."""


@dataclass(frozen=True)
class ComponentTables:
    """What was computed, and where it was written."""

    components: pa.Table
    rows: pa.Table
    uri: str
    galleries: dict[str, str]
    """Place of each class's picture, by the name of the class."""
    rankings: tuple[SpuriosityRanking, ...] = ()
    """Of the classes with components that people call a shortcut."""

    def text(self, shown: int = 3) -> str:
        """The first components of each class, named ones always, and the rankings."""
        lines = [row["text"] for row in self.components.to_pylist() if row["component"] < shown or row["name"]]
        return "\n".join(
            [
                *lines,
                *(ranking.text for ranking in self.rankings),
                f"components: {self.uri}; {counted(len(self.galleries), 'gallery').replace('gallerys', 'galleries')} beside it",
            ]
        )


def find_components(
    out: str | os.PathLike[str] | StoreReader,
    *,
    classes: Sequence[str] | None = None,
    count: int = COMPONENTS,
    names: Sequence[str] = (),
    galleries: bool = True,
) -> ComponentTables:
    """Components of every class's logit over the images that are labelled as the class (or predicted, where nothing is labelled).

    Features are those that the store holds; the model is loaded, which runs its code, for the weights of its last layer.

    Args:
        out: Directory or URI of a run's store, or the store opened.
        classes: Names of classes; None for all. Only what is asked for is written.
        count: Most components of a class, at least 1.
        names: `CLASS:NUMBER:KIND:NAME`, kept for later calls by direction.
        galleries: Whether pictures are drawn.

    Raises:
        UsageError: If the store has no features, a class or a name is unknown, or no class has enough images.
        ModelError: If the model's last layer is not linear.
        StorageError: If the store cannot be read or written.
    """
    if count < 1:
        raise UsageError(f"count must be at least 1, got {count}; leave it out for {COMPONENTS}")
    atlas = out if isinstance(out, StoreReader) else open_store(out)
    given = [parse_name(text) for text in names]
    features = features_of(atlas)
    if features is None:
        raise UsageError(
            f"{atlas.uri} holds no features; run `heatlas curate {atlas.uri} --probe`, or explain the data with features"
        )
    model = load_stored_model(atlas)
    first = next(iter(model.batches(model.samples)), None)
    if first is None:
        raise UsageError(f"none of the images of {atlas.uri} can be read; copy or download them again")
    head = linear_head(model.module, first[1][:4].to(model.device))
    if features.features.shape[1] != head.weight.shape[1]:
        raise UsageError(
            f"the stored features have {features.features.shape[1]} numbers, the model's last layer takes {head.weight.shape[1]}"
        )
    chosen = range(len(head.weight)) if classes is None else [class_index(atlas, text) for text in classes]
    members = {index: _members(features, index) for index in chosen}
    able = {index: rows for index, rows in members.items() if len(rows) >= FEWEST_IMAGES}
    if not able:
        raise UsageError(f"no class has {FEWEST_IMAGES} images, which components need")
    decompositions = {
        index: class_components(features.features[rows], head, index, count=count) for index, rows in able.items()
    }
    known = latest_names([*_stored_names(atlas.uri), *_placed(given, decompositions, atlas.class_names)])
    records = [
        record
        for index, parts in decompositions.items()
        for record in _records(index, able[index], features, parts, known, atlas.class_names)
    ]
    kept = {NAMES_KEY: json.dumps([name.record() for name in known]).encode()}
    table = pa.Table.from_pylist(records, schema=SCHEMA.with_metadata(kept))
    rows = pa.Table.from_pylist(
        [row for index, parts in decompositions.items() for row in _rows(able[index], features, parts, index, records)],
        schema=ROW_SCHEMA,
    )
    uri = child(atlas.uri, f"{FOLDER}/{NAME}")
    for place, written in ((uri, table), (child(atlas.uri, f"{FOLDER}/{ROWS}"), rows)):
        buffer = io.BytesIO()
        pq.write_table(written, buffer, compression="zstd")
        put(place, buffer.getvalue())
    rankings = tuple(
        ranking
        for index, parts in decompositions.items()
        if (ranking := _ranking(able[index], features, parts, index, records))
    )
    return ComponentTables(table, rows, uri, _galleries(atlas, model, records, rankings) if galleries else {}, rankings)


def _members(features: ImageFeatures, index: int) -> np.ndarray:
    labelled = (features.labels != NO_LABEL).any()
    return np.flatnonzero((features.labels if labelled else features.predictions) == index)


def _placed(
    given: Sequence[ComponentName], decompositions: Mapping[int, ClassComponents], class_names: Sequence[str]
) -> list[ComponentName]:
    """The names with the directions that they mean.

    Raises:
        UsageError: For a class or component that there is not.
    """
    by_name = {class_name(class_names, index): parts for index, parts in decompositions.items()}
    placed = []
    for name in given:
        parts = by_name.get(name.class_name)
        if parts is None or name.number >= len(parts.directions):
            there = (
                f"there is no such class with components; those asked for are {', '.join(list(by_name)[:20])}"
                if parts is None
                else f"there are components 0 to {len(parts.directions) - 1}"
            )
            raise UsageError(f"cannot name component {name.number} of {name.class_name!r}: {there}")
        placed.append(replace(name, direction=parts.directions[name.number]))
    return placed


def _stored_names(out: str) -> list[ComponentName]:
    fs, path = locate(child(out, FOLDER))
    if NAME not in names_in(fs, path):
        return []
    try:
        with fs.open(f"{path}/{NAME}", "rb") as file:
            table = pq.read_table(pa.PythonFile(file), columns=["class_name", "component", "kind", "name", "direction"])
        if (kept := (table.schema.metadata or {}).get(NAMES_KEY)) is not None:
            return [name_of_record(record) for record in json.loads(kept)]
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise StorageError(f"cannot read {out}/{FOLDER}/{NAME}: {error}; delete it") from error
    return [ComponentName(row["class_name"], row["component"], row["kind"], row["name"], np.array(row["direction"]))
            for row in table.to_pylist() if row["name"]]  # fmt: skip


def _records(
    index: int,
    members: np.ndarray,
    features: ImageFeatures,
    parts: ClassComponents,
    names: Sequence[ComponentName],
    class_names: Sequence[str],
) -> list[dict[str, Any]]:
    label, right = class_name(class_names, index), features.predictions[members] == index
    records = []
    for number, direction in enumerate(parts.directions):
        order = np.argsort(-parts.contributions[:, number], kind="stable")
        high, middle, low = (float(right[third].mean()) for third in np.array_split(order, 3))
        name = name_of_component(names, label, direction)
        said = f" ({name.name}, {name.kind})" if name else ""
        records.append({
            "class": index, "class_name": label, "component": number, "images": len(members), "share": float(parts.shares[number]), "accuracy_low": low,
            "accuracy_middle": middle, "accuracy_high": high, "highest": [features.ids[row] for row in members[order[:SHOWN]]],
            "lowest": [features.ids[row] for row in members[order[::-1][:SHOWN]]], "kind": name.kind if name else None, "name": name.name if name else None,
            "constant": parts.constant, "mean": parts.mean.astype(np.float32), "direction": direction.astype(np.float32),
            "text": f"{label}, component {number}{said}: {100 * parts.shares[number]:.0f} % of the logit's variance; {100 * low:.0f} % correct in the third with "
                    f"least of it, {100 * middle:.0f} % in the middle, {100 * high:.0f} % in the third with most; such as {features.ids[members[order[0]]]}",
        })  # fmt: skip
    return records


def _rows(
    members: np.ndarray,
    features: ImageFeatures,
    parts: ClassComponents,
    index: int,
    records: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    named = _shortcuts(index, records)
    spuriosity = parts.contributions[:, [record["component"] for record in named]].sum(axis=1)
    ranks = ranks_of(spuriosity)
    return [
        {"id": features.ids[row], "class": index, "contributions": parts.contributions[place].astype(np.float32), "rest": parts.rest[place],
         "spuriosity": float(spuriosity[place]) if named else None, "spuriosity_rank": int(ranks[place]) if named else None}
        for place, row in enumerate(members)
    ]  # fmt: skip


def _shortcuts(index: int, records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The components of the class that people call a shortcut."""
    return [record for record in records if record["class"] == index and record["kind"] == "shortcut"]


def _ranking(
    members: np.ndarray,
    features: ImageFeatures,
    parts: ClassComponents,
    index: int,
    records: Sequence[Mapping[str, Any]],
) -> SpuriosityRanking | None:
    if not (named := _shortcuts(index, records)):
        return None
    spuriosity = parts.contributions[:, [record["component"] for record in named]].sum(axis=1)
    ids, right = [features.ids[row] for row in members], features.predictions[members] == index
    return rank_class(index, named[0]["class_name"], [record["name"] for record in named], ids, spuriosity, right)


def _galleries(
    atlas: StoreReader,
    model: StoredModel,
    records: Sequence[Mapping[str, Any]],
    rankings: Sequence[SpuriosityRanking],
) -> dict[str, str]:
    """Draw a picture per class; returns their places by the name of the class."""
    from ...workers.images.decode import decode_image

    reader, preprocess = reader_of(atlas.run), stored_preprocess(atlas.run)

    def pictures(ids: Sequence[str]) -> list[Any]:
        images = []
        for identity in ids:
            try:
                images.append(preprocess.view(decode_image(reader.read(model.samples_by_id[identity].uri))))
            except (SampleError, KeyError):  # gone since, or no picture for people
                continue
        return images

    places = {}
    for index in dict.fromkeys(record["class"] for record in records):
        every = [record for record in records if record["class"] == index]
        own = [record for record in every if record["component"] < DRAWN or record["name"]]
        name = own[0]["class_name"]
        lines = [
            GalleryLine(ranking.text.partition("; least have")[0], pictures(ranking.most), pictures(ranking.least))
            for ranking in rankings
            if ranking.index == index
        ]
        lines += [
            GalleryLine(
                record["text"].partition("; such as")[0], pictures(record["highest"]), pictures(record["lowest"])
            )
            for record in own
        ]
        buffer = io.BytesIO()
        draw_galleries(f"{name}: images with most (left) and least (right) of each component", lines).save(
            buffer, "PNG"
        )
        places[name] = child(
            atlas.uri, f"{FOLDER}/class-{index:05d}-{hashlib.sha256(name.encode()).hexdigest()[:8]}.png"
        )
        put(places[name], buffer.getvalue())
    return places
