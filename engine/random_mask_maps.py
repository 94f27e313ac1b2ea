"""RISE maps of one image by several networks at once: the same masked images go to each, so that only the confidences differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jaxtyping import Float, Int

from .lazy_torch import torch
from .methods.normalise import spread
from .methods.rise import RISE, RandomMasks
from .scoring.confidence import Confidence

Network = Callable[[Float[torch.Tensor, "batch channel height width"]], Float[torch.Tensor, "batch class *pixels"]]
"""From network inputs to logits; forward passes only, which a quantised graph has, too."""


def rise_maps(
    image: Float[torch.Tensor, "channel height width"],
    target: int,
    seed: int,
    networks: Sequence[Network],
    *,
    confidence: Confidence,
    scene: Int[torch.Tensor, "height width"] | None,
    count: int,
    batch_size: int,
) -> list[Float[torch.Tensor, "height width"]]:
    """One map per network, in [0, 1], float64; a network to which no mask makes a difference has a map of zeros.

    Args:
        image: Network input.
        target: The class whose confidence counts the masks.
        seed: Of the masks, at least 0.
        networks: All see the same masked images.
        confidence: What counts.
        scene: The class of every pixel of the unmasked image, of dense models; one for all networks.
        count: Masks, at least 1.
        batch_size: Masked images in one call of a network, at least 1.
    """
    masks = RandomMasks(image, target, RISE.declared.settings(masks=count, seed=seed), seed)
    scores = [torch.empty(count, dtype=torch.float64) for _ in networks]
    for start in range(0, count, batch_size):
        masked = image.new_empty((min(batch_size, count - start), *image.shape))
        masks.fill(start, masked)
        for values, network in zip(scores, networks, strict=True):
            values[start : start + len(masked)] = confidences_of(network(masked), target, confidence, scene)
    maps = []
    for values in scores:
        masks.job.scores = values
        total = masks.total()
        # equal scores would leave how often each pixel is shown, which is no evidence
        maps.append(spread(total[None])[0] if float(values.max() - values.min()) != 0 else torch.zeros_like(total))
    return maps


def confidences_of(
    output: Float[torch.Tensor, "batch class *pixels"],
    target: int,
    confidence: Confidence,
    scene: Int[torch.Tensor, "height width"] | None,
) -> Float[torch.Tensor, " batch"]:
    """Confidence in the target, in [0, 1], float64; of dense models in what the scene has of it."""
    targets = torch.full((len(output),), target, device=output.device)
    scenes = () if scene is None else (scene.expand(len(output), *scene.shape),)
    return confidence.value(output, targets, *scenes).double()
