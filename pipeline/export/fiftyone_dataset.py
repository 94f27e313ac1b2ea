"""A folder that FiftyOne imports (`fiftyone.types.FiftyOneDataset`), written without FiftyOne and without its database.

    metadata.json          name, classes, provenance
    samples.json           one sample per row: image, label, prediction, target, score, metrics, the map as a Heatmap
    data/                  the images
    fields/explanation/    the maps as 8-bit PNGs, at their place in the whole image

The format is the one that FiftyOne wrote before version 0.8 and still reads: it has no database documents in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ...errors import SampleError
from ...statuses import OK
from ..store.schema import metric_columns
from .chosen import EXPLAINED, Chosen, is_plain
from .json_arrays import ArrayFile, plain
from .overlays import FileNames
from .whole_image import geometry_of, on_whole_image, png

MAPS = "fields/explanation"
WANTED = (*EXPLAINED, "height", "width")
OWN_FIELDS = frozenset({"id", "filepath", "tags", "metadata", "created_at", "last_modified_at", "ground_truth", "prediction", "target",
                        "explanation", "heatlas_id", "status", "method", "sample_id", "media_type", "frames", "group"})  # fmt: skip
SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,5}$")


def write_fiftyone(chosen: Chosen, path: Path) -> int:
    """Write the folder. Images that cannot be read any more are left out and counted.

    Returns:
        Samples.
    """
    schema = chosen.atlas.schema
    wanted = chosen.columns or [*metric_columns(schema), *chosen.atlas.metadata.get("extra_columns", {})]
    fields = field_names(name for name in wanted if is_plain(schema.field(name).type) and name not in WANTED)
    map_column = next(iter(chosen.has("map_png", "map")), None)
    reader = chosen.reader
    preprocess = chosen.preprocess
    names, unread, last, image = FileNames(chosen.count()), 0, None, None
    (path / MAPS).mkdir(parents=True)
    (path / "data").mkdir()
    columns: list[str] = list(dict.fromkeys([*chosen.has(*WANTED), *fields]))
    with ArrayFile(path / "samples.json", '{"samples": [', "]}") as samples:
        for row, values in chosen.rows(columns, map_column):
            stem = names.new(row["id"], row["target"], row["method"], row.get("object_id")).removesuffix(".png")
            if row["id"] != last:  # the rows of an image stand together
                last, image = row["id"], None
                try:
                    image = f"data/{stem}{suffix_of(row['uri'])}"
                    _write(path / image, reader.read(row["uri"]))
                except SampleError:
                    image, unread = None, unread + 1
            if image is None:
                continue
            sample = sample_of(row, chosen, fields, image)
            geometry = geometry_of(row, preprocess) if row["status"] == OK else None
            if values is not None and geometry is not None:
                _write(path / MAPS / f"{stem}.png", png(on_whole_image(values, geometry)))
                sample["explanation"] = {
                    "_cls": "Heatmap",
                    "tags": [],
                    "map_path": f"{MAPS}/{stem}.png",
                    "range": [0, 255],
                }
            samples.add(sample)
    if unread:
        chosen.notes.append(f"{unread} images could not be read any more, so they are left out")
    (path / "metadata.json").write_text(json.dumps(_metadata(chosen)), encoding="utf-8")
    return samples.count


def sample_of(row: Mapping[str, Any], chosen: Chosen, fields: Mapping[str, str], image: str) -> dict[str, Any]:
    """A sample as FiftyOne serialises it, without its map."""
    sample: dict[str, Any] = {"filepath": image, "tags": [row["status"]] if row["status"] != OK else [], "metadata": None,
                              "heatlas_id": row["id"], "status": row["status"], "method": row["method"]}  # fmt: skip
    if row.get("object_id") is not None:
        sample["object_id"] = row["object_id"]
    for field, column in (("ground_truth", "label"), ("prediction", "prediction"), ("target", "target")):
        if row[column] is not None:
            sample[field] = {"_cls": "Classification", "tags": [], "label": chosen.name_of(row[column])}
            if row[column] == row["target"] and field != "ground_truth":
                sample[field]["confidence"] = row["confidence"]
    return {**sample, **{field: plain(row[column]) for column, field in fields.items()}}


def field_names(columns: Iterable[str]) -> dict[str, str]:
    """Names that FiftyOne accepts, by column: letters, digits and `_`, none of its own, each once."""
    names: dict[str, str] = {}
    for column in columns:
        name = re.sub(r"\W", "_", column, flags=re.ASCII).strip("_") or "column"
        name = f"x_{name}" if name[0].isdigit() or name in OWN_FIELDS else name
        while name in names.values():
            name += "_"
        names[column] = name
    return names


def suffix_of(uri: str) -> str:
    """The image's own suffix, if it looks like one."""
    match = SUFFIX.search(uri)
    return match[0].lower() if match else ""


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)


def _metadata(chosen: Chosen) -> dict[str, Any]:
    metrics = chosen.atlas.metadata.get("metrics", {})
    info = {"store": chosen.atlas.uri, "run_created": chosen.atlas.run.get("created"), "classes": list(chosen.names),
            "metrics": {name: facts.get("definition") for name, facts in metrics.items()}}  # fmt: skip
    return {"name": "heatlas", "media_type": "image", "info": info}
