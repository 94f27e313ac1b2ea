"""torchvision's data sets by name, from disk: `torchvision:CIFAR10@ROOT?train=false`. Nothing is ever downloaded.

After `?` stand the class's own arguments, `NAME=VALUE&NAME=VALUE`: true, false, numbers, or text. Ids are paths relative to
ROOT where the data set consists of image files, else the item's number with nine digits. `VOCDetection` is read as VOC.
"""

from __future__ import annotations

import inspect
import os
from typing import Any
from urllib.parse import parse_qsl

from ....errors import DataError, did_you_mean
from ..reading.items import register_factory
from .map_style import list_items
from .options import Listed, SourceOptions
from .voc import voc_listing
from .voc_file import read_voc

PREFIX = "torchvision"


def list_torchvision(data: str, options: SourceOptions) -> Listed:
    """The listing of a data set of torchvision.

    Raises:
        DataError: If there is no such class, it is not at ROOT, or it does not know an argument.
    """
    data_set, root = make_data_set(data), _parts(data)[1]
    if hasattr(data_set, "annotations") and hasattr(data_set, "images"):  # VOCDetection
        stems = [os.path.splitext(os.path.basename(path))[0] for path in data_set.annotations]
        files = [read_voc(_bytes(path), path) for path in data_set.annotations]
        return voc_listing(stems, files, [os.path.abspath(path) for path in data_set.images], data, options)
    if options.rows == "annotation":
        raise DataError(f"{data} has no annotated objects; leave out --rows annotation")
    return list_items(data_set, f"{PREFIX}:{data}", os.path.abspath(root) if root else None)


def with_absolute_root(data: str) -> str:
    """The same data set for a process in another folder."""
    name, root, _ = _parts(data)
    before, at, after = data.partition("@")
    if not (at and root) or "?" in before:
        return data
    return f"{name}@{os.path.abspath(root)}{after[after.index('?') :] if '?' in after else ''}"


def _bytes(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


@register_factory(PREFIX)
def make_data_set(data: str) -> Any:
    """The data set, as torchvision makes it, without transforms.

    Raises:
        DataError: If there is no such class, it is not at ROOT, or it does not know an argument.
    """
    name, root, written = _parts(data)
    kind = _class(name)
    known = inspect.signature(kind.__init__).parameters
    for argument in written:
        if argument not in known or argument in _OURS:
            raise DataError(f"torchvision:{name} takes no argument {argument!r} here{did_you_mean(argument, known)}; it takes {', '.join(sorted(set(known) - _OURS)) or 'none'}")  # fmt: skip
    arguments: dict[str, Any] = {key: _value(text, known[key].default) for key, text in written.items()}
    if "root" in known:
        if not root:
            raise DataError(f"torchvision:{name} needs the folder where it lies: torchvision:{name}@ROOT")
        arguments = {"root": root, **arguments}
    if "download" in known:
        arguments["download"] = False
    try:
        return kind(**arguments)
    except Exception as error:  # each data set has errors of its own
        text = str(error).split(" You can use download")[0].rstrip(".") or type(error).__name__
        raise DataError(f"torchvision:{name} cannot be read at {root or '(no folder)'}: {text}; heatlas downloads no data sets: put it there first") from error  # fmt: skip


_OURS = {"self", "root", "download", "transform", "target_transform", "transforms", "loader", "is_valid_file"}


def _class(name: str) -> Any:
    from torchvision import datasets

    kind = getattr(datasets, name, None) if name in datasets.__all__ else None
    if not inspect.isclass(kind):
        raise DataError(
            f"torchvision has no data set {name!r}{did_you_mean(name, datasets.__all__)}; it has {', '.join(datasets.__all__)}"
        )
    return kind


def _parts(data: str) -> tuple[str, str, dict[str, str]]:
    """Name, root and arguments as written."""
    name, _, rest = data.partition("@")
    name, question, query = name.partition("?")
    if not question:
        rest, _, query = rest.partition("?")
    try:
        pairs = parse_qsl(query, strict_parsing=True, keep_blank_values=True) if query else []
    except ValueError as error:
        raise DataError(
            f"the arguments {query!r} of torchvision:{name} must be NAME=VALUE&NAME=VALUE: {error}"
        ) from error
    return name, os.path.expanduser(rest), dict(pairs)


def _value(text: str, default: Any) -> Any:
    """Text where the argument is text by default, such as a year."""
    if isinstance(default, str):
        return text
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
