"""What a module brings along: its attributes `preprocess` and `class_names`, and timm's data config.

`preprocess` may be a mapping of preprocess settings, a `Preprocess`, a preset of torchvision (`weights.transforms()`), an image processor
of transformers, or a function from an image to the network's input, such as transforms of torchvision, timm or albumentations. What a
function does is measured on pictures; where heatlas's steps give other pixels it runs itself. Nothing of it is ignored in silence.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ...errors import ModelError, SettingsError
from ..images.own_processor import Transform, keep_processor, processor_text
from ..images.preprocess import Preprocess, preprocess_from_preset, segmentation_note, with_overrides
from .built_model import UNSTATED
from .huggingface import preprocess_from_processor
from .input_channels import first_conv_channels
from .processor_match import matched_preprocess
from .timm import preprocess_from_timm

ATTRIBUTE = "preprocess"
_OTHER_NAMES = ("transform", "transforms", "image_processor", "processor")
"""Attributes that look like preprocessing and are not read."""
_PRESETS = ("ImageClassification", "SemanticSegmentation")
"""Of torchvision, by name because torchvision takes a second to import."""
_TRIES = 64
"""Calls on one small image by which a random transform shows itself: one that acts in 1 of 10 calls is missed in 1 of 800 trials."""
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_SIDES = (61, 83)
_TAKES = (
    "a mapping of preprocess settings, a Preprocess, a preset of torchvision, an image processor of transformers, or a function from a PIL "
    "image (or, as albumentations have it, image=ARRAY) to the network's input (channel, height, width)"
)


@dataclass(frozen=True)
class ModelAttributes:
    """What was found."""

    preprocess: Preprocess
    origin: str
    """Where it comes from, in words."""
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    """What the user should know."""


def attributes_of(model: nn.Module, what: str) -> ModelAttributes:
    """The preprocessing and class names that a module brings along.

    Args:
        model: As its maker returned it.
        what: Names it in messages, such as `nets:build()`.

    Raises:
        ModelError: If an attribute is there and cannot be taken.
    """
    given = getattr(model, ATTRIBUTE, None)
    names = _class_names(model, what)
    if given is not None:
        preprocess, notes = given_preprocess(given, f"the attribute `{ATTRIBUTE}` of what {what} returned")
        return ModelAttributes(preprocess, f"attribute `{ATTRIBUTE}` of {what}", names, notes)
    notes = tuple(
        f"{what} has an attribute `{name}`, which is not read; call it `{ATTRIBUTE}` if it makes the model's input"
        for name in _OTHER_NAMES
        if callable(getattr(model, name, None))
    )
    if isinstance(getattr(model, "pretrained_cfg", None), Mapping):
        try:
            config = importlib.import_module("timm.data").resolve_model_data_config(model)
            channels = first_conv_channels(model) or 3
            preprocess = preprocess_from_timm({**config, "input_size": (channels, *config["input_size"][1:])})
        except (ImportError, KeyError, ValueError) as error:
            raise ModelError(
                f"{what} is a model of timm, and its data config cannot be taken ({error}); say the preprocessing in an attribute "
                f"`{ATTRIBUTE}`"
            ) from error
        return ModelAttributes(preprocess, f"timm's data config of what {what} returned", names, notes)
    return ModelAttributes(Preprocess(), UNSTATED, names, notes)


def given_preprocess(given: Any, what: str) -> tuple[Preprocess, tuple[str, ...]]:
    """The preprocessing that a value says or does, and what the user should know of it.

    Args:
        given: See above.
        what: Names it in messages.

    Raises:
        ModelError: If it is none, or does something that heatlas cannot follow.
    """
    if isinstance(given, Preprocess):
        return given, ()
    if type(given).__module__ == "torchvision.transforms._presets" and type(given).__name__ in _PRESETS:
        return preprocess_from_preset(given), segmentation_note(given)
    if isinstance(given, Mapping):
        try:
            return with_overrides(Preprocess(), given), ()
        except SettingsError as error:
            raise ModelError(f"{what}: {error}") from error
    if not callable(given):
        raise ModelError(f"{what} must be {_TAKES}; it is a {type(given).__name__}")
    try:
        if hasattr(given, "to_json_string") and hasattr(given, "from_dict"):
            return preprocess_from_processor(given), ()
        return _measured(given, what)
    except Exception as error:  # functions of others raise nearly anything
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelError(
            f"{what} is a {type(given).__name__}, which heatlas cannot take for preprocessing: {reason}. It must be {_TAKES}; if it is "
            "something else, give it another name and say the preprocessing in settings"
        ) from error


def _measured(given: Callable[..., Any], what: str) -> tuple[Preprocess, tuple[str, ...]]:
    transform = _as_transform(given)
    image = _noise()
    first = transform(image)
    if any(not torch.equal(first, transform(image)) for _ in range(_TRIES)):
        raise ValueError(
            "it gives other values each time for the same image (random crops and flips belong to training); give the transform of evaluation"
        )
    said = _ADDRESS.sub("", repr(given))
    text = processor_text("given", name=what, says=said[:2000])
    numbers = sorted({int(number) for number in re.findall(r"\d+", said) if 8 <= int(number) <= 8192})
    preprocess = matched_preprocess(transform, numbers, text)
    if preprocess.processor:
        keep_processor(text, transform)
    return preprocess, ()


def _as_transform(given: Callable[..., Any]) -> Transform:
    """The function on a PIL image, or with `image=` on an array, whichever it takes.

    Raises:
        Exception: What it raises on the image, if it takes neither.
    """

    def on_image(image: Image.Image) -> Tensor:
        return _values(given(image))

    def on_array(image: Image.Image) -> Tensor:
        return _values(given(image=np.asarray(image)))

    image = _noise()
    try:
        on_image(image)
        return on_image
    except Exception as error:  # of any kind
        try:
            on_array(image)
        except Exception:
            raise error from None
        return on_array


def _values(given: Any) -> Tensor:
    """What a transform returns as `(channel, height, width)` float32."""
    if isinstance(given, Mapping):
        given = next((given[name] for name in ("image", "pixel_values") if name in given), given)
    if not isinstance(given, Tensor | np.ndarray):
        raise TypeError(f"it returns a {type(given).__name__} for an image, not a tensor (channel, height, width)")
    values = (
        torch.from_numpy(np.ascontiguousarray(given)) if isinstance(given, np.ndarray) else given.as_subclass(Tensor)
    )
    if values.ndim == 4 and values.shape[0] == 1:
        values = values[0]
    if isinstance(given, np.ndarray) and values.ndim == 3 and values.shape[2] in (1, 3) and values.shape[0] > 3:
        values = values.permute(2, 0, 1)  # arrays have their channels last
    if values.ndim != 3:
        raise ValueError(f"it gives an image the shape {tuple(values.shape)}, not (channel, height, width)")
    return values.detach().float()


def _noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(5).integers(0, 256, (*_SIDES, 3), dtype=np.uint8))


def _class_names(model: nn.Module, what: str) -> tuple[str, ...] | None:
    names = getattr(model, "class_names", None)
    if names is None:
        return None
    if isinstance(names, str) or not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise ModelError(
            f"the attribute `class_names` of what {what} returned must be a list of strings, got {names!r}"
        )
    return tuple(names)
