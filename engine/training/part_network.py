"""The explainer network: an encoder that takes a layer's maps apart into parts and a rest, and a decoder that rebuilds the classifier's features.

Zhang et al., arXiv 1805.07468. The decoder is a trainable copy of what follows the layer in the classifier, begun with its weights, batch
norms in eval mode [ours; the paper's are copies of fc6 and fc7, which is the same for networks that have them].
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .model_split import ModelSplit
from .part_encoder import Encoded, PartEncoder


class PartNetwork(nn.Module):
    """Encoder and decoder over a classifier that is cut at a layer; the classifier's own modules are no part of it.

    Args:
        split: The classifier, frozen.
    """

    steps: Tensor

    def __init__(self, split: ModelSplit):
        super().__init__()
        self.signed = split.signed
        self.encoder = PartEncoder(split.channels * (2 if split.signed else 1), copy.deepcopy(split.pool))
        self.scale = nn.Parameter(torch.ones(split.channels * (2 if split.signed else 1)))
        """Gives channels their scale back before they are decoded."""
        self.tail = copy.deepcopy(split.tail).requires_grad_(True)
        self.adapter: nn.Linear | None = None
        if not split.hidden and isinstance(split.head, nn.Linear) and not any(True for _ in self.tail.parameters()):
            self.adapter = identity_layer(split.head.in_features)
        self.head = copy.deepcopy(split.head).requires_grad_(not split.hidden)
        self.hidden = split.hidden
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.train()

    def train(self, mode: bool = True) -> PartNetwork:
        """As usual, but for the copied layers, which stay in eval mode."""
        super().train(mode)
        self.tail.eval()
        self.head.eval()
        return self

    @property
    def filters(self) -> int:
        return len(self.scale)

    def encode(self, maps: Float[Tensor, "batch channel h w"]) -> Encoded:
        """A layer's maps, taken apart; of maps with both signs the positive and the negative part are channels of their own."""
        return self.encoder(torch.cat([maps.relu(), (-maps).relu()], dim=1) if self.signed else maps)

    def decode(
        self, mixed: Float[Tensor, "batch filter _ _"]
    ) -> tuple[tuple[Tensor, ...], Float[Tensor, "batch class"]]:
        """Features, as `ModelSplit.read` has them, and logits."""
        maps = mixed * self.scale[:, None, None]
        if self.signed:
            positive, negative = maps.chunk(2, dim=1)
            maps = positive - negative
        features: Sequence[Tensor] = self.tail(maps)
        if self.adapter is not None:
            features = (F.relu(self.adapter(features[-1])),)
        return tuple(features), self.head(features[-1])

    @torch.no_grad()
    def calibrate(self, maps: Float[Tensor, "batch channel h w"]) -> None:
        """Begin running means and scales with what a first batch of maps gives."""
        self.train()
        self.encode(maps)
        parts = torch.cat([maps.relu(), (-maps).relu()], dim=1) if self.signed else maps
        self.scale.copy_(parts.mean(dim=(0, 2, 3)))


def identity_layer(width: int) -> nn.Linear:
    layer = nn.Linear(width, width)
    with torch.no_grad():
        nn.init.eye_(layer.weight)
        nn.init.zeros_(layer.bias)
    return layer
