"""COCO annotation JSON: images beside it, boxes and masks as ground truth, categories as labels.

`rows: image` (the default): one row per image, its id the `file_name`. The label is the category with the largest annotated
area, and the ground truth is that category's annotations, so that both speak of the same thing; images without annotations
have neither. `rows: annotation`: one row per annotation, its id `FILE_NAME#ANNOTATION`; the label is its category, the ground
truth the object alone. Annotations of crowds are left out. Masks are drawn by the workers, from the bytes of the JSON.
"""

from __future__ import annotations

import itertools
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ....errors import DataError
from ...shards import DRAWN_ON
from ...storage.location import locate
from ..reading.container_uri import mask_uri
from .coco_file import CocoFile, read_coco
from .manifest import resolved
from .options import Listed, SourceOptions
from .place import Place, find_place
from .plain_values import ROWS_AT_ONCE
from .table import BOXES, make_listing

LOOKED_FOR = 20
"""Images that are looked for in each folder where they may lie."""


def list_coco(data: str, options: SourceOptions) -> Listed:
    """The listing of a COCO file.

    Raises:
        DataError: If it is none, does not fit together, or none of the images looked for is found.
    """
    place = find_place(data)
    if place.is_folder or len(place.paths) != 1:
        raise DataError(
            f"{data} is not one file; name the annotation file, such as coco:{data.rstrip('/')}/instances.json"
        )
    try:
        with place.fs.open(place.path, "rb") as file:
            by_annotation = options.extra and options.rows == "annotation"
            annotations = read_coco(file, data, image_facts=options.extra, annotation_facts=by_annotation)  # pyright: ignore[reportArgumentType]
    except OSError as error:
        raise DataError(f"cannot read {data}: {error}") from error
    folder = _image_folder(place, annotations.files, options)
    groups = _per_image(annotations) if options.rows == "image" else _per_annotation(annotations)
    columns = _columns(annotations, groups, options.rows, folder, place.uri(place.path))
    extra = _facts(annotations, groups, options.rows) if options.extra else {}
    used = set(annotations.categories_of)
    return Listed(
        make_listing(columns, data, extra),
        tuple(annotations.categories.values()) or None,
        tuple(name for identity, name in annotations.categories.items() if identity != 0 or identity in used) or None,
        notes=(f"the paths of {data} have backslashes, which are read as slashes",) if annotations.backslashes else (),
    )


@dataclass(frozen=True)
class AnnotationGroups:
    """The rows: for each an image and its ground truth, annotations of one category."""

    images: np.ndarray
    """Position of the image."""
    starts: np.ndarray
    stops: np.ndarray
    order: np.ndarray
    """Positions of annotations; those of a row are `order[start:stop]`."""

    def __len__(self) -> int:
        return len(self.images)

    def some(self, start: int) -> list[tuple[int, list[int]]]:
        """The next rows as Python objects."""
        which = slice(start, start + ROWS_AT_ONCE)
        rows = zip(self.images[which].tolist(), self.starts[which].tolist(), self.stops[which].tolist(), strict=True)
        return [(image, self.order[first:last].tolist()) for image, first, last in rows]


def _image_positions(annotations: CocoFile) -> np.ndarray:
    return np.fromiter(
        (annotations.image_ids[image] for image in annotations.images_of), np.int64, len(annotations.images_of)
    )


def _per_annotation(annotations: CocoFile) -> AnnotationGroups:
    images = _image_positions(annotations)
    order = np.arange(len(images))
    return AnnotationGroups(images, order, order + 1, order)


def _per_image(annotations: CocoFile) -> AnnotationGroups:
    """For every image the annotations of the category with the largest area; of equal ones the category with the lower id."""
    every = np.arange(len(annotations.files))
    starts = stops = np.zeros(len(every), np.int64)
    images = _image_positions(annotations)
    if not len(images):
        return AnnotationGroups(every, starts, stops, images)
    ranks = {identity: rank for rank, identity in enumerate(annotations.categories)}
    categories = np.fromiter((ranks[category] for category in annotations.categories_of), np.int64, len(images))
    order = np.lexsort((categories, images))
    edges = np.flatnonzero(np.diff(images[order], prepend=-1) | np.diff(categories[order], prepend=-1))
    sums = np.add.reduceat(np.frombuffer(annotations.areas, dtype=np.float64)[order], edges)
    ends = np.append(edges[1:], len(order))
    by_area = np.lexsort((-sums, images[order][edges]))  # stable, so equal areas stay in the order of categories
    owners, first = np.unique(images[order][edges][by_area], return_index=True)
    starts, stops = starts.copy(), stops.copy()
    starts[owners], stops[owners] = edges[by_area[first]], ends[by_area[first]]
    return AnnotationGroups(every, starts, stops, order)


