"""Does the map depend on what the model has learnt? Compares it with the map of a model whose weights are random.

After Adebayo et al., NeurIPS 2018 (sanity checks for saliency maps): a map that stays like itself when every layer's weights are
replaced shows the image's edges, not the model. Meant for a sample of a run, since it explains every image once more.
"""

from __future__ import annotations

import copy
import zlib

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..draws import sample_generator
from ..sise import SISE
from ..statuses import OK
from .ranking import spearman

RANDOM_MODEL_SPEARMAN = "random_model_spearman/v1"
"""Definition id."""


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
    random = SISE(
        randomised(sise.model, seed), layers=sise.layers,
        mu=sise.mu, batch_size=sise.scorer.batch_size, precision=sise.scorer.precision,
    )  # fmt: skip
    explained = [one == OK for one in own.statuses]
    values = torch.full((len(images),), torch.nan, dtype=torch.float64, device=images.device)
    if any(explained):
        chosen = torch.tensor(explained, device=images.device)
        other = random(images[chosen], own.targets[chosen])
        value = spearman(own.maps[chosen].flatten(1), other.maps.flatten(1))
        mapped = torch.tensor([one == OK for one in other.statuses], device=images.device)
        values[chosen] = torch.where(mapped, value, torch.nan)
    return values
