"""`timm:NAME[@WEIGHTS]`: timm's architectures with published or local weights; needs the extra `timm`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from torch import nn

from ...errors import ModelError, did_you_mean
from ..images.own_processor import processor_of, processor_text
from ..images.preprocess import Interpolation, Preprocess, Resize
from ..protocols import SampleReader
from .built_model import FamilyModel
from .imagenet_classes import imagenet_names
from .input_channels import first_conv_channels
from .optional_package import require_package
from .processor_match import confirmed_preprocess
from .weights import WEIGHT_SUFFIXES, StateDict, fit, read_weights

DEFAULT_CROP_PCT = 0.875
"""timm's, where a data config has none."""


def load_timm(name: str, reader: SampleReader | None = None) -> FamilyModel:
    """Build an architecture with weights; without `@WEIGHTS` those that timm publishes.

    Args:
        name: `NAME` or `NAME.TAG`, or either with `@FILE` (`.safetensors`, `.pth` or `.pt`), whose last layer says how many classes
            there are and whose first layer how many channels; without a last layer the model gives features.
        reader: Reads weights at remote URIs.

    Raises:
        ModelError: For unknown architectures, no connection, or weights that do not fit.
    """
    timm = require_package("timm", "timm", f"timm:{name}")
    architecture, _, weights = name.partition("@")
    if not timm.is_model(architecture):
        bare = architecture.partition(".")[0]
        raise ModelError(
            f"timm has no model {architecture!r}{did_you_mean(bare, timm.list_models())}; see timm.list_models()"
        )
    if weights and not weights.lower().endswith(WEIGHT_SUFFIXES):
        raise ModelError(
            f"the weights {weights!r} of timm:{architecture} must be a file that ends in {', '.join(WEIGHT_SUFFIXES)}; published "
            f"ones are named by a tag: timm:{architecture.partition('.')[0]}.TAG, see timm.list_pretrained()"
        )
    file = read_weights(weights, reader, outer=True) if weights else None
    module = _published(timm, architecture) if file is None else _from_file(timm, architecture, file.tensors, weights)
    config = timm.data.resolve_model_data_config(module)
    _, *size = config["input_size"]
    config = {**config, "input_size": (first_conv_channels(module) or 3, *size)}  # timm says 3 whatever `in_chans` is
    classes = getattr(module, "num_classes", None)
    return FamilyModel(
        module, preprocess_from_timm(config), imagenet_names() if classes == 1000 else None, f"timm's data config of {architecture}",
        f"timm:{architecture}", headless=classes == 0, notes=() if file is None else file.notes,
    )  # fmt: skip


def preprocess_from_timm(config: Mapping[str, Any]) -> Preprocess:
    """The `Preprocess` that equals timm's evaluation transform for this data config, measured on that transform.

    timm's `random` interpolation belongs to training and is bilinear here. Of grey images the geometry is computed, because timm has no
    transform that makes them.

    Raises:
        ValueError: For a transform that does something else.
    """
    channels, height, width = config["input_size"]
    share = config.get("crop_pct") or DEFAULT_CROP_PCT
    sides = (int(height / share), int(width / share))
    interpolation = config.get("interpolation") or "bilinear"
    interpolation = "bilinear" if interpolation == "random" else interpolation
    mode = config.get("crop_mode") or "center"
    resize: Resize = "squash" if mode == "squash" else "pad" if mode == "border" else "shorter_side_crop"
    computed = Preprocess(
        size=(height, width),
        resize=resize,
        resize_to=sides[0]
        if height == width and resize == "shorter_side_crop"
        else None
        if sides == (height, width)
        else sides,
        interpolation=interpolation if interpolation in get_args(Interpolation) else "bilinear",
        mean=_per_channel(config["mean"], channels),
        std=_per_channel(config["std"], channels),
        channels=channels,
    )
    if channels != 3:
        return computed
    plain = {name: _plain(value) for name, value in config.items()} | {"interpolation": interpolation}
    text = processor_text("timm", config=plain)
    return confirmed_preprocess(computed, processor_of(text), text)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _per_channel(values: Any, channels: int) -> tuple[float, ...]:
    """timm keeps three numbers where the network takes grey images: their mean then."""
    if channels == 1 and len(values) != 1:
        return (sum(values) / len(values),)
    return tuple(float(value) for value in values)


def _published(timm: Any, architecture: str) -> nn.Module:
    try:
        return timm.create_model(architecture, pretrained=True)
    except Exception as error:  # the hub's client raises nearly anything without a connection
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(
            f"cannot get timm's weights of {architecture} ({lines[0][:200]}); without a connection give a local file: "
            f"timm:{architecture}@/path/to/weights.safetensors (or .pth)"
        ) from error


def _from_file(timm: Any, architecture: str, weights: StateDict, uri: str) -> nn.Module:
    bare = timm.create_model(architecture, pretrained=False)
    module = timm.create_model(architecture, pretrained=False, **_options(bare, weights))
    fit(module, weights, uri)
    return module


def _options(bare: nn.Module, weights: StateDict) -> dict[str, int]:
    """Classes and channels as the file's last and first layer have them; no classes where it has no last layer."""
    config: Any = getattr(bare, "pretrained_cfg", None) or {}
    options = {}
    for option, key, axis in (("num_classes", "classifier", 0), ("in_chans", "first_conv", 1)):
        names = config.get(key)
        given = [weights.get(f"{name}.weight") for name in ((names,) if isinstance(names, str) else names or ())]
        if (
            weight := next((tensor for tensor in given if tensor is not None), None)
        ) is not None and weight.ndim > axis:
            options[option] = weight.shape[axis]
        elif key == "classifier" and given and weight is None:
            options[option] = 0
    return options