def _columns(
    annotations: CocoFile, groups: AnnotationGroups, rows: str, folder: str, file: str
) -> dict[str, pa.ChunkedArray]:
    tables = [
        _table(annotations, groups.some(start), rows, folder, file) for start in range(0, len(groups), ROWS_AT_ONCE)
    ]
    if not tables:
        return {"uri": _array([], pa.string())}
    table = pa.concat_tables(tables)
    return {name: table[name] for name in table.column_names}


def _table(annotations: CocoFile, some: Sequence[tuple[int, list[int]]], rows: str, folder: str, file: str) -> pa.Table:
    names = [annotations.files[image] for image, _ in some]
    ids = names
    if rows == "annotation":
        ids = [f"{name}#{annotations.annotation_ids[number]}" for name, (_, [number]) in zip(names, some, strict=True)]
    labels = [annotations.categories[annotations.categories_of[numbers[0]]] if numbers else None for _, numbers in some]
    texts = {
        "id": ids,
        "label": labels,
        "mask_uri": [_mask(annotations, image, numbers, file) for image, numbers in some],
    }
    boxes = [[box for number in numbers if (box := annotations.boxes[4 * number : 4 * number + 4].tolist())[0] == box[0]] for _, numbers in some]  # fmt: skip
    columns = {name: _array(values, pa.string()) for name, values in texts.items()}
    sizes = [annotations.sizes[2 * image : 2 * image + 2].tolist() for image, _ in some]
    drawn_on = _array([size if all(size) else None for size in sizes], pa.list_(pa.int64()))
    uris = resolved(_array(names, pa.string()), folder)
    return pa.table({**columns, "boxes": _array(boxes, BOXES), "uri": uris, DRAWN_ON: drawn_on})


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, kind)])


def _mask(annotations: CocoFile, image: int, numbers: Sequence[int], file: str) -> str | None:
    """Where to draw the mask from; None where no annotation has a segmentation, and boxes are all there is."""
    width, height = annotations.sizes[2 * image : 2 * image + 2]
    if not (width and height) or not any(annotations.drawn[number] for number in numbers):
        return None
    return mask_uri(
        width, height, tuple((annotations.places[2 * n], annotations.places[2 * n + 1]) for n in numbers), file
    )


def _facts(annotations: CocoFile, groups: AnnotationGroups, rows: str) -> dict[str, Any]:
    """The data set's own columns: fields of the images and, row by row, of the annotations."""
    of_image = annotations.image_facts.columns()
    if rows == "annotation":
        row = pa.array(groups.images)
        facts = {name: column.take(row) for name, column in of_image.items()}
        of_annotation = annotations.annotation_facts.columns()
        return facts | {
            f"annotation_{name}" if name in facts else name: column for name, column in of_annotation.items()
        }
    return {"image_id": of_image["image_id"], "categories": _all_categories(annotations), **of_image}


def _all_categories(annotations: CocoFile) -> pa.Array:
    """For every image the names of all its categories, in the order of the alphabet."""
    names = sorted(set(annotations.categories.values()))
    places = {identity: names.index(name) for identity, name in annotations.categories.items()}
    categories = np.fromiter(
        (places[category] for category in annotations.categories_of), np.int64, len(annotations.categories_of)
    )
    pairs = np.unique(_image_positions(annotations) * len(names) + categories)
    images, categories = np.divmod(pairs, max(1, len(names)))
    edges = np.searchsorted(images, np.arange(len(annotations.files) + 1)).tolist()
    texts = (
        ", ".join(names[category] for category in categories[start:stop]) for start, stop in itertools.pairwise(edges)
    )
    return pa.array(texts, pa.string())


def _image_folder(place: Place, files: Sequence[str], options: SourceOptions) -> str:
    """The folder relative to which `file_name` is meant: the first in which an image is.

    Raises:
        DataError: Naming where they were looked for.
    """
    if options.images is not None:
        folder = find_place(options.images)
        return folder.uri(folder.path).rstrip("/")
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
