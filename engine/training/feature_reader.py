"""Which layers of a frozen classifier an attention head reads, and one forward that hands them out beside the logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isqrt
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...errors import ModelError, NoBlocksError, did_you_mean
from ..layers.blocks import block_layers
from ..layers.eval_mode import in_eval_mode
from ..layers.outputs import logits_of

DEPTH = 3
"""Layers that are read unless they are named: the last three blocks, as T-TAME reads."""
ATTENTION = ("MultiheadAttention", "Attention", "SelfAttention", "ViTSelfAttention")
CLASS_AND_OTHER_TOKENS = 5
"""Tokens in front of the patches, at most: a class token, a distillation token, registers."""


@dataclass(frozen=True)
class FeatureLayer:
    """A module whose output is read."""

    name: str
    channels: int
    size: tuple[int, int]
    """Cells along height and width, for the images that it was found with."""


class FeatureReader:
    """Reads layers of a classifier: maps `(batch, channel, h, w)`, or tokens `(batch, token, channel)` as a square grid.

    Args:
        model: A classifier; in eval mode while it runs, left as it came.
        image: Network input to find shapes with.
        layers: Names of modules; the last three blocks of a CNN or transformer unless given.

    Raises:
        ModelError: When a layer is not there, gives no maps, or no layers can be found.
    """

    def __init__(
        self, model: nn.Module, image: Float[Tensor, "channel height width"], layers: Sequence[str] | None = None
    ):
        self.model = model
        names = list(layers) if layers else default_layers(model, image)
        self.layers = found_layers(model, image, names)

    def __call__(
        self, images: Float[Tensor, "batch channel height width"]
    ) -> tuple[Float[Tensor, "batch class"], list[Float[Tensor, "batch _ h w"]]]:
        """Logits, and the maps of every layer, without gradients."""
        with in_eval_mode(self.model), torch.no_grad(), outputs_of(self.model, self.names) as kept:
            logits = logits_of(self.model(images))
        return logits.float(), [as_maps(name, kept).float() for name in self.names]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(layer.name for layer in self.layers)

    @property
    def channels(self) -> tuple[int, ...]:
        return tuple(layer.channels for layer in self.layers)


def default_layers(model: nn.Module, image: Float[Tensor, "channel height width"], depth: int = DEPTH) -> list[str]:
    """The modules that end the last `depth` blocks, low to high.

    Raises:
        ModelError: When the model has neither shrinking maps nor attention.
    """
    modules = dict(model.named_modules())
    if blocks := transformer_blocks(model):
        return blocks[-depth:]
    try:
        names = [name for name in block_layers(model, image[None]).names if name in modules]
    except NoBlocksError as error:
        raise ModelError(
            "the model has neither maps that shrink from block to block nor self-attention blocks; name modules with `layers`, or train ptame, which reads another network"
        ) from error
    if not names:
        raise ModelError("no block of the model ends in a module that can be read; name modules with `layers`")
    return names[-depth:]


def transformer_blocks(model: nn.Module) -> list[str]:
    """Names of the modules that hold a self-attention beside other modules, in order: a transformer's blocks."""
    paths = [name for name, module in model.named_modules() if type(module).__name__ in ATTENTION]
    return list(dict.fromkeys(path.rpartition(".")[0] for path in paths if "." in path))


def found_layers(
    model: nn.Module, image: Float[Tensor, "channel height width"], names: Sequence[str]
) -> tuple[FeatureLayer, ...]:
    """The layers with their shapes.

    Raises:
        ModelError: When one is not there, or gives no maps.
    """
    modules = dict(model.named_modules())
    for name in names:
        if name not in modules or name == "":
            raise ModelError(f"the model has no module {name!r}{did_you_mean(name, modules)}")
    with in_eval_mode(model), torch.no_grad(), outputs_of(model, names) as kept:
        model(image[None])
    maps = {name: as_maps(name, kept) for name in names}
    return tuple(FeatureLayer(name, value.shape[1], (value.shape[2], value.shape[3])) for name, value in maps.items())


@contextmanager
def outputs_of(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Keep what these modules give while the context is open: of a module that runs several times, what it gives last."""
    kept: dict[str, Any] = {}
    modules, handles = dict(model.named_modules()), []

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            kept[name] = output.clone() if isinstance(output, Tensor) else output

        return hook

    try:
        for name in names:
            handles.append(modules[name].register_forward_hook(keep(name)))
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def as_maps(name: str, kept: dict[str, Any]) -> Float[Tensor, "batch channel h w"]:
    """A layer's output as maps; of tokens the last ones that fill a square.

    Raises:
        ModelError: When it is neither maps nor tokens.
    """
    if name not in kept:
        raise ModelError(f"layer {name} did not run")
    value = kept[name][0] if isinstance(kept[name], tuple) else kept[name]
    if not isinstance(value, Tensor) or value.ndim not in (3, 4):
        what = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ModelError(
            f"layer {name} gives {what}; it must give maps (batch, channel, h, w) or tokens (batch, token, channel)"
        )
    if value.ndim == 4:
        return value
    side = isqrt(value.shape[1])
    if not 0 <= value.shape[1] - side * side <= CLASS_AND_OTHER_TOKENS or side < 2:
        raise ModelError(f"layer {name} gives {value.shape[1]} tokens, which are no square grid behind a class token")
    grid = value[:, value.shape[1] - side * side :]
    return grid.movedim(2, 1).reshape(len(value), value.shape[2], side, side)
