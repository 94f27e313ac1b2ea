"""A COCO annotation file in compact columns: images, categories, and where in the file each annotation lies."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from ....errors import DataError
from .json_stream import elements
from .plain_values import GrowingColumns

LISTS = ("images", "annotations", "categories")
_OF_IMAGE = ("id", "file_name", "width", "height")
_OF_ANNOTATION = ("id", "image_id", "category_id", "segmentation", "bbox", "iscrowd")


def _doubles() -> array[float]:
    return array("d")


def _integers() -> array[int]:
    return array("q")


@dataclass
class CocoFile:
    """What a file says, in its order. Annotations of crowds are left out, as in COCO's own evaluation."""

    files: list[str] = field(default_factory=list)
    image_ids: dict[Any, int] = field(default_factory=dict)
    """Position in `files` by id."""
    sizes: array[int] = field(default_factory=_integers)
    """Width and height of each image, 0 where not given."""
    image_facts: GrowingColumns = field(default_factory=GrowingColumns)
    """Further fields of each image; empty unless they are wanted."""
    categories: dict[Any, str] = field(default_factory=dict)
    """Name by id, in the order of ids."""
    backslashes: bool = False
    """Whether paths of images had backslashes, which are read as slashes."""
    annotation_ids: list[Any] = field(default_factory=list)
    images_of: list[Any] = field(default_factory=list)
    """For every annotation its image's id; of equal ids in a row one object."""
    categories_of: list[Any] = field(default_factory=list)
    boxes: array[float] = field(default_factory=_doubles)
    """Four numbers for every annotation, x0 y0 x1 y1 in pixels; NaN where it has no box."""
    areas: array[float] = field(default_factory=_doubles)
    """In pixels."""
    places: array[int] = field(default_factory=_integers)
    """Offset and length in bytes of every annotation."""
    drawn: bytearray = field(default_factory=bytearray)
    """1 for every annotation that has a segmentation."""
    annotation_facts: GrowingColumns = field(default_factory=GrowingColumns)


def read_coco(file: IO[bytes], origin: str, *, image_facts: bool, annotation_facts: bool) -> CocoFile:
    """Read it from end to end.

    Args:
        file: Open, at its beginning.
        origin: For messages.
        image_facts: Whether further fields of images are wanted.
        annotation_facts: Whether those of annotations are.

    Raises:
        DataError: If it is no COCO file, or something in it does not fit together.
    """
    coco, seen = CocoFile(), set()
    try:
        for key, offset, length, element in elements(file, LISTS):
            seen.add(key)
            if not isinstance(element, Mapping):
                raise DataError(f"an element of {key!r} in {origin} is {str(element)[:60]!r}, not an object")
            if key == "images":
                _add_image(coco, element, origin, image_facts)
            elif key == "categories":
                coco.categories[_of(element, "id", key, origin)] = str(_of(element, "name", key, origin))
            elif not element.get("iscrowd"):
                _add_annotation(coco, element, (offset, length), origin, annotation_facts)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{origin} is not readable JSON: {error}; copy or download it again") from error
    if "images" not in seen:
        raise DataError(f"{origin} has no list 'images' with at least 1 image, so it is not a COCO file; a manifest ends in .jsonl or .csv")  # fmt: skip
    _check_references(coco, origin)
    coco.categories = dict(sorted(coco.categories.items(), key=lambda item: (str(type(item[0])), item[0])))
    return coco


def _of(element: Mapping[str, Any], name: str, key: str, origin: str) -> Any:
    value = element.get(name)
    if isinstance(value, float) and value.is_integer():  # as pandas writes ids of a column with gaps
        value = int(value)
    if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
        raise DataError(f"an element of {key!r} in {origin} has {name} {value!r}, it needs a number or text: {str(dict(element))[:80]}")  # fmt: skip
    return value


def _add_image(coco: CocoFile, image: Mapping[str, Any], origin: str, facts: bool) -> None:
    identity, name = _of(image, "id", "images", origin), _of(image, "file_name", "images", origin)
    if identity in coco.image_ids:
        first = coco.files[coco.image_ids[identity]]
        raise DataError(
            f"the image id {identity!r} of {origin} names two images: {first!r} and {name!r}; ids must be unique"
        )
    coco.image_ids[identity] = len(coco.files)
    name = str(name)
    if "\\" in name and "/" not in name:
        name, coco.backslashes = name.replace("\\", "/"), True
    coco.files.append(name)
    coco.sizes.extend(_pixels(image.get(side)) for side in ("width", "height"))
    if facts:
        coco.image_facts.add(
            {"image_id": identity, **{key: value for key, value in image.items() if key not in _OF_IMAGE}}
        )


def _pixels(value: Any) -> int:
    """A side of an image; some programs write whole numbers as floats (`640.0`)."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and 0 < value < 2**31 else 0


def _add_annotation(
    coco: CocoFile, annotation: Mapping[str, Any], place: tuple[int, int], origin: str, facts: bool
) -> None:
    identity = _of(annotation, "id", "annotations", origin)
    box = annotation.get("bbox")
    try:
        x, y, width, height = map(float, box) if box else [float("nan")] * 4
    except (TypeError, ValueError):
        raise DataError(
            f"annotation {identity} of {origin} has bbox {box!r}; it must be [x, y, width, height] in pixels"
        ) from None
    area = annotation.get("area")
    coco.annotation_ids.append(identity)
    coco.images_of.append(_shared(_of(annotation, "image_id", "annotations", origin), coco.images_of))
    coco.categories_of.append(_of(annotation, "category_id", "annotations", origin))
    coco.boxes.extend((x, y, x + width, y + height))
    coco.areas.append(float(area) if isinstance(area, int | float) else max(0.0, width * height))
    coco.places.extend(place)
    coco.drawn.append(bool(annotation.get("segmentation")))
    if facts:
        coco.annotation_facts.add(
            {
                "annotation_id": identity,
                **{key: value for key, value in annotation.items() if key not in _OF_ANNOTATION},
            }
        )


def _shared(value: Any, before: list[Any]) -> Any:
    return before[-1] if before and before[-1] == value else value


def _check_references(coco: CocoFile, origin: str) -> None:
    for identity, image, category in zip(coco.annotation_ids, coco.images_of, coco.categories_of, strict=True):
        if image not in coco.image_ids:
            remedy = _written_alike(image, coco.image_ids) or "remove it"
            raise DataError(
                f"annotation {identity} of {origin} names image {image!r}, which is not among its images; {remedy}"
            )
        if category not in coco.categories:
            remedy = _written_alike(category, coco.categories) or "add it"
            raise DataError(f"annotation {identity} of {origin} names category {category!r}, which is not among its categories; {remedy}")  # fmt: skip


def _written_alike(wanted: Any, there: Mapping[Any, Any]) -> str:
    """The remedy where an id is text in one place and a number in another."""
    alike = next((identity for identity in there if str(identity) == str(wanted)), None)
    return "" if alike is None else f"but {alike!r} is: write ids as numbers or as texts everywhere"
