"""Pascal VOC folders: `Annotations/*.xml` and `JPEGImages/`, or XML files beside their images.

Ids are the annotation's name without `.xml`, so the lines of `ImageSets/Main/val.txt` can be given as `--ids`. With
`rows: image` (the default) the label is the class with the largest boxes and the ground truth that class's boxes; with
`rows: annotation` there is one row per object, its id `NAME#NUMBER`, counted from 0 as in the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pyarrow as pa

from ....errors import DataError
from ...shards import DRAWN_ON
from .folder import is_image
from .options import Listed, SourceOptions
from .place import Place, find_place
from .plain_values import plain_columns
from .table import BOXES, make_listing
from .table import typed_column as typed_texts
from .voc_file import VocFile, VocObject, largest_class, read_voc

ANNOTATIONS, IMAGES = "Annotations", "JPEGImages"
_FILES_AT_ONCE = 16


def list_voc(data: str, options: SourceOptions) -> Listed:
    """The listing of a VOC folder.

    Raises:
        DataError: If there are no annotations, or one cannot be read.
    """
    place = find_place(data)
    if not place.is_folder:
        raise DataError(f"{data} is not a folder; give the one that contains {ANNOTATIONS} and {IMAGES}")
    names = place.names()
    inner = {name.casefold(): name for name in sorted(names, reverse=True)} | {name: name for name in names}
    annotations = _inner(place, inner, ANNOTATIONS)
    # as for COCO, what the user says goes first
    images = find_place(options.images) if options.images is not None else _inner(place, inner, IMAGES)
    stems = sorted(name[:-4] for name in annotations.names() if name.lower().endswith(".xml"))
    if not stems:
        raise DataError(
            f"there is no .xml in {annotations.origin}; give the folder that contains {ANNOTATIONS} and {IMAGES}"
        )
    with ThreadPoolExecutor(_FILES_AT_ONCE, thread_name_prefix="voc") as pool:
        files = list(pool.map(lambda stem: _read(annotations, f"{stem}.xml"), stems))
    return voc_listing(stems, files, _image_uris(images, stems, files), data, options)


def _inner(place: Place, names: Mapping[str, str], wanted: str) -> Place:
    """The folder of that name, whatever its case; the place itself where there is none."""
    name = names.get(wanted, names.get(wanted.casefold()))
    return place if name is None else place.inner(name)


def _read(folder: Place, name: str) -> VocFile:
    try:
        data = cast(bytes, folder.fs.cat_file(f"{folder.path.rstrip('/')}/{name}"))
    except Exception as error:  # each storage has errors of its own
        raise DataError(f"cannot read {name} of {folder.origin}: {type(error).__name__}: {error}") from error
    return read_voc(data, name)


def _image_uris(folder: Place, stems: Sequence[str], files: Sequence[VocFile]) -> list[str]:
    """The file that the annotation names, else one of the annotation's own name; `.jpg` where there is neither."""
    there = set(folder.names())
    by_stem = {name.rpartition(".")[0]: name for name in sorted(there, reverse=True) if is_image(name)}
    root = folder.uri(folder.path).rstrip("/")
    names = (file.image if file.image in there else by_stem.get(stem, file.image or f"{stem}.jpg") for stem, file in zip(stems, files, strict=True))  # fmt: skip
    return [f"{root}/{name}" for name in names]


def voc_listing(
    ids: Sequence[str], files: Sequence[VocFile], uris: Sequence[str], origin: str, options: SourceOptions
) -> Listed:
    """The listing of annotations that are read already."""
    rows: list[tuple[str, str, str | None, Sequence[VocObject]]] = []
    for identity, file, uri in zip(ids, files, uris, strict=True):
        if options.rows == "annotation":
            rows += [
                (f"{identity}#{number}", uri, annotated.name, [annotated])
                for number, annotated in enumerate(file.objects)
            ]
        else:
            label = largest_class(file.objects)
            rows.append((identity, uri, label, [annotated for annotated in file.objects if annotated.name == label]))
    columns: dict[str, Any] = {
        "id": pa.array([row[0] for row in rows], pa.string()),
        "uri": pa.array([row[1] for row in rows], pa.string()),
        "label": pa.array([row[2] for row in rows], pa.string()),
        "boxes": pa.array([[list(annotated.box) for annotated in row[3]] for row in rows], BOXES),
    }
    sizes = [file.size for file in files for _ in (file.objects if options.rows == "annotation" else (None,))]
    if any(sizes):
        columns[DRAWN_ON] = pa.array([None if size is None else list(size) for size in sizes], pa.list_(pa.int64()))
    extra = {}
    if options.extra and options.rows == "annotation":
        facts = plain_columns([row[3][0].facts for row in rows])
        extra = {name: typed_texts(pa.chunked_array([column])) for name, column in facts.items()}
    elif options.extra:
        extra = {
            "classes": pa.array(
                [", ".join(sorted({annotated.name for annotated in file.objects})) for file in files], pa.string()
            )
        }
    return Listed(make_listing(columns, origin, extra))
