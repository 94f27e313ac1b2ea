"""P-TAME's auxiliary network: a frozen classifier that lends its features, so that the explained one is asked for nothing but its output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..layers.eval_mode import in_eval_mode
from ..layers.outputs import logits_of, wide
from .feature_reader import FeatureReader, default_layers

DEPTH = 4
"""Layers that are read unless they are named: the last four blocks, as P-TAME reads ResNet-18's."""


@dataclass(frozen=True, eq=False)
class Auxiliary:
    """An auxiliary network, and how the explained model's input becomes its own: x scale + shift, channel by channel, then in its order."""

    module: nn.Module
    scale: Float[Tensor, " channel"]
    shift: Float[Tensor, " channel"]
    digest: str = ""
    """Sha256 (hex) of its weights and preprocessing."""
    flipped: bool = False
    """Whether it reads the channels in the opposite order: one of the two models takes blue first."""

    def input_of(
        self, images: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch channel height width"]:
        """The same pictures as this network takes them."""
        own = images * self.scale.to(images)[:, None, None] + self.shift.to(images)[:, None, None]
        return own.flip(1) if self.flipped else own


class AuxiliaryReader:
    """As `FeatureReader`: logits of the explained model, features of the auxiliary network.

    Args:
        model: The explained classifier.
        auxiliary: Lends the features.
        image: Network input to find shapes with.
        layers: Of the auxiliary network; its last four blocks unless named.

    Raises:
        ModelError: When the layers cannot be read.
    """

    def __init__(
        self,
        model: nn.Module,
        auxiliary: Auxiliary,
        image: Float[Tensor, "channel height width"],
        layers: Sequence[str] | None = None,
    ):
        self.model, self.auxiliary = model, auxiliary
        auxiliary.module.to(image.device)
        own = auxiliary.input_of(image[None])[0]
        names = list(layers) if layers else default_layers(auxiliary.module, own, DEPTH)
        self._features = FeatureReader(auxiliary.module, own, names)

    def __call__(
        self, images: Float[Tensor, "batch channel height width"]
    ) -> tuple[Float[Tensor, "batch class"], list[Float[Tensor, "batch _ h w"]]]:
        """Logits of the explained model and maps of every layer of the auxiliary network, without gradients."""
        with in_eval_mode(self.model), torch.no_grad():
            logits = wide(logits_of(self.model(images)))
        return logits, self._features(self.auxiliary.input_of(images))[1]

    @property
    def names(self) -> tuple[str, ...]:
        return self._features.names

    @property
    def channels(self) -> tuple[int, ...]:
        return self._features.channels
