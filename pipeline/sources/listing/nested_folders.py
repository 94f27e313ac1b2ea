"""Which folder on an image's way is its label: ImageFolder's first one by custom, the last one where the user says so. Where folders lie in
folders, such as splits that all hold the same classes, and neither the model's class names nor their number tell, it is asked about.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

from ....errors import DataError
from .label_readings import name_indices

FolderRule = Literal["first", "last"]
_SPLIT = re.compile(
    r"(train|training|trainval|val|valid|validation|dev|test|testing|eval|evaluation|holdout)"
    r"([ _-]?(set|split|data|images|imgs))?[ _-]?\d*"
)
_NAMED = 3
"""Folders named in a message."""


def is_split(name: str) -> bool:
    """Whether a folder is called like a part of a data set (`train`, `Val`, `test_set`, `train2017`)."""
    return _SPLIT.fullmatch(name.casefold()) is not None


def folder_label(path: str, rule: FolderRule | None) -> str | None:
    """The label of an image by its path below the root; None for one in the root itself."""
    folders = path.split("/")[:-1]
    if not folders:
        return None
    return folders[-1] if rule == "last" else folders[0]


def path_below_root(identity: str) -> str:
    """An image's path below the folder or tar that was named, by its id."""
    return identity.split(".tar/", 1)[-1]


def refuse_unclear_folders(
    ids: Iterable[str], class_names: Sequence[str] | None, num_classes: int | None, rule: FolderRule | None, data: str
) -> None:
    """Refuse folders in folders of which nobody says which are the classes.

    Args:
        ids: Of all samples of the data set, for a few of them may show one folder where there are several.
        class_names: Of the model, None where it has none.
        num_classes: Of the model, None where there is none.
        rule: What the user says.
        data: What the user listed.

    Raises:
        DataError: With the choices.
    """
    if rule is not None:
        return
    inner: defaultdict[str, set[str]] = defaultdict(set)
    for identity in ids:
        *folders, _ = path_below_root(identity).split("/")
        if folders:
            inner[folders[0]].add(folders[-1])
    if not inner:
        return
    first = list(inner)
    last = list(set().union(*inner.values()))
    deep = any(name != outer for outer, names in inner.items() for name in names)
    splits = [name for name in first if is_split(name)]
    if class_names is not None and any(index is not None for index in name_indices(first, class_names)):
        return
    choices = _choices(first, last, data, deep=deep)
    if class_names is not None:
        if deep and any(index is not None for index in name_indices(last, class_names)):
            raise DataError(
                f"the folders {_few(first)} are none of the model's classes, but folders below them are ({_few(last)}): {choices}"
            )
        return
    if not deep:
        if len(splits) > 1:
            raise DataError(
                f"the folders {_few(splits)} are called like parts of a data set, not like classes: {choices}"
            )
        return
    shared = [name for name in last if sum(name in names for names in inner.values()) > 1]
    count = num_classes is not None and len(first) != num_classes == len(last)
    if shared or count or len(splits) > 1:
        why = (
            f"several of them hold folders of the same name ({_few(shared)})"
            if shared
            else f"the model has {num_classes} classes, and that many folders lie below them"
            if count
            else f"{_few(splits)} are called like parts of a data set"
        )
        raise DataError(f"the folders {_few(first)} hold folders, and {why}, so either may be the classes: {choices}")


def _choices(first: Sequence[str], last: Sequence[str], data: str, *, deep: bool) -> str:
    part = f"--data {data.rstrip('/')}/{sorted(first)[0]} for one of them"
    if not deep:
        return f"say --labels.folder first if they are the classes, or {part}"
    return f"say --labels.folder first ({_few(first)} are classes), --labels.folder last ({_few(last)} are), or {part}"


def _few(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(map(repr, ordered[:_NAMED])) + (
        f" and {len(ordered) - _NAMED} more" if len(ordered) > _NAMED else ""
    )
