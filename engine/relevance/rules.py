"""How relevance passes from a layer's output to its input: the rules of AGF (Gur et al., AAAI 2021), for a batch of images.

All values of a rule belong to one image: no maximum, count or mean goes over the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

EPSILON = 1e-9
SLOPE = 10.0
"""Of the sigmoid that makes features of activations and gradients."""
RIDGE = 1.0
"""Weight of the identity in the two-factor model."""
TERMS = ("activation", "gradient", "input_gradient", "agnostic")
"""Residual terms of a convolution: F_x, F_dx, M and A. `grad_cam` may stand for F_x and M."""
Layer = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class RuleOptions:
    """What of the residual is used, and how it is normalised."""

    terms: frozenset[str] = frozenset(TERMS)
    signed_maximum: bool = False
    """Divide by the maximum, as released, and not by the largest absolute value, which never flips a sign."""


def safe_divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """`numerator / denominator`, 0 where the denominator is 0."""
    empty = denominator == 0
    return torch.where(empty, 0, numerator / torch.where(empty, 1, denominator + EPSILON * denominator.sign()))


def normalised(values: Float[Tensor, "batch ..."], *, signed_maximum: bool) -> Float[Tensor, "batch ..."]:
    """Each image's values over their largest absolute value, or over their maximum."""
    flat = values.flatten(1)
    largest = flat.amax(1) if signed_maximum else flat.abs().amax(1)
    return safe_divide(values, largest.reshape(-1, *(1,) * (values.ndim - 1)).expand_as(values))


def pull_back(layer: Layer, values: Tensor, *cotangents: Tensor) -> list[Tensor]:
    """The layer's Jacobian at `values`, transposed, times each cotangent; one forward pass of the layer."""
    with torch.enable_grad():
        point = values.detach().requires_grad_()
        out = layer(point)
        last = len(cotangents) - 1
        return [
            torch.autograd.grad(out, point, cotangent, retain_graph=place < last)[0]
            for place, cotangent in enumerate(cotangents)
        ]


def propagate(layer: Layer, values: Tensor, relevance: Tensor) -> Tensor:
    """Share each output's relevance among its inputs by what they contribute: u * d<Z, phi / Z> / du, Z the layer of u where phi is not 0.

    The sum is kept, but for outputs that are 0.
    """
    with torch.enable_grad():
        point = values.detach().requires_grad_()
        out = layer(point)
        shares = torch.autograd.grad(out, point, safe_divide(relevance, out.detach()))[0]
    return (values * shares).detach()


def shift_residual(contribution: Tensor, residual: Tensor) -> Tensor:
    """Add the residual where there is a contribution, less its mean there, so that the sum stays the contribution's."""
    there = (contribution != 0).to(contribution.dtype)
    residual = residual * there
    dims = tuple(range(1, residual.ndim))
    count = there.sum(dims, keepdim=True).clamp(min=1)
    return contribution + residual - residual.sum(dims, keepdim=True) / count * there


def two_factors(
    values: Float[Tensor, "batch channel height width"],
    contribution: Float[Tensor, "batch channel height width"],
    options: RuleOptions,
) -> Float[Tensor, "batch 1 height width"]:
    """How much more a pixel's features look like those of pixels with positive contribution than of those with negative.

    Features are sigmoids of the normalised values; the two means of them are the factors, fitted to every pixel by ridge regression.
    """
    features = (SLOPE * normalised(values, signed_maximum=options.signed_maximum)).sigmoid().flatten(2)
    side = contribution.mean(1).flatten(1)
    sides = torch.stack([side < 0, side > 0], dim=1).to(features.dtype)
    means = torch.einsum("bcp,bsp->bcs", features, sides) / sides.sum(2).clamp(min=1)[:, None]
    gram = means.mT @ means + RIDGE * torch.eye(2, dtype=features.dtype, device=features.device)
    weights = torch.linalg.solve(gram, means.mT @ features).relu()
    return (weights[:, 1] - weights[:, 0]).relu().reshape(len(values), 1, *values.shape[2:])


def start_relevance(
    layer: Layer, features: Float[Tensor, "batch feature"], targets: Int[Tensor, " batch"]
) -> tuple[Float[Tensor, "batch feature"], Float[Tensor, "batch feature"]]:
    """Relevance and gradient at the input of the last layer: of the target's softmax, after logits near the target's are raised."""
    with torch.enable_grad():
        point = features.detach().requires_grad_()
        logits = layer(point)
        own = logits.gather(1, targets[:, None])
        widest = (logits - own).abs().amax(1, keepdim=True)
        near = torch.exp(-0.5 * ((logits - own) / torch.where(widest == 0, 1, widest)) ** 2)
        probability = (own * near).softmax(1).gather(1, targets[:, None])
        gradient = torch.autograd.grad(probability.sum(), point)[0]
    return features * gradient, gradient


