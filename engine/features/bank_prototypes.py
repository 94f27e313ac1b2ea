"""Prototypes made of a feature bank, with which AGF explains a model without a classifier: what an image's feature is compared with.

Three kinds: the means of the bank's classes, k-means centres of its features whatever their labels, or for each image a pair of its nearest
entry and the bank's mean. The paper of AGF claims a procedure for self-supervised models that neither its text nor its code shows; these
completions are heatlas's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from sklearn.cluster import KMeans
from torch import Tensor

from ...errors import ModelError
from ..layers.outputs import wide
from .feature_bank import FeatureBank
from .prototype_classifier import KAPPA

ITSELF = 1 - 1e-6
"""Cosine similarity from which on an entry of the bank is the image itself."""
NO_PROTOTYPE = -1


@dataclass(frozen=True, eq=False)
class PrototypeComparison:
    """What each image of a batch is compared with: logits of a feature z of length 1 are kappa times its product with each prototype."""

    prototypes: Float[Tensor, "batch prototype width"]
    """Each of length 1 (the bank's mean in a pair: of its own length)."""
    targets: Int[Tensor, " batch"]
    """The prototype for which evidence is asked for."""
    known: Bool[Tensor, " batch"]
    """False where there is no such prototype."""
    places: Int[Tensor, " batch"]
    """The target's class, centre or, of a pair, entry of the bank."""

    def logits(self, units: Float[Tensor, "batch width"]) -> Float[Tensor, "batch prototype"]:
        """Of features of length 1."""
        return KAPPA * torch.einsum("bw,bpw->bp", units, self.prototypes)


class ClassPrototypes:
    """The mean of each class's entries, of length 1; classes without an entry have none.

    Raises:
        ModelError: When fewer than two classes have an entry.
    """

    def __init__(self, bank: FeatureBank):
        counts = torch.bincount(bank.labels, minlength=bank.num_classes)
        present = (counts > 0).nonzero()[:, 0]
        if len(present) < 2:
            raise ModelError(
                "the bank has entries of one class only, and AGF's variant bank tells classes apart; use --agf.variant pair, "
                "or --agf.centres for clusters in the place of classes"
            )
        features = wide(bank.features)
        sums = torch.zeros(bank.num_classes, features.shape[1], dtype=features.dtype, device=features.device)
        self.prototypes = F.normalize(sums.index_add(0, bank.labels, features)[present], dim=1)
        self._rows = torch.full_like(counts, NO_PROTOTYPE).index_copy(
            0, present, torch.arange(len(present)).to(present)
        )

    def compare(self, units: Float[Tensor, "batch width"], targets: Int[Tensor, " batch"]) -> PrototypeComparison:
        """With the mean of the target's class."""
        rows = self._rows.to(targets.device)[targets]
        prototypes = self.prototypes.to(units).expand(len(units), -1, -1)
        return PrototypeComparison(prototypes, rows.clamp(min=0), rows != NO_PROTOTYPE, targets)


class CentrePrototypes:
    """k-means centres of the bank's features, of length 1, always the same for the same bank.

    Raises:
        ModelError: When the bank has fewer different entries than centres are asked for.
    """

    def __init__(self, bank: FeatureBank, count: int):
        features = wide(bank.features).cpu()
        different = len(torch.unique(features, dim=0))
        if different < count:
            raise ModelError(f"the bank has {different} different entries, so it has no {count} centres; ask for fewer")
        fitted = KMeans(count, n_init=cast(Any, 1), random_state=0).fit(features.double().numpy())
        self.prototypes = F.normalize(torch.from_numpy(fitted.cluster_centers_), dim=1)

    def compare(self, units: Float[Tensor, "batch width"], targets: Int[Tensor, " batch"]) -> PrototypeComparison:
        """With the centre most like the image; `targets` are not used."""
        prototypes = self.prototypes.to(units)
        nearest = (units @ prototypes.T).argmax(dim=1)
        known = torch.ones(len(units), dtype=torch.bool, device=units.device)
        return PrototypeComparison(prototypes.expand(len(units), -1, -1), nearest, known, nearest)


class PairPrototypes:
    """For each image its nearest other entry of the bank, against the bank's mean: what makes the two alike."""

    def __init__(self, bank: FeatureBank):
        self._features = wide(bank.features)
        self._mean = self._features.mean(dim=0)

    def compare(self, units: Float[Tensor, "batch width"], targets: Int[Tensor, " batch"]) -> PrototypeComparison:
        """With the entry; `targets` are not used. An image that is in the bank is not compared with itself."""
        entries = self._features.to(units)
        likeness = units @ entries.T
        likeness = likeness.masked_fill(likeness > ITSELF, -torch.inf)
        nearest = likeness.argmax(dim=1)
        known = likeness.amax(dim=1).isfinite()
        prototypes = torch.stack([entries[nearest], self._mean.to(units).expand(len(units), -1)], dim=1)
        return PrototypeComparison(prototypes, torch.zeros_like(nearest), known, nearest)
