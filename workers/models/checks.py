"""One forward on an input of zeros, or of noise where zeros give nothing finite: what kind of thing a loaded model returns, before anything depends on it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...engine.features.image_features import features_of
from ...engine.layers.outputs import PREFERRED_KEYS
from ...errors import ModelError
from ..images.preprocess import Preprocess


def class_count(module: nn.Module, preprocess: Preprocess, spec: str) -> tuple[int, bool]:
    """Number of classes, and whether every pixel gets them.

    Raises:
        ModelError: When the model does not run on its own input size or returns no logits of at least 2 classes.
    """
    output = _on_zeros(module, preprocess, spec)
    logits = output
    if isinstance(output, Mapping):  # as segmentation models of torchvision and transformers return them
        logits = next((output[key] for key in PREFERRED_KEYS if key in output), None)
    if not isinstance(logits, Tensor) or (logits is not output and logits.ndim != 4):
        raise ModelError(
            f"{spec} returns a {type(output).__name__}, not a tensor of logits (batch, class), nor a dense model's logits under the key "
            f"'out' or 'logits'; wrap it so that it returns only the logits{_inside(output)}"
        )
    if not logits.is_floating_point():
        raise ModelError(
            f"{spec} returns numbers of the type {logits.dtype}, not logits; return what it decides by, before argmax or a threshold"
        )
    if logits.ndim == 1 and logits.shape[0] > 1:
        raise ModelError(
            f"{spec} returned {tuple(logits.shape)} for a batch of 1, so it drops the batch axis: write x.flatten(1) instead of x.squeeze()"
        )
    if logits.ndim not in (2, 4) or logits.shape[0] != 1 or logits.shape[1] < 2:
        raise ModelError(f"{spec} must return logits of shape (batch, class), or (batch, class, height, width) of a dense model, with at "
                         f"least 2 classes (one number per image or pixel is read as a logit where the model returns the tensor alone); for a batch of 1 it "
                         f"returned {tuple(logits.shape)}")  # fmt: skip
    _refuse_damaged(logits, spec, "logits")
    return logits.shape[1], logits.ndim == 4


def feature_width(module: nn.Module, preprocess: Preprocess, spec: str) -> int:
    """Numbers in the feature that the model gives each image.

    Raises:
        ModelError: When the model does not run on its own input size, gives no feature, or returns scores made of its logits.
    """
    features = _on_zeros(lambda images: features_of(module, images, refuse_scores=True), preprocess, spec)
    _refuse_damaged(features, spec, "features")
    return features.shape[1]


def _on_zeros(forward: Callable[[Tensor], Any], preprocess: Preprocess, spec: str) -> Any:
    shape = (1, preprocess.channels, *preprocess.size)
    try:
        with torch.no_grad():
            output = forward(torch.zeros(shape))
            if isinstance(output, Tensor) and not torch.isfinite(output).all():
                # a model that divides by its input's spread says nothing of zeros, and is sound all the same
                output = forward(torch.rand(shape, generator=torch.Generator().manual_seed(0)))
            return output
    except ModelError as error:
        raise ModelError(f"{spec}: {error}") from error
    except Exception as error:
        raise ModelError(
            f"{spec} does not run on an input of shape {shape}: {' '.join(str(error).split())}. {_remedy(error, preprocess)}"
        ) from error


def _adapter(call: str) -> str:
    return (
        "class Adapter(nn.Module): def __init__(self, model): super().__init__(); self.model = model; def forward(self, image): return "
        f"{call}; and return Adapter(model) from a Python factory"
    )


def _inside(output: object) -> str:
    """The adapter for what a model returns, where the logits in it are plain."""
    if isinstance(output, Mapping):
        name = next((key for key in ("logits", "out", "output", "pred") if isinstance(output.get(key), Tensor)), None)
        if name is None:
            return f" (its keys are {', '.join(map(repr, list(output)[:5]))})"
        return f": {_adapter(f'self.model(image)[{name!r}]')}"
    if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
        return f", if they are the first: {_adapter('self.model(image)[0]')}"
    return ""


_CHANNELS = re.compile(r"expected input\[[\d, ]+\] to have (\d+) channels, but got (\d+) channels")
_ABOUT_SHAPES = re.compile(
    r"shape|size|dimension|channel|mat1|view|broadcast|kernel|height|width|expected input|must match", re.IGNORECASE
)
_ONE_INPUT = (
    f"Heatlas hands a model the image alone. Give the others in an adapter: {_adapter('self.model(image, OTHERS)')}"
)


def _remedy(error: Exception, preprocess: Preprocess) -> str:
    """What to do, by cause."""
    text = str(error)
    if isinstance(error, TypeError) and "missing" in text and "argument" in text:
        return _ONE_INPUT
    if "more than 1 value per channel when training" in text:
        return "A batch norm stays in training mode: do not override train() or eval(), and give it running statistics"
    if match := _CHANNELS.search(text):
        wanted, got = map(int, match.groups())
        if wanted == preprocess.channels and got == preprocess.size[0]:
            return f"It takes (batch, height, width, channel): {_adapter('self.model(image.permute(0, 2, 3, 1))')}"
    if re.search("uint8|ByteTensor|Byte but", text):
        return f"Heatlas hands a model normalised float32, no bytes: {_adapter('self.model((image * STD + MEAN).mul(255).byte())')}"
    if "same device" in text or "cuda" in text.lower():
        return "It is loaded on the CPU: do not name a device in its code, and register tensors as buffers so that they move with it"
    if (
        "same dtype" in text
        or "scalar type" in text
        or "should be the same" in text
        or "expected mat1 and mat2 to have the same dtype" in text
    ):
        return "Its parts compute with different number formats: return model.float() from the factory"
    if isinstance(error, RuntimeError | ValueError | AssertionError | IndexError) and _ABOUT_SHAPES.search(text):
        return (
            "Set preprocess.size (and, for other channels, preprocess.channels, preprocess.mean and preprocess.std) to what the model was "
            "trained with"
        )
    return f"Its own code fails ({type(error).__name__}): call it on zeros of this shape to see where"


def _refuse_damaged(values: Tensor, spec: str, what: str) -> None:
    if not torch.isfinite(values).all():
        raise ModelError(
            f"{spec} returns {what} that are not finite, for an input of zeros and for noise alike; its weights are damaged or incomplete"
        )
