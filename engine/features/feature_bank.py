"""Features of labelled images, by which a model without a classifier says what it sees: the k nearest decide."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...errors import SettingsError
from ..layers.outputs import wide
from .image_features import unit_features

NEIGHBOURS = 20
TEMPERATURE = 0.07
NO_VOTE = 1e-30
"""Stands for the votes of a class that has none: its logarithm is finite, and a softmax sees nothing of it, for the votes of the
nearest entries are at least exp(-1 / 0.07) = 6e-7."""
MOST_CLASSES = 1 << 20
LENGTH_TOLERANCE = 1e-3


class FeatureBank(nn.Module):
    """What a self-supervised model says of a set of images, and their classes; as a function, votes of features.

    Args:
        features: `(entry, width)`, each of length 1.
        labels: Class index of each entry, at least 0.
        num_classes: As many as the largest label says unless given; there may be classes without an entry.

    Raises:
        SettingsError: When features and labels do not belong together, there are none, or they are out of their range.
    """

    features: Float[Tensor, "entry width"]
    labels: Int[Tensor, " entry"]

    def __init__(
        self, features: Float[Tensor, "entry width"], labels: Int[Tensor, " entry"], num_classes: int | None = None
    ):
        super().__init__()
        refuse_nonsense(features, labels)
        largest = int(labels.max())
        self.num_classes = largest + 1 if num_classes is None else num_classes
        if not largest < self.num_classes <= MOST_CLASSES:
            raise SettingsError(
                f"a feature bank with the label {largest} needs {largest + 1} to {MOST_CLASSES} classes, got {self.num_classes}"
            )
        self.register_buffer("features", features)
        self.register_buffer("labels", labels)

    def __deepcopy__(self, memo: dict[int, Any]) -> FeatureBank:
        """Itself: a bank is never changed, and may be as large as the memory that a copy of its model takes."""
        return self

    def forward(self, features: Float[Tensor, "batch width"]) -> Float[Tensor, "batch class"]:
        """Logarithm of each class's votes among the nearest, each worth exp(similarity / 0.07), so that a softmax gives shares.

        A class's votes are added in one order, not by atomic additions, so that the same features have the same bits.
        """
        near, places = self.nearest(features)
        labels = self.labels[places]
        same = labels[:, :, None] == labels[:, None, :]
        votes = torch.where(same, (near / TEMPERATURE).exp()[:, None, :], 0).sum(dim=2)
        first = ~same.tril(diagonal=-1).any(dim=2)
        none = near.new_zeros(len(features), self.num_classes)
        return none.scatter_add(1, labels, torch.where(first, votes, 0)).clamp(min=NO_VOTE).log()

    def nearest(
        self, features: Float[Tensor, "batch width"]
    ) -> tuple[Float[Tensor, "batch neighbour"], Int[Tensor, "batch neighbour"]]:
        """Cosine similarities, largest first, and places of the 20 nearest entries; never in half precision."""
        with torch.autocast(features.device.type, enabled=False):
            entries = wide(self.features).to(features.dtype)
            return (features @ entries.T).topk(min(NEIGHBOURS, len(entries)), dim=1)

    def classes(self, features: Float[Tensor, "batch width"]) -> Int[Tensor, " batch"]:
        """The class with the most votes."""
        return self(features).argmax(dim=1)

    def weights(
        self, features: Float[Tensor, "batch width"], classes: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch width"]:
        """How much every dimension matters: mean of f * z over nearest entries z of the class, over |its sum|, min-maxed.

        Zeros where none of the nearest is of the class.
        """
        _, places = self.nearest(features)
        same = (self.labels[places] == classes.to(self.labels)[:, None]).to(features)
        with torch.autocast(features.device.type, enabled=False):
            mean = features * torch.einsum("bk,bkd->bd", same, wide(self.features[places]).to(features.dtype))
        mean = mean / same.sum(dim=1, keepdim=True).clamp(min=1)
        total = mean.sum(dim=1, keepdim=True).abs()
        mean = mean / torch.where(total == 0, 1, total)
        low, high = mean.amin(dim=1, keepdim=True), mean.amax(dim=1, keepdim=True)
        return (mean - low) / torch.where(high == low, 1, high - low)


def refuse_nonsense(features: Tensor, labels: Tensor) -> None:
    """Refuse what is no bank.

    Raises:
        SettingsError: Saying what a bank needs and what was found.
    """
    if features.ndim != 2 or len(features) == 0 or labels.shape != features.shape[:1]:
        raise SettingsError(
            "a feature bank needs features (entry, width) and one label for each, at least one, got "
            f"{tuple(features.shape)} and {tuple(labels.shape)}"
        )
    if bool((labels < 0).any()) or not bool(features.isfinite().all()):
        raise SettingsError("a feature bank needs labels of at least 0 and finite features")
    length = wide(features).norm(dim=1)
    if bool(((length - 1).abs() > LENGTH_TOLERANCE).any()):
        raise SettingsError(
            f"a feature bank needs features of length 1, got lengths from {float(length.min()):.4g} to {float(length.max()):.4g}; "
            "divide each by its length"
        )


@torch.no_grad()
def build_bank(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], num_classes: int | None = None
) -> FeatureBank:
    """The bank of labelled images, on the CPU. Images whose features are all 0, or not finite, are left out.

    Args:
        model: In eval mode.
        batches: (images, labels) pairs; images on the model's device.
        num_classes: As many as the largest label says unless given.

    Raises:
        SettingsError: When there is no image with features.
        ModelError: When the model gives no features, or returns scores made of its logits.
    """
    features, labels = [], []
    for images, classes in batches:
        vectors = unit_features(model, images, refuse_scores=True).cpu()
        usable = vectors.isfinite().all(dim=1) & vectors.any(dim=1)
        features.append(vectors[usable])
        labels.append(classes.cpu().long()[usable])
    if not any(map(len, features)):
        raise SettingsError("a feature bank needs at least one image whose features are finite and not all 0")
    return FeatureBank(torch.cat(features), torch.cat(labels), num_classes)
