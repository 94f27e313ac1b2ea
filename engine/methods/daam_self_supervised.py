"""DAAM for self-supervised vision transformers: a bank of labelled features stands in for the classifier."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from .attention_capture import check_transformer, run_attention
from .batch_settings import DaamSettings
from .daam import block_maps, finished, slopes_of
from .feature_bank import FeatureBank, features_of
from .layer_gradients import wide
from .method import MethodMaps
from .passes import differentiable, plain


class SelfSupervisedDaam:
    """As `Daam`, but C_b is the gradient of the feature weighed by the dimensions that the nearest entries of its class share.

    As in the released code the weights apply to the feature before it is normalised, and C_b is not rectified.

    Args:
        model: A vision transformer with a class token.
        bank: Made by `build_bank` with the same model.
        settings: As the supervised form's.

    Raises:
        ModelError: When the model is no vision transformer that it can read.
    """

    def __init__(self, model: nn.Module, bank: FeatureBank, settings: DaamSettings | None = None):
        check_transformer(model)
        self._model = model
        self._bank = bank
        self._settings = DaamSettings() if settings is None else settings

    def explain(
        self, images: Float[Tensor, "batch channel height width"], targets: Int[Tensor, " batch"] | None = None
    ) -> tuple[MethodMaps, Int[Tensor, " batch"]]:
        """Maps, and the classes that they explain: the targets, or what the bank says.

        An image none of whose nearest entries is of its target has a constant map.

        Raises:
            ModelError: When attention is computed in an unknown way.
        """
        with differentiable(self._model):
            feature, run = run_attention(self._model, plain(images), lambda batch: features_of(self._model, batch))
            normed = F.normalize(wide(feature.detach()), dim=1)
            classes = self._bank.classes(normed) if targets is None else targets
            gradients = run.gradients(feature, self._bank.weights(normed, classes).to(feature))
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            slopes = [slopes_of(block, one) for block, one in zip(run.blocks, gradients, strict=True)]
            maps = block_maps(run, slopes, is_checked=False)
            return finished(maps, (images.shape[2], images.shape[3]), self._settings), classes
