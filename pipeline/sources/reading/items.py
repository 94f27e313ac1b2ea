"""Images that a data set written in Python gives one by one: `item://INDEX/SOURCE`. The data set is made once per process."""

from __future__ import annotations

import functools
import io
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from ....errors import SampleError, UsageError
from ....statuses import DECODE_ERROR, READ_ERROR
from ....workers.object_names import PREFIX, given_object

FACTORIES: dict[str, Callable[[str], Any]] = {}
"""By the prefix of the source, what makes the data set from the rest of it; filled by the sources themselves."""
_LOCK = threading.Lock()


def register_factory(prefix: str) -> Callable[[Callable[[str], Any]], Callable[[str], Any]]:
    """Registers a function that makes data sets."""

    def register(function: Callable[[str], Any]) -> Callable[[str], Any]:
        FACTORIES[prefix] = function
        return function

    return register


def item_bytes(source: str, index: int, allowed: str | None) -> bytes:
    """The image of an item as PNG, without loss.

    Args:
        source: Such as `python:package.module:function`.
        index: Of the item.
        allowed: The one source that the user named. A URI can come from anywhere, and to make a data set is to run code.

    Raises:
        SampleError: If another source is named, or the item is no image, or getting it fails.
    """
    if source != allowed:
        raise SampleError(
            READ_ERROR,
            f"refused, because to read it runs {source}, which only --data and `heatlas show --trust-code` allow",
        )
    try:
        with _LOCK:  # data sets keep open files, which threads would move under each other
            kind, _, name = source.partition(":")
            data_set = given_object(name) if kind == PREFIX else _data_set(source, os.getpid())
            item = data_set[index]
    except UsageError as error:
        raise SampleError(READ_ERROR, str(error)) from error
    except Exception as error:
        raise SampleError(READ_ERROR, f"item {index} raised {type(error).__name__}: {error}") from error
    return png(image_of(item), index)


@functools.lru_cache(maxsize=2)
def _data_set(source: str, process: int) -> Any:
    prefix, _, rest = source.partition(":")
    return FACTORIES[prefix](rest)


def image_of(item: Any) -> Any:
    """An item is an image, or a tuple or list that begins with one, or a mapping with `image`."""
    if isinstance(item, Mapping):
        return item.get("image")
    return item[0] if isinstance(item, tuple | list) and item else item


def label_of(item: Any) -> Any:
    """The second of a tuple, or a mapping's `label`; None where there is none."""
    if isinstance(item, Mapping):
        return item.get("label")
    return item[1] if isinstance(item, tuple | list) and len(item) > 1 else None


def png(image: Any, index: int) -> bytes:
    """A Pillow image, an array `(height, width[, channel])` uint8, a tensor `(channel, height, width)`, uint8 or in [0, 1], or
    the bytes of an image file.

    Raises:
        SampleError: For everything else.
    """
    if isinstance(image, bytes):
        return image
    try:
        picture = image if isinstance(image, Image.Image) else _picture(image)
        if picture.mode not in ("1", "L", "LA", "I;16", "P", "RGB", "RGBA"):
            picture = picture.convert("RGB")
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", compress_level=1)
    except Exception as error:
        raise SampleError(
            DECODE_ERROR, f"item {index} is {type(image).__name__}, which is not an image: {error or type(error).__name__}; "
            "give a Pillow image, a uint8 array (height, width, channel), or a tensor (channel, height, width) in [0, 1]",
        ) from error  # fmt: skip
    return buffer.getvalue()


def _picture(image: Any) -> Image.Image:
    import torch
    from torchvision.transforms.functional import to_pil_image

    if isinstance(image, torch.Tensor):
        if image.is_floating_point() and not (float(image.min()) >= 0 and float(image.max()) <= 1):
            raise ValueError("its values leave [0, 1], so it is normalised already")
        return to_pil_image(image)
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        raise TypeError(f"its values are {getattr(image, 'dtype', 'none')}, not uint8")
    return Image.fromarray(image)
