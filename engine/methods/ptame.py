"""P-TAME: an attention head over a frozen auxiliary network's features, trained for any classifier through its inputs and outputs alone.

"P-TAME", IDT-ITI 2025. The head is T-TAME's without a bias. What differs from the release: branches are upsampled in one step, to at most 56
cells; images are those of the model's own preprocessing, without random crops and flips, and come to the auxiliary network in its own
normalisation; the loss weights are those tuned for ResNet-50 unless others are given or searched for (`--tune`); and as in T-TAME the
variation is a mean over maps, classes with few images may share a row of weights, and `--teacher` makes a student [ours].
"""

from __future__ import annotations

from ...errors import ModelError
from ..lazy_torch import torch
from .protocol import Cost, method
from .ttame import TTAME, Reader


@method(
    name="ptame",
    summary="an attention head on an auxiliary network, for classifiers of any kind: one forward pass; needs heatlas train",
    source="P-TAME, IDT-ITI 2025",
    status="code",
    completed="variation as a mean; student of a teacher's maps; shared weights for rare classes; one-step upsampling",
    architecture="any",
    cost=lambda settings: Cost(1),
    trained=True,
    images=32,
)
class PTAME(TTAME):
    """P-TAME (IDT-ITI 2025). Its pass through the auxiliary network is not counted: that is another, smaller model."""

    def reader_of(self, image: torch.Tensor) -> Reader:
        from ..training.auxiliary import AuxiliaryReader

        if self.trained is None or self.trained.auxiliary is None:
            raise ModelError("method ptame needs an explainer with its auxiliary network: `heatlas train ptame`")
        return AuxiliaryReader(self.model, self.trained.auxiliary, image, self.trained.layers)
