"""One Pascal VOC annotation: which image, which objects, where."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from xml.etree import ElementTree

from ....errors import DataError

LARGEST = 4 << 20
"""Bytes; an annotation of a thousand objects has some hundred thousand."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class VocObject:
    """An annotated object."""

    name: str
    box: Box
    """x0 y0 x1 y1 in pixels, x1 and y1 exclusive: VOC counts pixels from 1 and includes the last."""
    facts: dict[str, str]
    """Its other plain fields, such as `pose`, `truncated`, `difficult`."""


@dataclass(frozen=True)
class VocFile:
    """An annotation file."""

    image: str | None
    """Base name of the image, as the file has it."""
    objects: tuple[VocObject, ...]
    size: tuple[int, int] | None = None
    """Width and height of the picture on which they were drawn; None where it does not say."""


def read_voc(data: bytes, origin: str) -> VocFile:
    """Parse it; entities that would grow without end are refused by the parser, and outside ones are not read.

    Raises:
        DataError: If it is no annotation, or a box is none.
    """
    if len(data) > LARGEST:
        raise DataError(f"{origin} has {len(data)} bytes, more than the limit of {LARGEST} for an annotation")
    try:
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(f"{origin} is not readable XML: {error}; copy or download it again") from error
    if root.tag != "annotation":
        raise DataError(f"{origin} is not a VOC annotation: it begins with <{root.tag}>, not <annotation>")
    name = (root.findtext("filename") or "").strip().replace("\\", "/").rpartition("/")[2]
    objects = tuple(_object(element, origin) for element in root.findall("object"))
    return VocFile(name or None, objects, _size(root))


def _size(root: ElementTree.Element) -> tuple[int, int] | None:
    """Some programs write 0 where they do not know."""
    try:
        width, height = (int(float(root.findtext(f"size/{side}") or "")) for side in ("width", "height"))
    except (ValueError, OverflowError):
        return None
    return (width, height) if width > 0 and height > 0 else None


def _object(element: ElementTree.Element, origin: str) -> VocObject:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise DataError(f"an object in {origin} has no <name>; every object needs one")
    corners = [element.findtext(f"bndbox/{corner}") for corner in ("xmin", "ymin", "xmax", "ymax")]
    try:
        x0, y0, x1, y1 = (float(corner or "") for corner in corners)
    except ValueError:
        raise DataError(
            f"the <bndbox> of {name!r} in {origin} must have xmin, ymin, xmax and ymax, it has {corners}"
        ) from None
    facts = {
        child.tag: child.text.strip() for child in element if not len(child) and child.text and child.tag != "name"
    }
    if max(x0, y0, x1, y1) <= 1 and not all(corner.is_integer() for corner in (x0, y0, x1, y1)):
        return VocObject(name, (x0, y0, x1, y1), facts)  # fractions, which count from 0
    return VocObject(name, (x0 - 1, y0 - 1, x1, y1), facts)


def largest_class(objects: tuple[VocObject, ...]) -> str | None:
    """The class whose boxes have the largest area together; of equal ones the first in the alphabet; None without objects."""
    areas: dict[str, float] = defaultdict(float)
    for annotated in objects:
        x0, y0, x1, y1 = annotated.box
        areas[annotated.name] += max(0.0, x1 - x0) * max(0.0, y1 - y0)
    return min(areas, key=lambda name: (-areas[name], name)) if areas else None
