"""Write suggestions as COCO JSON with run lengths, also in a zip as CVAT imports it, and read annotations back."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from pycocotools import mask as coco

from ...errors import UsageError
from ..decisions.rle import LARGEST_PIXELS, Rle, checked_rle, decode_mask, encode_mask
from .suggestion import DECISIONS, Answer, Suggestion

INSIDE = "annotations/instances_default.json"
"""Where CVAT looks for the file in a zip."""
LARGEST_BYTES = 1_000_000_000
ABOUT = (
    "Suggestions of heatlas. The category is the decision: shortcut and core have a mask; relabel:CLASS, ok, drop and unsure are about the whole image. "
    "Masks are run lengths in pixels of the upright image."
)


def coco_bytes(suggestions: Sequence[Suggestion], class_names: Sequence[str]) -> bytes:
    """The JSON file: one annotation per suggestion, its category what it proposes."""
    names = [*DECISIONS, *(f"relabel:{name}" for name in class_names)]
    names += sorted({it.proposal for it in suggestions} - set(names))
    number = {name: place for place, name in enumerate(names, 1)}
    images: dict[str, dict[str, Any]] = {}
    annotations = []
    for it in suggestions:
        image = images.setdefault(
            it.id, {"id": len(images) + 1, "file_name": it.uri, "width": it.width, "height": it.height, "heatlas_id": it.id, "label": it.label}
        )  # fmt: skip
        pixels = it.pixels()
        whole = pixels is None
        if pixels is None:
            pixels = np.ones((it.height, it.width), bool)
        annotations.append({
            "id": len(annotations) + 1, "image_id": image["id"], "category_id": number[it.proposal], "iscrowd": 1, "bbox": it.box(),
            "area": int(pixels.sum()), "segmentation": _uncompressed(encode_mask(pixels)), "score": it.priority,
            "attributes": {"heatlas_id": it.id, "suggestion_id": it.suggestion_id, "kind": it.kind, "priority": it.priority,
                           "reason": it.reason, "whole_image": whole},
        })  # fmt: skip
    categories = [{"id": place, "name": name, "supercategory": ""} for name, place in number.items()]
    data = {
        "info": {"description": ABOUT},
        "licenses": [],
        "categories": categories,
        "images": list(images.values()),
        "annotations": annotations,
    }
    return json.dumps(data, ensure_ascii=False).encode()


def cvat_bytes(suggestions: Sequence[Suggestion], class_names: Sequence[str]) -> bytes:
    """The same in a zip, as CVAT's format "COCO 1.0" has it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(INSIDE, coco_bytes(suggestions, class_names))
    return buffer.getvalue()


def json_of_zip(data: bytes, origin: str) -> bytes:
    """The annotations in a zip that CVAT exported.

    Raises:
        UsageError: If there is not exactly one `annotations/*.json`, or it is too large.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = [
                it
                for it in archive.infolist()
                if it.filename.startswith("annotations/") and it.filename.endswith(".json")
            ]
            if len(files) != 1:
                raise UsageError(
                    f"{origin} must hold one annotations/*.json, it has {len(files)}; export one task as COCO 1.0"
                )
            if files[0].file_size > LARGEST_BYTES:
                raise UsageError(
                    f"{files[0].filename} in {origin} has {files[0].file_size:,} bytes, more than the {LARGEST_BYTES:,} that are read"
                )
            return archive.read(files[0])
    except (zipfile.BadZipFile, OSError, RuntimeError) as error:
        raise UsageError(f"cannot read {origin} as a zip: {error}") from error


def read_coco_answers(data: bytes, origin: str, ids: Mapping[str, str]) -> list[Answer]:
    """Annotations whose category is a decision; others are left out.

    Args:
        data: The JSON file.
        origin: Its name, for messages.
        ids: Image ids by URI and by base name, for tools that keep only file names.

    Raises:
        UsageError: For a file of another form, an image that the store does not know, or a mask that does not fit its image.
    """
    try:
        content = json.loads(data)
        images = {image["id"]: image for image in content["images"]}
        categories = {category["id"]: str(category["name"]) for category in content["categories"]}
        annotations = list(content["annotations"])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{origin} is no COCO file with images, annotations and categories: {error!r}") from None
    answers = []
    for annotation in annotations:
        called = categories.get(annotation.get("category_id"), "")
        if called not in DECISIONS and not called.startswith("relabel:"):
            continue
        image = images.get(annotation.get("image_id"))
        if image is None:
            raise UsageError(f"annotation {annotation.get('id')} of {origin} belongs to no image of the file")
        attributes = annotation.get("attributes") or {}
        mask = _mask(annotation, image, origin) if called in ("shortcut", "core") else None
        answers.append(Answer(id_of(image, ids, origin), called, mask, suggestion_id=attributes.get("suggestion_id")))
    return answers


def coco_image_ids(data: bytes, origin: str, ids: Mapping[str, str]) -> set[str]:
    """Ids of all images of a file that `read_coco_answers` can read, whether anything is marked in them or not."""
    return {id_of(image, ids, origin) for image in json.loads(data)["images"]}


def id_of(image: Mapping[str, Any], ids: Mapping[str, str], origin: str) -> str:
    """The store's id of an image: what heatlas wrote, else by its file name.

    Raises:
        UsageError: If the store has no such image.
    """
    if image.get("heatlas_id") is not None:
        return str(image["heatlas_id"])
    name = str(image.get("file_name", ""))
    identity = ids.get(name) or ids.get(os.path.basename(name))
    if identity is None:
        raise UsageError(
            f"{origin} has the image {name!r}, which was not pushed from this store (or whose base name is not unique)"
        )
    return identity


def _uncompressed(rle: Rle) -> dict[str, Any]:
    """Run lengths as numbers, which every tool reads."""
    flat = np.asfortranarray(decode_mask(rle)).ravel(order="F")
    edges = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1, [len(flat)]])
    runs = np.diff(edges).tolist()
    return {"size": rle["size"], "counts": [0, *runs] if flat[0] else runs}


def _mask(annotation: Mapping[str, Any], image: Mapping[str, Any], origin: str) -> Rle | None:
    """Run lengths, or polygons as COCO's own library fills them."""
    segmentation = annotation.get("segmentation")
    height, width = int(image["height"]), int(image["width"])
    if not segmentation:
        return None
    if isinstance(segmentation, Mapping):
        rle = checked_rle(segmentation)
    else:
        if not 1 <= height * width <= LARGEST_PIXELS:
            raise UsageError(
                f"an image of {origin} has {width} x {height} pixels, outside the limit of 1 to {LARGEST_PIXELS:,}"
            )
        polygons = cast(Any, coco.frPyObjects(cast(Any, segmentation), height, width))
        merged = cast(Any, coco.merge(polygons))
        rle = checked_rle({"size": [height, width], "counts": merged["counts"]})
    if rle["size"] != [height, width]:
        raise UsageError(
            f"annotation {annotation.get('id')} of {origin} has a mask of {rle['size'][1]} x {rle['size'][0]} pixels, its image has {width} x {height}"
        )
    return rle
