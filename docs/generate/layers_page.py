"""Writes docs/layers.md: the layers that SISE reads in every classifier of torchvision.

    python -m docs.generate layers

Runs on the meta device: shapes and graphs only, so that the largest network (645 million weights) takes no memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from heatlas.engine.layers.blocks import block_layers
from heatlas.errors import NoBlocksError
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision import models

PAGE = Path(__file__).parents[1] / "layers.md"
INPUT_SIZES = {"inception_v3": 299}
"""The side of the square input where it is not 224: Inception-v3 was made for 299."""
UNFILLED = {"init_weights": False}
"""GoogLeNet and Inception-v3 draw their weights with SciPy, slowly, unless told not to."""
HEADER = """<!-- Made by `python -m docs.generate layers`; do not edit, run it again. -->
# Block layers of torchvision's classifiers

What `heatlas.block_layers` finds in every entry of `torchvision.models.list_models(module=torchvision.models)`: the last layer
of every block, low to high, with its feature maps (channels x height x width, for this input). `heatlas layers
torchvision:NAME` prints the same for one model. The rule names no architecture: a block ends with the last node of a resolution that every path
from image to logits crosses (see `engine/layers/blocks.py`). *Maps* is the number of feature maps from which SISE selects.

- A name such as `relu` in DenseNet, which is no module of the model, is a node of the `torch.fx` graph.
- A block whose only shared node is a pool has no layer (ShuffleNet's 56 x 56).
- Swin keeps its channels last; heatlas turns its maps to channels first. Whether masks from a transformer's maps explain it as
  well as a CNN's do has not been measured here.
- Any other layers can be named: `block_layers(model, image, layers=["layer3", "layer4"])`.

| model | input | block layers | maps |
|---|---|---|---|
"""


class WeightsOnMeta(TorchFunctionMode):
    """Weights are made without memory; the few numbers that a constructor computes with (RegNet's widths) stay real."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def meta_model(name: str) -> tuple[nn.Module, Tensor]:
    """A torchvision classifier and a fitting input `(1, 3, height, width)`, both without data."""
    with WeightsOnMeta():
        model = models.get_model(name, weights=None, **(UNFILLED if name in ("googlenet", "inception_v3") else {}))
    size = INPUT_SIZES.get(name, 224)
    return model.to("meta"), torch.empty(1, 3, size, size, device="meta")


def table_row(name: str) -> str:
    """The model's line of the table."""
    model, image = meta_model(name)
    size = f"{image.shape[2]} x {image.shape[3]}"
    try:
        plan = block_layers(model, image)
    except NoBlocksError as error:
        return f"| {name} | {size} | refused: {error} | |\n"
    layers = [f"`{layer.name}` {layer.channels}x{layer.size[0]}x{layer.size[1]}" for layer in plan]
    return f"| {name} | {size} | {', '.join(layers)} | {sum(layer.channels for layer in plan)} |\n"


def page(rows: Iterable[str]) -> str:
    """The whole page."""
    return HEADER + "".join(rows)


def classifiers() -> list[str]:
    """Every classifier that torchvision ships, by name."""
    return models.list_models(module=models)


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(table_row(name) for name in classifiers()))
    print(f"wrote {PAGE}: {len(classifiers())} models")