def unit_start(
    layer: Layer, features: Float[Tensor, "batch feature"], targets: Int[Tensor, " batch"], known: Tensor
) -> tuple[Float[Tensor, "batch feature"], Float[Tensor, "batch feature"]]:
    """As `start_relevance` where the layer reads features of length 1; the rule of the division is that of a batch norm.

    Args:
        layer: Logits of features of length 1.
        features: As the network gives them.
        targets: A logit of each.
        known: Where it is False there is no evidence: all is 0.
    """
    relevance, gradient = start_relevance(layer, F.normalize(features.detach(), dim=1), targets)
    through = pull_back(lambda values: F.normalize(values, dim=1), features, gradient)[0]
    return relevance * known[:, None], through * known[:, None]


def linear_relevance(layer: nn.Linear, features: Tensor, relevance: Tensor) -> Tensor:
    """By absolute contributions, bias apart."""
    weight = layer.weight.abs()
    return propagate(lambda values: F.linear(values, weight), features.abs(), relevance)


def flattened_relevance(
    contribution: Float[Tensor, "batch feature"],
    maps: Float[Tensor, "batch channel height width"],
    gradients: Float[Tensor, "batch feature"],
    options: RuleOptions,
) -> Float[Tensor, "batch feature"]:
    """What a linear layer that reads flattened maps adds: their input times gradient."""
    if "input_gradient" not in options.terms:
        return contribution
    products = (maps * gradients.reshape(maps.shape)).mean(1, keepdim=True).relu()
    residual = normalised(products, signed_maximum=options.signed_maximum).expand_as(maps).flatten(1)
    return shift_residual(contribution, residual)


def conv_relevance(
    layer: nn.Conv2d, maps: Float[Tensor, "batch channel height width"], relevance: Tensor
) -> Float[Tensor, "batch channel height width"]:
    """C: by absolute contributions, bias apart."""
    return propagate(_weighted(layer, layer.weight.abs()), maps.abs(), relevance)


def factorised_relevance(
    layer: nn.Conv2d,
    maps: Float[Tensor, "batch channel height width"],
    relevance: Tensor,
    gradients: Tensor,
    options: RuleOptions,
) -> tuple[Float[Tensor, "batch channel height width"], Float[Tensor, "batch channel height width"]]:
    """AGF's rule for a convolution: C, and the residual of F_x, F_dx, M and A, shifted to zero sum.

    Args:
        layer: The convolution.
        maps: Its input X.
        relevance: phi at its output.
        gradients: Of the start's probability, at its output.
        options: Which terms, and how they are normalised.

    Returns:
        The relevance of the input, and the gradients there.
    """
    shown = gradients * (relevance != 0)
    pulled, masked = pull_back(layer, maps, gradients, shown)
    contribution = conv_relevance(layer, maps, relevance)
    return shift_residual(
        contribution, _residual(layer, maps, relevance, contribution, pulled, masked, options)
    ), pulled


def _residual(
    layer: nn.Conv2d,
    maps: Tensor,
    relevance: Tensor,
    contribution: Tensor,
    pulled: Tensor,
    masked: Tensor,
    options: RuleOptions,
) -> Tensor:
    """((F_x + M) sigmoid(C) + F_dx + A), before it is shifted."""
    terms: Collection[str] = options.terms
    gated = torch.zeros_like(maps[:, :1])
    if "grad_cam" in terms:
        gated = gated + (maps * pulled.mean((2, 3), keepdim=True)).mean(1, keepdim=True).relu()
    else:
        if "activation" in terms:
            gated = gated + two_factors(maps, contribution, options)
        if "input_gradient" in terms:
            products = (maps * pulled).mean(1, keepdim=True).relu()
            gated = gated + normalised(products, signed_maximum=options.signed_maximum)
    residual = gated * contribution.sigmoid()
    if "gradient" in terms:
        residual = residual + two_factors(masked, contribution, options)
    if "agnostic" in terms:
        residual = residual + propagate(_weighted(layer, layer.weight.abs()), torch.ones_like(maps), relevance)
    return residual


def pixel_relevance(
    layer: nn.Conv2d, images: Float[Tensor, "batch channel height width"], relevance: Tensor
) -> Float[Tensor, "batch channel height width"]:
    """The z^B rule of the first convolution (Montavon et al. 2017), with each image's own smallest and largest value as bounds."""
    weight = layer.weight
    low = images.amin((1, 2, 3), keepdim=True).expand_as(images)
    high = images.amax((1, 2, 3), keepdim=True).expand_as(images)
    parts = ((images, weight, 1.0), (low, weight.clamp(min=0), -1.0), (high, weight.clamp(max=0), -1.0))
    with torch.no_grad():
        total = sum(sign * _weighted(layer, each)(values) for values, each, sign in parts)
    shares = safe_divide(relevance, torch.as_tensor(total))
    pulled = [sign * values * pull_back(_weighted(layer, each), values, shares)[0] for values, each, sign in parts]
    return torch.stack(pulled).sum(0)


def split_sum(first: Tensor, second: Tensor, relevance: Tensor) -> tuple[Tensor, Tensor]:
    """The relevance of a sum to its two parts, in proportion; lost where the sum is 0."""
    share = safe_divide(relevance, first + second)
    return first * share, second * share


def _weighted(layer: nn.Conv2d, weight: Tensor) -> Layer:
    """The convolution with another weight and without its bias."""
    return lambda values: F.conv2d(values, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
