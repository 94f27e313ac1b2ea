"""A classifier made of a model that gives features and a bank of labelled ones: whatever explains a classifier explains it, too."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from .feature_bank import FeatureBank
from .image_features import unit_features


class BankClassifier(nn.Module):
    """Logits are the logarithms of the votes of the nearest entries, so a softmax gives each class its share of the votes.

    Gradients flow through the similarities to the nearest entries.

    Args:
        model: Gives features, see `image_features.features_of`; a child, so that its layers keep their names behind `model.`.
        bank: Made by `build_bank` with the same model; a child whose features and labels are buffers, shared by copies. Moved to where the model is.
    """

    def __init__(self, model: nn.Module, bank: FeatureBank):
        super().__init__()
        first = next(model.parameters(), None)
        self.model = model
        self.bank = bank if first is None else bank.to(first.device)

    def forward(self, images: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch class"]:
        """Float32 at least, also under autocast.

        Raises:
            ModelError: When the model gives no features.
        """
        return self.bank(unit_features(self.model, images))
