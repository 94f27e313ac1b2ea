"""Right for the right reasons (RRR): a penalty on input gradients where the mark is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def gradient_penalty(
    losses: Float[Tensor, " image"],
    images: Float[Tensor, "image channel height width"],
    regions: Bool[Tensor, "image height width"],
) -> Float[Tensor, ""]:
    """Mean cosine of the input gradient's magnitude and the mark's region, over the images that have one; 0 without any.

    Source: Ross et al., IJCAI 2017, in the form of Reveal to Revise (Pahde et al., MICCAI 2023): cos(|sum over channels of the gradient|, M).

    Args:
        losses: Per image, computed from `images`.
        images: The inputs, requiring gradients.
        regions: Empty where an image carries no mark.
    """
    marked = regions.flatten(1).any(dim=1)
    if not bool(marked.any()):
        return losses.sum() * 0
    [gradients] = torch.autograd.grad(losses.sum(), images, create_graph=True)
    magnitudes = gradients[marked].sum(dim=1).abs().flatten(1)
    return F.cosine_similarity(magnitudes, regions[marked].flatten(1).to(magnitudes), dim=1, eps=1e-12).mean()
