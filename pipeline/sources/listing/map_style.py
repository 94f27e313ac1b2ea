"""Data sets written in Python with a length and items: an item is an image, an (image, label) pair, or a mapping with `image`
and `label`. Where the data set says it, labels, classes and ids are taken without looking at any image:

    targets, labels, _labels        a label per item
    classes                         names by label, if labels are numbers
    ids                             an id per item; else the item's number with nine digits
    samples, imgs, images ...       a path per item, which is then read as it is, without the data set

Without labels of its own every item is asked for once while listing. What may be wrong with a data set is a DataError.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from ....errors import DataError
from ..reading.container_uri import item_uri
from ..reading.items import label_of
from .options import Listed
from .table import make_listing, numbered

_LABELS = ("targets", "labels", "_labels")
_PATHS = ("samples", "imgs", "_samples", "images", "_images", "_image_files")


def list_items(data_set: Any, source: str, root: str | None = None) -> Listed:
    """The listing of a data set.

    Args:
        data_set: With `__len__` and `__getitem__`.
        source: By which a worker makes it again, such as `python:package.module:function`.
        root: Folder relative to which ids are written, where items are files.

    Raises:
        DataError: If it is no such data set, or an attribute has another length than it.
    """
    count = _length(data_set, source)
    paths = None if root is None else _paths(data_set, count)
    labels, names = _labels(data_set, count, source), _names(data_set)
    ids = _attribute_values(data_set, ("ids",), count, source)
    if ids is not None:
        columns: dict[str, Any] = {"id": pa.array([str(identity) for identity in ids], pa.string())}
    elif paths is not None:
        columns = {"id": pa.array([os.path.relpath(path, root) for path in paths], pa.string())}
    else:
        columns = {"id": numbered(count)}
    columns["uri"] = pa.array(paths or [item_uri(index, source) for index in range(count)], pa.string())
    columns["label"] = pa.array([_text(label, names) for label in labels], pa.string())
    return Listed(make_listing(columns, source), names)


def _length(data_set: Any, source: str) -> int:
    try:
        count = len(data_set)
    except TypeError:
        raise DataError(
            f"{source} gives {type(data_set).__name__}, which has no length; return a map-style data set with __len__ and __getitem__"
        ) from None
    if count == 0:
        raise DataError(f"{source} has no items; it needs at least 1")
    if not hasattr(data_set, "__getitem__"):
        raise DataError(f"{source} gives {type(data_set).__name__}, which has no items; return a map-style data set")
    return count


def _attribute_values(data_set: Any, names: Sequence[str], count: int, source: str) -> Sequence[Any] | None:
    """The first of these attributes that is there, as a list."""
    for name in names:
        values = getattr(data_set, name, None)
        if values is None or callable(values):
            continue
        values = values.tolist() if hasattr(values, "tolist") else list(values)
        if len(values) != count:
            raise DataError(f"{source}: {name} has {len(values)} entries for {count} items; they must agree")
        return values
    return None


def _labels(data_set: Any, count: int, source: str) -> Sequence[Any]:
    told = _attribute_values(data_set, _LABELS, count, source)
    if told is not None:
        return told
    labels = []
    for index in range(count):
        try:
            labels.append(label_of(data_set[index]))
        except Exception as error:
            raise DataError(f"{source}: item {index} raised {type(error).__name__}: {error}; give the data set `targets`, then items are read by the workers and each failure is a row") from error  # fmt: skip
    return labels


def _names(data_set: Any) -> tuple[str, ...] | None:
    names = getattr(data_set, "classes", None)
    return tuple(map(str, names)) if isinstance(names, Sequence) and not isinstance(names, str) and names else None


def _text(label: Any, names: Sequence[str] | None) -> str | None:
    if hasattr(label, "item"):  # a number of NumPy or torch
        try:
            label = label.item()
        except (ValueError, RuntimeError):
            return None  # several
    if label is None or isinstance(label, dict | list | tuple):
        return None  # boxes, masks, several labels: not what a label column holds
    if isinstance(label, int) and not isinstance(label, bool) and names and 0 <= label < len(names):
        return names[label]
    return str(label)


def _paths(data_set: Any, count: int) -> list[str] | None:
    """A file per item, if the data set has a list of them."""
    for name in _PATHS:
        values = getattr(data_set, name, None)
        if not isinstance(values, list) or len(values) != count:
            continue
        paths = [value[0] if isinstance(value, tuple) else value for value in values]
        if all(isinstance(path, str | os.PathLike) for path in paths):
            return [os.path.abspath(path) for path in paths]
    return None
