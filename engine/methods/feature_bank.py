"""Features of labelled images, by which a model without a classifier says what it sees: the k nearest decide."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import ModelError, SettingsError
from ..outputs import first_of
from .layer_gradients import wide
from .passes import plain

NEIGHBOURS = 20
TEMPERATURE = 0.07


@dataclass(frozen=True, eq=False)
class FeatureBank:
    """What a self-supervised model says of a set of images, and their classes.

    Raises:
        SettingsError: When features and labels do not belong together, or there are none.
    """

    features: Float[Tensor, "entry width"]
    """Each of length 1."""
    labels: Int[Tensor, " entry"]
    """At least 0."""

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or len(self.features) == 0 or self.labels.shape != self.features.shape[:1]:
            raise SettingsError(
                "a feature bank needs features (entry, width) and one label for each, at least one, got "
                f"{tuple(self.features.shape)} and {tuple(self.labels.shape)}"
            )
        if bool((self.labels < 0).any()) or not bool(self.features.isfinite().all()):
            raise SettingsError("a feature bank needs labels of at least 0 and finite features")

    def nearest(
        self, features: Float[Tensor, "batch width"]
    ) -> tuple[Float[Tensor, "batch neighbour"], Int[Tensor, "batch neighbour"]]:
        """Cosine similarities, largest first, and places of the 20 nearest entries."""
        return (features @ self.features.T).topk(min(NEIGHBOURS, len(self.features)), dim=1)

    def classes(self, features: Float[Tensor, "batch width"]) -> Int[Tensor, " batch"]:
        """The class with the most votes among the nearest, each worth exp(similarity / 0.07)."""
        near, places = self.nearest(features)
        votes = torch.zeros(len(features), int(self.labels.max()) + 1, dtype=near.dtype, device=near.device)
        return votes.scatter_add(1, self.labels[places], (near / TEMPERATURE).exp()).argmax(dim=1)

    def weights(
        self, features: Float[Tensor, "batch width"], classes: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch width"]:
        """How much every dimension matters: mean of f * z over nearest entries z of the class, over |its sum|, min-maxed.

        Zeros where none of the nearest is of the class.
        """
        _, places = self.nearest(features)
        same = (self.labels[places] == classes[:, None]).to(features)
        mean = features * torch.einsum("bk,bkd->bd", same, self.features[places])
        mean = mean / same.sum(dim=1, keepdim=True).clamp(min=1)
        total = mean.sum(dim=1, keepdim=True).abs()
        mean = mean / torch.where(total == 0, 1, total)
        low, high = mean.amin(dim=1, keepdim=True), mean.amax(dim=1, keepdim=True)
        return (mean - low) / torch.where(high == low, 1, high - low)


def features_of(model: nn.Module, images: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch width"]:
    """What the model's last linear layer is given for each image, where it has one; else what the model returns.

    Raises:
        ModelError: When that is not one row per image.
    """
    inputs: list[Tensor] = []

    def keep(module: nn.Module, args: Any) -> None:
        if args[0].ndim == 2:
            inputs.append(args[0])

    handles = [one.register_forward_pre_hook(keep) for one in model.modules() if isinstance(one, nn.Linear)]
    try:
        output = first_of(model(images), Tensor)
    finally:
        for handle in handles:
            handle.remove()
    found = inputs[-1] if inputs else output
    if found is None or found.ndim != 2 or len(found) != len(images):
        raise ModelError(
            "the model gives no feature vector per image; wrap it so that it returns the class token's features"
        )
    return found


@torch.no_grad()
def build_bank(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> FeatureBank:
    """The bank of labelled images.

    Args:
        model: In eval mode.
        batches: (images, labels) pairs; images on the model's device.

    Raises:
        SettingsError: When there is no image.
    """
    features, labels = [], []
    for images, classes in batches:
        features.append(F.normalize(wide(features_of(model, plain(images))), dim=1))
        labels.append(classes.to(images.device).long())
    if not features:
        raise SettingsError("a feature bank needs at least one image")
    return FeatureBank(torch.cat(features), torch.cat(labels))
