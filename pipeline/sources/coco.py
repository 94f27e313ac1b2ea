"""COCO annotation JSON: images beside it, boxes and masks as ground truth, categories as labels.

`rows: image` (the default): one row per image, its id the `file_name`. The label is the category with the largest annotated
area, and the ground truth is that category's annotations, so that both speak of the same thing; images without annotations
have neither. `rows: annotation`: one row per annotation, its id `FILE_NAME#ANNOTATION`; the label is its category, the ground
truth the object alone. Annotations of crowds are left out. Masks are drawn by the workers, from the bytes of the JSON.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ...engine.errors import DataError
from ..location import locate
from .coco_file import CocoFile, read_coco
from .container_uri import mask_uri
from .listing import BOXES, make_listing
from .manifest import resolved
from .options import Listed, SourceOptions
from .place import Place, find
from .plain_values import plain_columns

LOOKED_FOR = 20
"""Images that are looked for in each folder where they may lie."""


def list_coco(data: str, options: SourceOptions) -> Listed:
    """The listing of a COCO file.

    Raises:
        DataError: If it is none, does not fit together, or none of the images looked for is found.
    """
    place = find(data)
    if place.is_folder or len(place.paths) != 1:
        raise DataError(
            f"{data} is not one file; name the annotation file, such as coco:{data.rstrip('/')}/instances.json"
        )
    try:
        with place.fs.open(place.path, "rb") as file:
            found = read_coco(file, data, facts=options.extra)  # pyright: ignore[reportArgumentType]
    except OSError as error:
        raise DataError(f"cannot read {data}: {error}") from error
    folder = _image_folder(place, found.files, options)
    groups = _per_image(found) if options.rows == "image" else _per_annotation(found)
    columns = _columns(found, groups, options.rows, folder, place.uri(place.path))
    extra = _facts(found, groups, options.rows) if options.extra else {}
    return Listed(make_listing(columns, data, extra), tuple(found.categories.values()) or None)


Group = tuple[int, Sequence[int]]
"""An image's position and those of the annotations that are its ground truth, all of one category."""


def _per_annotation(found: CocoFile) -> list[Group]:
    return [(found.image_ids[image], (number,)) for number, image in enumerate(found.images_of)]


def _per_image(found: CocoFile) -> list[Group]:
    """For every image the annotations of the category with the largest area; of equal ones the category listed first."""
    images = np.array([found.image_ids[image] for image in found.images_of], dtype=np.int64)
    if not len(images):
        return [(image, ()) for image in range(len(found.files))]
    ranks = {identity: rank for rank, identity in enumerate(found.categories)}
    categories = np.array([ranks[category] for category in found.categories_of], dtype=np.int64)
    areas = np.frombuffer(found.areas, dtype=np.float64)
    order = np.lexsort((categories, images))
    edges = np.flatnonzero(np.diff(images[order], prepend=-1) | np.diff(categories[order], prepend=-1))
    best: dict[int, tuple[float, int, int]] = {}
    for start, stop in zip(edges, [*edges[1:], len(order)], strict=True):
        image, area = int(images[order[start]]), float(np.nansum(areas[order[start:stop]]))
        if image not in best or area > best[image][0]:
            best[image] = area, int(start), int(stop)
    nothing = (0.0, 0, 0)
    return [(image, order[slice(*best.get(image, nothing)[1:])].tolist()) for image in range(len(found.files))]


def _columns(found: CocoFile, groups: Sequence[Group], rows: str, folder: str, file: str) -> dict[str, pa.ChunkedArray]:
    names = [found.files[image] for image, _ in groups]
    if rows == "annotation":
        ids = [f"{name}#{found.annotation_ids[number]}" for name, (_, [number]) in zip(names, groups, strict=True)]
    else:
        ids = names
    labels = [found.categories[found.categories_of[numbers[0]]] if numbers else None for _, numbers in groups]
    texts = {"id": ids, "label": labels, "mask_uri": [_mask(found, *group, file) for group in groups]}
    columns = {name: _array(values, pa.string()) for name, values in texts.items()}
    boxes = [[box for number in numbers if (box := found.boxes[4 * number : 4 * number + 4].tolist())[0] == box[0]] for _, numbers in groups]  # fmt: skip
    return {**columns, "boxes": _array(boxes, BOXES), "uri": resolved(_array(names, pa.string()), folder)}


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, kind)])


def _mask(found: CocoFile, image: int, numbers: Sequence[int], file: str) -> str | None:
    """Where to draw the mask from; None where no annotation has a segmentation, and boxes are all there is."""
    width, height = found.sizes[2 * image : 2 * image + 2]
    if not (width and height) or not any(found.drawn[number] for number in numbers):
        return None
    return mask_uri(width, height, tuple((found.places[2 * n], found.places[2 * n + 1]) for n in numbers), file)


def _facts(found: CocoFile, groups: Sequence[Group], rows: str) -> dict[str, pa.Array]:
    """The data set's own columns: fields of the images and, row by row, of the annotations."""
    ids = list(found.image_ids)
    if rows == "annotation":
        facts = (
            {"image_id": ids[image], "annotation_id": found.annotation_ids[number], **found.image_facts[image],
             **{f"annotation_{key}" if key in found.image_facts[image] else key: value for key, value in found.annotation_facts[number].items()}}
            for image, [number] in groups
        )  # fmt: skip
        return plain_columns(list(facts))
    named: list[set[str]] = [set() for _ in found.files]
    for image, category in zip(found.images_of, found.categories_of, strict=True):
        named[found.image_ids[image]].add(found.categories[category])
    return plain_columns([
        {"image_id": ids[image], "categories": ", ".join(sorted(named[image])), **found.image_facts[image]} for image, _ in groups
    ])  # fmt: skip


def _image_folder(place: Place, files: Sequence[str], options: SourceOptions) -> str:
    """The folder relative to which `file_name` is meant: the first in which an image is.

    Raises:
        DataError: Naming where they were looked for.
    """
    if options.images is not None:
        found = find(options.images)
        return found.uri(found.path).rstrip("/")
    beside = place.uri(place.path).rpartition("/")[0]
    some = [
        name for name in files[:: max(1, len(files) // LOOKED_FOR)] if not name.startswith("/") and "://" not in name
    ]
    candidates = list(dict.fromkeys(_candidates(beside, place.path, options.data_root)))
    for folder in candidates:
        if not some or any(_is_file(f"{folder}/{name}") for name in some):
            return folder
    raise DataError(
        f"none of {len(some)} images of {place.origin} was found, the first is {some[0]!r}; looked in {', '.join(candidates)}; "
        "say where they lie with --images FOLDER"
    )


def _is_file(uri: str) -> bool:
    fs, path = locate(uri)
    return fs.isfile(path)


def _candidates(beside: str, path: str, data_root: str | None) -> Iterator[str]:
    """Usual places: the root that was named, beside the file, or as COCO has it, `annotations/instances_val.json` and `val/`."""
    if data_root is not None:
        yield data_root.rstrip("/")
    split = posixpath.splitext(posixpath.basename(path))[0].rpartition("_")[2]
    above = beside.rpartition("/")[0]
    yield from (beside, f"{beside}/images", f"{above}/{split}", f"{above}/images/{split}", f"{above}/images", above)
