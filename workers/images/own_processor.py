"""The image processor of a model's own family, run as it is where heatlas's steps give other pixels.

It is named by a text, JSON with its `family` and its settings, so that workers, fingerprints and stores can hold it. A function that a
user's model brings along is kept by its text in each process that has the model.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from PIL import Image

from ...engine.lazy_torch import torch

Transform = Callable[[Image.Image], "torch.Tensor"]
"""An RGB image of any size to values `(channel, height, width)`."""


def processor_text(family: str, **settings: Any) -> str:
    """The text that names a processor: `hf` with `name` of the class and `settings`, `timm` with `config`, `given` with `name` and `says`."""
    return json.dumps({"family": family, **settings}, sort_keys=True)


def processor_name(text: str) -> str:
    """What a processor is called, for people."""
    said = json.loads(text)
    return said.get("name", f"transforms of {said['family']}")


def keep_processor(text: str, transform: Transform) -> None:
    """Let a text name a function of the user's in this process."""
    _KEPT[text] = transform


def kept_processor(text: str) -> Transform | None:
    """The function of a user's that a text names in this process; None where it names none."""
    return _KEPT.get(text)


def processor_of(text: str) -> Transform:
    """The processor that a text names.

    Raises:
        ImportError: If its package is not installed.
        KeyError: If the text names no processor.
        ValueError: If it is a function of a user's model, which this process has not loaded.
    """
    return _KEPT[text] if text in _KEPT else _made(text)


@lru_cache(maxsize=16)
def _made(text: str) -> Transform:
    said = json.loads(text)
    return _MAKERS[said["family"]](said)


def _given(said: Mapping[str, Any]) -> Transform:
    raise ValueError(f"{said['name']} is there only where the model is loaded")


def _timm(said: Mapping[str, Any]) -> Transform:
    data = importlib.import_module("timm.data")
    return data.create_transform(**said["config"], is_training=False)


def _transformers(said: Mapping[str, Any]) -> Transform:
    processor = getattr(importlib.import_module("transformers"), said["name"]).from_dict(said["settings"])
    return lambda image: pixel_values(processor, image)


def pixel_values(processor: Any, image: Image.Image) -> torch.Tensor:
    """What an image processor of transformers makes of one image, without the batch axis.

    Raises:
        ValueError: If that is no single image `(channel, height, width)`.
    """
    values = processor(images=image, return_tensors="pt").get("pixel_values")
    if values is None:
        raise ValueError("it gives no pixel_values")
    values = torch.as_tensor(values)
    if values.ndim != 4 or values.shape[0] != 1 or values.shape[1] not in (1, 3):
        raise ValueError(
            f"its pixel_values of one image have the shape {tuple(values.shape)}, not (1, channel, height, width): it cuts images into "
            "patches, tiles or frames"
        )
    return values[0].float()


_MAKERS: dict[str, Callable[[Mapping[str, Any]], Transform]] = {"timm": _timm, "hf": _transformers, "given": _given}
_KEPT: dict[str, Transform] = {}
"""Functions that users' models brought along, by their texts."""
