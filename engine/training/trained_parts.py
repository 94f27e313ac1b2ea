"""A trained explainer network as a method uses it: its weights, and over a classifier the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...errors import ModelError
from .model_split import ModelSplit, split_model
from .part_network import PartNetwork


@dataclass(frozen=True, eq=False)
class TrainedParts:
    """Weights of an explainer network, and which of its filters are told of."""

    tensors: Mapping[str, Tensor]
    layer: str
    parts: tuple[int, ...]
    """Filters whose parts become columns, the first contributing most."""
    norms: tuple[float, ...]
    """Mean square norms of the features that are rebuilt, over training images."""

    def over(self, model: nn.Module, image: Float[Tensor, "channel height width"]) -> tuple[PartNetwork, ModelSplit]:
        """The network in eval mode, and the classifier cut at its layer.

        Raises:
            ModelError: When the weights are another network's.
        """
        split = split_model(model, image, self.layer)
        network = PartNetwork(split).to(image.device)
        try:
            network.load_state_dict(dict(self.tensors))
        except RuntimeError as error:
            raise ModelError(f"the explainer's weights do not fit the model cut at {self.layer}: {error}") from error
        if self.parts and not 0 <= min(self.parts) <= max(self.parts) < network.filters:
            raise ModelError(f"the explainer names filters {self.parts}, the network has {network.filters}")
        return network.eval().requires_grad_(False), split

    def norm_tensor(self, device: torch.device) -> Float[Tensor, " target"]:
        return torch.tensor(self.norms, device=device)
