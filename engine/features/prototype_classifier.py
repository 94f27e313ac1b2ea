"""A linear classifier over a model that gives features: its classes are prototypes, so that AGF and other methods explain models without a head.

The paper of AGF claims a procedure for self-supervised models that neither its text nor its code shows; this completion is heatlas's. The image's
feature of length 1 is multiplied with prototypes of length 1, times kappa: logits to which AGF's start applies as it stands.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...errors import SettingsError

KAPPA = 10.0
"""Logits of a feature and its own prototype."""


class PrototypeClassifier(nn.Module):
    """Logits are kappa times the cosine of an image's feature with each prototype.

    Args:
        model: Gives `(batch, feature)`; a child, so that its layers keep their names behind `model.`.
        prototypes: `(class, feature)`, two or more; brought to length 1.
        kappa: Above 0.

    Raises:
        SettingsError: When the prototypes are fewer than two, are not finite, or one has no length; or kappa is not above 0.
    """

    def __init__(self, model: nn.Module, prototypes: Float[Tensor, "class feature"], kappa: float = KAPPA):
        super().__init__()
        if prototypes.ndim != 2 or len(prototypes) < 2:
            raise SettingsError(f"prototypes must be (class, feature), two or more, got {tuple(prototypes.shape)}")
        if not bool(prototypes.isfinite().all()) or not bool((prototypes.norm(dim=1) > 0).all()):
            raise SettingsError("prototypes must be finite and have a length above 0")
        if not kappa > 0:
            raise SettingsError(f"kappa must be above 0, got {kappa:g}")
        self.model = model
        self.prototypes = nn.Linear(prototypes.shape[1], len(prototypes), bias=False)
        with torch.no_grad():
            self.prototypes.weight.copy_(kappa * F.normalize(prototypes, dim=1))
        first = next(model.parameters(), None)
        if first is not None:
            self.prototypes.to(first.device)

    def forward(self, images: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch class"]:
        return self.prototypes(F.normalize(self.model(images), dim=1))


def class_means(
    features: Float[Tensor, "entry feature"], labels: Int[Tensor, " entry"]
) -> Float[Tensor, "class feature"]:
    """Prototypes of a labelled bank: the mean of each class's features of length 1.

    Raises:
        SettingsError: When a class below the largest label has no entry.
    """
    counts = torch.bincount(labels)
    if bool((counts == 0).any()):
        raise SettingsError(f"class {int((counts == 0).nonzero()[0, 0])} has no entry, so it has no mean")
    sums = torch.zeros(len(counts), features.shape[1], dtype=features.dtype, device=features.device)
    return sums.index_add(0, labels, F.normalize(features, dim=1)) / counts[:, None]


def pair_prototypes(
    feature: Float[Tensor, " feature"], bank: Float[Tensor, "entry feature"]
) -> Float[Tensor, "2 feature"]:
    """What makes an image like its nearest neighbour: class 0 is the bank's entry most like it, class 1 the bank's mean.

    Args:
        feature: Of the image.
        bank: Of other images; the image itself must not be among them.
    """
    units = F.normalize(bank, dim=1)
    nearest = (units @ F.normalize(feature, dim=0)).argmax()
    return torch.stack([units[nearest], units.mean(dim=0)])
