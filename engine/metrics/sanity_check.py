"""Compares a map with the map of a model whose weights are random (Adebayo et al. 2018)."""

from __future__ import annotations

import copy
import zlib
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...statuses import OK
from ..explainer import Explainer, finish
from ..random import sample_generator
from ..sise.sise import SISE
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

    def spearman(
        self,
        image: Float[Tensor, "channel height width"],
        heat: Float[Tensor, "height width"],
        target: int,
        sample: int = 0,
    ) -> tuple[float | None, tuple[int, int]]:
        """`random_model_spearman` of an image whose map is there already, and the forwards and backwards spent.

        Returns:
            None in place of the correlation where the randomised model gives the image no map.
        """
        random = self.explainer
        try:
            pending = random.begin(image, target, sample)
            finish(random, pending)
        except BaseException:
            random.reset()
            raise
        found = random.complete(pending, keep_layers=False)
        passes = found.n_forwards, found.n_backwards
        if found.map is None:
            return None, passes
        value = float(spearman(heat.flatten()[None], found.map.flatten()[None]))
        return (None if value != value else value), passes


def random_model_spearman(
    sise: SISE,
    images: Float[Tensor, "batch channel height width"],
    targets: Int[Tensor, " batch"] | None = None,
    *,
    seed: int = 0,
) -> Float[Tensor, " batch"]:
    """Spearman's correlation over the pixels of S(x) and of S'(x), S' from the model with every weight drawn anew, same class.

    Unit: correlation. Range: [-1, 1]. Nearer 0 is better. Baseline: the randomised model. Source: Adebayo et al., NeurIPS 2018.

    Args:
        sise: Explains the trained model; the randomised one is explained with the same settings and layers.
        images: In network-input space, on the model's device.
        targets: Class index per image, or None for the classes that the trained model predicts.
        seed: Of the random weights, at least 0.

    Returns:
        NaN where either model gives the image no map.
    """
    own = sise(images, targets)
    random = sise.over(randomised(sise.model, seed))
    explained = [one == OK for one in own.statuses]
    values = torch.full((len(images),), torch.nan, dtype=torch.float64, device=images.device)
    if any(explained):
        chosen = torch.tensor(explained, device=images.device)
        other = random(images[chosen], own.targets[chosen])
        value = spearman(own.maps[chosen].flatten(1), other.maps.flatten(1))
        mapped = torch.tensor([one == OK for one in other.statuses], device=images.device)
        values[chosen] = torch.where(mapped, value, torch.nan)
    return values
