"""What a model says of an image before it classifies: the input of its classifying layer, or what it returns where it has none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ...errors import ModelError
from ..layers.outputs import first_of, wide

ON_A_LINE = 1e-10
"""Correlations nearer 1 say that two rows are the same but for scale and shift. Rounding in float32 leaves 1e-14; a tanh 3e-9, were its
inputs as small as `SPREAD`, and other activations more."""
SPREAD = 1e-2
"""Standard deviation of a row from which on it says something: near 0 every activation is a line."""
FEWEST = 3
"""Two numbers are always on a line."""
UNIT = 1e-3


@dataclass(frozen=True, eq=False)
class Passed:
    """One linear layer as it ran on a row per image."""

    given: Float[Tensor, "batch feature"]
    output: Tensor
    version: int
    """Of `output` when it was made: an activation that works in place returns the same tensor, but not what the layer said."""
    kept: Float[Tensor, "batch out"] | None
    """A copy of what the layer said, where somebody asked for it."""

    def is_returned(self, output: Tensor) -> bool:
        """Whether the model returns what this layer said, perhaps as another view."""
        same = self.output is output or (self.output.shape == output.shape and self.output.is_set_to(output))
        return same and output._version == self.version


def features_of(
    model: nn.Module, images: Float[Tensor, "batch channel height width"], *, refuse_scores: bool = False
) -> Float[Tensor, "batch feature"]:
    """What the layer is given whose output the model returns, where that is a linear layer; else what the model returns.

    So a classifier with and without its last layer has the same features, whatever linear layers it has further below.

    Args:
        model: In eval mode. May return a tuple or a mapping around a tensor.
        images: Network input.
        refuse_scores: Refuse a model that returns what it makes of its classifying layers' logits, whose features those would be.

    Raises:
        ModelError: When that is not one row per image, or as `refuse_scores` says.
    """
    if torch.is_inference_mode_enabled():  # in which tensors have no version
        with torch.inference_mode(False), torch.no_grad():
            return features_of(model, images.clone(), refuse_scores=refuse_scores)
    with linear_layers(model, with_copies=refuse_scores) as passed:
        output = first_of(model(images), Tensor)
    features = output
    if output is not None:
        head = next((layer for layer in reversed(passed) if layer.is_returned(output)), None)
        features = output if head is None else head.given
    if features is None or features.ndim != 2 or len(features) != len(images):
        raise ModelError(
            "the model gives no feature vector per image; wrap it so that it returns the class token's features"
        )
    if refuse_scores and features is output:
        check_scores(features, [layer.kept for layer in passed if layer.kept is not None])
    return features


def unit_features(
    model: nn.Module, images: Float[Tensor, "batch channel height width"], *, refuse_scores: bool = False
) -> Float[Tensor, "batch feature"]:
    """As `features_of`, each of length 1 (of length 0 where all are 0), float32 at least.

    Raises:
        ModelError: As `features_of`.
    """
    return F.normalize(wide(features_of(model, images, refuse_scores=refuse_scores)), dim=1)


@contextmanager
def linear_layers(model: nn.Module, *, with_copies: bool) -> Iterator[list[Passed]]:
    """Fills the list, in order, with the linear layers that run on one row per image."""
    passed: list[Passed] = []

    def keep(module: nn.Module, args: Any, output: Tensor) -> None:
        if args[0].ndim == 2:
            copy = output.detach().clone() if with_copies else None
            passed.append(Passed(args[0], output, output._version, copy))

    handles = [layer.register_forward_hook(keep) for layer in model.modules() if isinstance(layer, nn.Linear)]
    try:
        yield passed
    finally:
        for handle in handles:
            handle.remove()


def check_scores(output: Float[Tensor, "batch feature"], said: Sequence[Tensor]) -> None:
    """Refuse a softmax, a logarithm of one, a sigmoid or a multiple of the last linear layer's output, or of its last two's sum.

    A projection over its length is no score, and what has fewer than 3 numbers cannot be told apart.

    Args:
        output: What the model returns.
        said: Outputs of its linear layers, in order.

    Raises:
        ModelError: Saying what to return instead.
    """
    values = output.detach().double()
    if values.shape[1] < FEWEST:
        return
    logits = [candidate.double() for candidate in said if candidate.shape == output.shape][-2:]
    if len(logits) == 2:
        logits = [logits[1], logits[0] + logits[1]]
    forms = [values.log(), values.logit()]
    if not bool(((values.norm(dim=1) - 1).abs() < UNIT).all()):
        forms.append(values)
    if any(on_a_line(form, candidate) for form in forms for candidate in logits):
        raise ModelError(
            "the model returns not features but scores that it makes of its last linear layer's output (a softmax, a scale, a mean of "
            "two heads); make it return that output as it is, and features are what the layer is given, or take the layer off, "
            "and they are what is left"
        )


def on_a_line(values: Float[Tensor, "batch feature"], of: Float[Tensor, "batch feature"]) -> bool:
    """Whether each row is the other's but for scale and shift; rows that are not finite or nearly constant do not count."""
    usable = values.isfinite().all(dim=1) & (of.std(dim=1) > SPREAD) & (values.std(dim=1) > 0)
    first, second = (
        F.normalize(points[usable] - points[usable].mean(dim=1, keepdim=True), dim=1) for points in (values, of)
    )
    cosine = (first * second).sum(dim=1).abs()
    return len(cosine) > 0 and bool((cosine > 1 - ON_A_LINE).all())
