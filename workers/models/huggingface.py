"""`hf:DIR_OR_NAME`: image classifiers and segmentation models of Hugging Face transformers; needs the extra `hf`.

A folder as `save_pretrained` writes it, or a name on the hub (downloaded once, then read from its cache; `HF_HUB_OFFLINE=1`
asks nobody). Code that a repository brings along is never run, and pickled weights are refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from ...errors import ModelError
from ..images.preprocess import Interpolation, Preprocess
from ..protocols import SampleReader
from .built_model import UNSTATED, FamilyModel
from .optional_package import require_package

FILTERS: dict[Image.Resampling, Interpolation] = {
    Image.Resampling.NEAREST: "nearest",
    Image.Resampling.LANCZOS: "lanczos",
    Image.Resampling.BILINEAR: "bilinear",
    Image.Resampling.BICUBIC: "bicubic",
}
GENERIC = "LABEL_"
CROPPED = 384
"""ConvNeXt's processor crops below this size and squashes from it on."""


class LogitsOnly(nn.Module):
    """The model's logits as a plain tensor."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(pixel_values=images).logits


def load_hf(name: str, reader: SampleReader | None = None) -> FamilyModel:
    """Load model and image processor.

    Args:
        name: Folder or name on the hub.
        reader: Not used: transformers reads its own files.

    Raises:
        ModelError: When it is not there, is no image classifier or segmentation model, or its processor does what heatlas cannot.
    """
    transformers = require_package("transformers", "hf", f"hf:{name}")
    if "://" in name:
        raise ModelError(f"hf:{name} must be a local folder or a name on the hub; copy the folder here first")
    place = str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name
    config = _asked(lambda: transformers.AutoConfig.from_pretrained(place), name)
    kinds = config.architectures or []
    auto = transformers.AutoModelForImageClassification
    if any("Segmentation" in kind for kind in kinds):
        auto = transformers.AutoModelForSemanticSegmentation
    model, loaded = _asked(
        lambda: auto.from_pretrained(place, dtype=torch.float32, use_safetensors=True, output_loading_info=True), name
    )
    _refuse_random(loaded, name)
    preprocess, origin = _preprocess(transformers, place, name, config)
    multi_label = getattr(config, "problem_type", None) == "multi_label_classification"
    return FamilyModel(LogitsOnly(model), preprocess, _names(config), origin, _code(config), multi_label=multi_label)


def _refuse_random(loaded: Mapping[str, Any], name: str) -> None:
    """transformers fills what the file lacks with random numbers, such as the classifier of a backbone, and only warns."""
    lacking = sorted(loaded.get("missing_keys") or ())
    if lacking:
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        raise ModelError(
            f"the weights of hf:{name} lack {', '.join(lacking[:3])}{more}, which would be random; give a folder with a trained "
            "classifier, or load the model in a Python factory and make a feature bank (`heatlas bank`)"
        )


def _code(config: Any) -> str:
    """Stands for the architecture: the configuration without what depends on where it lies and who wrote it."""
    said = {
        name: value for name, value in config.to_dict().items() if name[0] != "_" and name != "transformers_version"
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()


def _asked(call: Any, name: str) -> Any:
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        return call()
    except Exception as error:  # transformers and the hub's client raise nearly anything
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(
            f"cannot load hf:{name}: {lines[0][:300]}; give a folder that save_pretrained wrote (config.json, model.safetensors, "
            "preprocessor_config.json), or a name on the hub with a connection"
        ) from error


def _names(config: Any) -> tuple[str, ...] | None:
    names = [str(config.id2label.get(index, f"{GENERIC}{index}")) for index in range(config.num_labels)]
    return None if all(name.startswith(GENERIC) for name in names) else tuple(names)


def _preprocess(transformers: Any, place: str, name: str, config: Any) -> tuple[Preprocess, str]:
    try:
        said, _ = transformers.image_processing_base.ImageProcessingMixin.get_image_processor_dict(place)
    except Exception:  # there is none
        size = getattr(config, "image_size", None)
        side = size if isinstance(size, int) else 224
        return Preprocess(size=(side, side)), UNSTATED
    try:
        return preprocess_from_processor(said), f"preprocessor_config.json of {name}"
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"the image processor of hf:{name} does what heatlas cannot ({error}); load the model in a Python factory whose "
            "`preprocess` says how images become its input"
        ) from error


def preprocess_from_processor(said: Mapping[str, Any]) -> Preprocess:
    """The `Preprocess` that equals a Hugging Face image processor, from its settings.

    Raises:
        ValueError: For a processor that does something else.
    """
    if said.get("do_pad"):
        raise ValueError("it pads")
    size, resize, resize_to = _geometry(said)
    factor = 255 * float(said.get("rescale_factor", 1 / 255)) if said.get("do_rescale", True) else 255.0
    shift = 1.0 if said.get("rescale_offset") else 0.0
    normalised = said.get("do_normalize", True)
    mean = [float(value) for value in said["image_mean"]] if normalised else [0.0] * 3
    std = [float(value) for value in said["image_std"]] if normalised else [1.0] * 3
    twice = (
        normalised
        and str(said.get("image_processor_type", "")).startswith("EfficientNet")
        and said.get("include_top", True)
    )
    scale = [value * value if twice else value for value in std]
    return Preprocess(
        size=size, resize=resize, resize_to=resize_to, interpolation=FILTERS[Image.Resampling(said.get("resample", 2))],
        mean=tuple((value + shift) / factor for value in mean), std=tuple(value / factor for value in scale), channels=len(mean),
    )  # fmt: skip


def _geometry(said: Mapping[str, Any]) -> tuple[tuple[int, int], Any, int | None]:
    """Input size, and how images come to it."""
    size, crop, share = said.get("size"), said.get("crop_size"), said.get("crop_pct")
    cropped = bool(said.get("do_center_crop", False))
    window = _rectangle(crop) if cropped and crop is not None else None
    if not said.get("do_resize", True):
        if window is None:
            raise ValueError("it neither resizes nor crops, so its input has no fixed size")
        raise ValueError("it crops without resizing")
    if isinstance(size, Mapping) and "shortest_edge" in size:
        shortest = int(size["shortest_edge"])
    elif isinstance(size, int) and window is not None:
        shortest = size
    elif size is not None:
        whole = _rectangle(size)
        if window is not None and window != whole:
            raise ValueError(f"it squashes to {whole} and then crops to {window}")
        return whole, "squash", None
    else:
        raise ValueError("it does not say its size")
    if window is None and share is not None and shortest >= CROPPED:
        return (shortest, shortest), "squash", None
    resize_to = int(shortest / share) if share is not None else shortest
    return window or (shortest, shortest), "shorter_side_crop", resize_to


def _rectangle(size: Any) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    if isinstance(size, Mapping) and {"height", "width"} <= set(size):
        return int(size["height"]), int(size["width"])
    raise ValueError(f"its size is {size!r}")
