"""Compares a map with the map of a model whose weights are random (Adebayo et al. 2018)."""

from __future__ import annotations

import copy
import zlib
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import nn

from ..explainer import Explainer
from ..random import sample_generator
from ..requests import Steps
from .ranking import spearman


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """A copy of the model in which every parameter is drawn anew, layer by layer; the model itself stays as it is.

    Each tensor is drawn from a normal distribution with the mean and the standard deviation of the trained one, which needs no
    knowledge of the architecture and keeps activations of the same order; statistics of normalisation layers are kept.
    A tensor's draw depends on the seed and its name only.
    """
    random = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in random.named_parameters():
            trained = parameter.detach().double().cpu()
            generator = sample_generator(seed, zlib.crc32(name.encode()), "randomised")
            drawn = torch.randn(trained.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(trained.mean() + trained.std(correction=0) * drawn)
    return random


@dataclass(frozen=True)
class SanityCheck:
    """How alike two models' maps are, and the passes that finding out took."""

    value: float | None
    """Spearman's correlation; None where the randomised model gives the image no map."""
    n_forwards: int
    n_backwards: int


class RandomModel:
    """The same explainer over the randomised model, made when first asked for, since it takes the model's memory again.

    Args:
        explainer: Explains the trained model.
        seed: Of the random weights, at least 0.
    """

    def __init__(self, explainer: Explainer, seed: int = 0):
        self._trained = explainer
        self._seed = seed

    @cached_property
    def explainer(self) -> Explainer:
        """Explains the randomised model with the same settings and layers."""
        return self._trained.over(randomised(self._trained.model, self._seed))

    def compare(
        self,
        image: Float[torch.Tensor, "channel height width"],
        map_: Float[torch.Tensor, "height width"],
        target: int,
        sample: int = 0,
    ) -> Steps[SanityCheck]:
        """`random_model_spearman` of an image whose map is there already."""
        explanation = yield from self.explainer.start(image, target, sample)
        value = None
        if explanation.map is not None:
            correlation = float(spearman(map_.flatten()[None], explanation.map.flatten()[None]))
            value = correlation if correlation == correlation else None
        return SanityCheck(value, explanation.n_forwards, explanation.n_backwards)
