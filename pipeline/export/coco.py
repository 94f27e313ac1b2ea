"""COCO-like JSON: one annotation per map, its box around the map's hottest region, in pixels of the image."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...statuses import OK
from ..store.schema import metric_columns
from .chosen import EXPLAINED, Chosen
from .json_arrays import ArrayFile, plain
from .whole_image import box_on_image, geometry_of, hot_box

WANTED = (*EXPLAINED, "height", "width")
ABOUT = (
    "Boxes are drawn by heatlas, not by people: around the connected region at the map's maximum in which it is at least half of that, in "
    "pixels of the upright image. Segmentation is the box."
)


def write_coco(chosen: Chosen, path: Path) -> int:
    """Write the file: `images` (all), `annotations` (of those that have a map), `categories` (the model's classes).

    Returns:
        Rows.
    """
    metrics = list(chosen.columns or metric_columns(chosen.atlas.schema))
    map_column = next(iter(chosen.has("map", "map_png")), None)
    if map_column is None:
        chosen.notes.append("the run stored no maps, so there are no boxes and no annotations")
    preprocess = chosen.preprocess
    columns: list[str] = list(dict.fromkeys([*chosen.has(*WANTED), *metrics]))
    highest, rows, image, last = len(chosen.names) - 1, 0, 0, None
    with tempfile.TemporaryDirectory(prefix=".coco-", dir=path.parent) as beside:
        parts = {name: Path(beside) / name for name in ("images", "annotations")}
        with ArrayFile(parts["images"]) as images, ArrayFile(parts["annotations"]) as annotations:
            for row, values in chosen.rows(columns, map_column):
                rows += 1
                if row["id"] != last:  # the rows of an image stand together
                    last, image = row["id"], image + 1
                    images.add(image_entry(row, image))
                highest = max(highest, row["target"] or 0)
                geometry = geometry_of(row, preprocess) if values is not None and row["status"] == OK else None
                box = hot_box(values) if values is not None and geometry is not None else None
                placed = box_on_image(box, geometry) if box and geometry else None
                if placed is not None:
                    annotations.add(annotation_entry(row, image, annotations.count + 1, placed, metrics))
        if images.count and map_column and not annotations.count:
            chosen.notes.append("no annotations: none of the chosen rows has a map and a known image size")
        _assemble(path, chosen, parts, highest)
    return rows


def image_entry(row: Mapping[str, Any], number: int) -> dict[str, Any]:
    return {"id": number, "file_name": row["uri"], "width": row["width"], "height": row["height"], "heatlas_id": row["id"],
            "label": row["label"], "prediction": row["prediction"], "status": row["status"]}  # fmt: skip


def annotation_entry(
    row: Mapping[str, Any], image: int, number: int, box: tuple[float, ...], metrics: list[str]
) -> dict[str, Any]:
    x, y, width, height = (round(float(side), 2) for side in box)
    corners = [x, y, x + width, y, x + width, y + height, x, y + height]
    return {"id": number, "image_id": image, "category_id": row["target"], "bbox": [x, y, width, height], "area": round(width * height, 2),
            "segmentation": [corners], "iscrowd": 0, "score": row["confidence"], "method": row["method"],
            **({} if row.get("object_id") is None else {"object_id": row["object_id"]}),
            "attributes": {name: plain(row[name]) for name in metrics}}  # fmt: skip


def _assemble(path: Path, chosen: Chosen, parts: Mapping[str, Path], highest: int) -> None:
    info = {"description": ABOUT, "store": chosen.atlas.uri, "run_created": chosen.atlas.run.get("created")}
    categories = [{"id": index, "name": chosen.name_of(index)} for index in range(highest + 1)]
    with open(path, "w", encoding="utf-8") as file:
        file.write(f'{{"info": {json.dumps(info)},\n"licenses": [],\n"categories": {json.dumps(categories)}')
        for name, part in parts.items():
            file.write(f',\n"{name}": ')
            file.writelines(_lines(part))
        file.write("}\n")


def _lines(path: Path) -> Iterator[str]:
    with open(path, encoding="utf-8") as file:
        yield from file
