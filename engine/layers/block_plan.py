"""What a block plan is: the layers that SISE reads, low to high. Names only, so that a plan pickles and outlives its model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, overload


@dataclass(frozen=True)
class BlockLayer:
    """The last layer of one block.

    Attributes:
        name: A module's path (`layer1`), one call of a module that runs several times (`relu:2`, the second), or, for an
            operation that is no module's output, the name of its `torch.fx` node (`relu`).
        channels: Number of feature maps.
        size: Height and width of a map for the example input, in cells.
        channel_axis: 1 for `(batch, channel, height, width)`; 3 where the model keeps its channels last (Swin).
    """

    name: str
    channels: int
    size: tuple[int, int]
    channel_axis: int = 1


@dataclass(frozen=True)
class BlockPlan(Sequence[BlockLayer]):
    """The block-end layers of a model in the order in which they run.

    Attributes:
        layers: The layers, low (large maps) to high (small maps).
        how: `traced` from the `torch.fx` graph, `hooks` where the model cannot be traced, `named` by the user.
    """

    layers: tuple[BlockLayer, ...]
    how: Literal["traced", "hooks", "named"]

    @property
    def names(self) -> tuple[str, ...]:
        """The layers' names; `block_layers(model, image, layers=plan.names)` gives the same layers again."""
        return tuple(layer.name for layer in self.layers)

    @overload
    def __getitem__(self, index: int) -> BlockLayer: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[BlockLayer, ...]: ...
    def __getitem__(self, index: int | slice) -> BlockLayer | tuple[BlockLayer, ...]:
        return self.layers[index]

    def __len__(self) -> int:
        return len(self.layers)
