"""Components of what a class's logit is made of: class-wise principal components whose contributions sum to the logit.

Source: Neuhaus et al., Spurious Features Everywhere, ICCV 2023, sections 3 and 5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from sklearn.decomposition import PCA
from torch import Tensor, nn

from ...errors import ModelError
from ..layers.eval_mode import in_eval_mode
from ..layers.outputs import logits_of

COMPONENTS = 16
TOLERANCE = 1e-3
"""Share of the logits' span by which what the head gives may differ from them."""


@dataclass(frozen=True, eq=False)
class LinearHead:
    """The last layer of a classifier."""

    weight: Float[np.ndarray, "class feature"]
    bias: Float[np.ndarray, " class"]


@dataclass(frozen=True, eq=False)
class ClassComponents:
    """Of one class's logit over some images: `contributions.sum(axis=1) + rest + constant` is the logit."""

    contributions: Float[np.ndarray, "image component"]
    """The part of the logit that each component gives an image, against the mean image; the component of most variance first."""
    rest: Float[np.ndarray, " image"]
    """That of all further components."""
    constant: float
    """The mean image's logit."""
    directions: Float[np.ndarray, "component feature"]
    """Unit vectors among the weighted features."""
    mean: Float[np.ndarray, " feature"]
    """Of the weighted features."""

    @property
    def shares(self) -> Float[np.ndarray, " component"]:
        """Variance of each contribution over that of the logit; they need not sum to 1, for contributions may be correlated."""
        whole = (self.contributions.sum(axis=1) + self.rest).var()
        return self.contributions.var(axis=0) / max(float(whole), 1e-12)


def class_components(
    features: Float[np.ndarray, "image feature"], head: LinearHead, index: int, *, count: int = COMPONENTS
) -> ClassComponents:
    """Components of one class.

    Args:
        features: What the head is given, of images of the class; at least 2.
        head: The classifying layer.
        index: The class.
        count: Most components.
    """
    weighted = features.astype(np.float64) * head.weight[index].astype(np.float64)
    mean = weighted.mean(axis=0)
    centred = weighted - mean
    model = PCA(min(count, len(features) - 1, features.shape[1]), svd_solver="full").fit(weighted)
    directions = np.asarray(model.components_)
    contributions = (centred @ directions.T) * directions.sum(axis=1)
    rest = centred.sum(axis=1) - contributions.sum(axis=1)
    return ClassComponents(contributions, rest, float(mean.sum() + head.bias[index]), directions, mean)


def without_component(
    features: Float[np.ndarray, "image feature"], head: LinearHead, index: int, mean: Float[np.ndarray, " feature"],
    direction: Float[np.ndarray, " feature"],
) -> Float[np.ndarray, " image"]:  # fmt: skip
    """The class's logit of any images without what a component adds to it; what it takes away stays. No training (SpuFix).

    Args:
        features: What the head is given.
        head: The classifying layer.
        index: The class.
        mean: Of the weighted features, as `ClassComponents` has it.
        direction: The component's.
    """
    weighted = features.astype(np.float64) * head.weight[index]
    added = ((weighted - mean) @ direction) * direction.sum()
    return weighted.sum(axis=1) + head.bias[index] - np.maximum(0, added)


def linear_head(model: nn.Module, images: Float[Tensor, "image channel height width"]) -> LinearHead:
    """The linear layer whose output the model returns.

    Args:
        model: A classifier; left as it came.
        images: At least one, on its device.

    Raises:
        ModelError: If the logits are not what a linear layer says of one feature vector per image.
    """
    calls: list[tuple[nn.Linear, Tensor, Tensor]] = []

    def note(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Linear) and given[0].ndim == 2:
            calls.append((module, given[0].detach(), output.detach()))

    hooks = [layer.register_forward_hook(note) for layer in model.modules() if isinstance(layer, nn.Linear)]
    try:
        with in_eval_mode(model), torch.inference_mode():
            logits = logits_of(model(images)).float()
    finally:
        for hook in hooks:
            hook.remove()
    for layer, _, output in reversed(calls):
        if output.shape == logits.shape and bool(
            ((output.float() - logits).abs() <= TOLERANCE * (logits.max() - logits.min()) + 1e-6).all()
        ):
            bias = torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias.detach()
            return LinearHead(layer.weight.detach().float().cpu().numpy(), bias.float().cpu().numpy())
    raise ModelError(
        "contributions to a logit need a classifier whose logits are the output of a linear layer, which this model's are not"
    )
