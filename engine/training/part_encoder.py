"""The encoder of the explainer network: a track of part filters, a track for the rest, and the learned share between them.

Zhang et al., arXiv 1805.07468. Ours, as no public text gives it: running means over positions in the norm layers, channels that never fire
are left out, layers whose values have both signs are read as their positive and their negative part.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from .part_templates import BETA, part_masks

MOMENTUM = 0.99
FLOOR = 1e-6
"""Mean activation below which a channel counts as dead."""
NOISE = 0.1
"""Of the first weights beside the identity: what it adds is this share of the signal, whatever the width."""


class RunningMean(nn.Module):
    """The mean of something for each channel over the batches that were seen in training; frozen in eval mode.

    The first batches count alike, later ones with `MOMENTUM`.
    """

    mean: Tensor
    batches: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    def forward(self, values: Float[Tensor, "batch channel"]) -> Float[Tensor, " channel"]:
        """The running mean, after this batch where it counts; never differentiated."""
        if self.training:
            with torch.no_grad():
                keep = (self.batches / (self.batches + 1)).clamp(max=MOMENTUM)
                self.mean.copy_(keep * self.mean + (1 - keep) * values.detach().float().mean(dim=0))
                self.batches += 1
        return self.mean.clone()


class ActivationNorm(nn.Module):
    """Divide every channel by its running mean activation, so that all count alike on average; dead channels become 0."""

    def __init__(self, channels: int):
        super().__init__()
        self.running = RunningMean(channels)

    def forward(self, maps: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch channel h w"]:
        alpha = self.running(maps.clamp(min=0).mean(dim=(2, 3)))[:, None, None]
        return torch.where(alpha > FLOOR, maps / alpha.clamp(min=FLOOR), 0)

    @property
    def dead(self) -> Bool[Tensor, " channel"]:
        return self.running.mean <= FLOOR


@dataclass(frozen=True, eq=False)
class Encoded:
    """A layer's maps, taken apart."""

    parts: Float[Tensor, "batch filter h w"]
    """Of the second interpretable convolution after its ReLU, before its mask: where the parts are looked for."""
    interpretable: Float[Tensor, "batch filter _ _"]
    """x_int: masked, normed, pooled."""
    ordinary: Float[Tensor, "batch filter _ _"]
    """x_ord: normed, pooled."""
    share: Float[Tensor, ""]
    """p, in (0, 1)."""

    @property
    def mixed(self) -> Float[Tensor, "batch filter _ _"]:
        """x_enc = p x_int + (1 - p) x_ord."""
        return self.share * self.interpretable + (1 - self.share) * self.ordinary


class PartEncoder(nn.Module):
    """Both tracks over the maps of one layer.

    Args:
        channels: Of the maps, which are not negative.
        pool: The classifier's own pooling behind the layer, if that is what follows.
    """

    def __init__(self, channels: int, pool: nn.Module | None = None):
        super().__init__()
        self.first, self.second, self.rest = (near_identity(channels) for _ in range(3))
        self.norm_parts, self.norm_rest = ActivationNorm(channels), ActivationNorm(channels)
        self.peaks = RunningMean(channels)
        self.weight = nn.Parameter(torch.zeros(()))
        self.pool = nn.Identity() if pool is None else pool
        self.masked = True
        """Tests switch the masks off."""

    def forward(self, maps: Float[Tensor, "batch filter h w"]) -> Encoded:
        inner = self._kept(F.relu(self.first(maps)))
        parts = F.relu(self.second(inner))
        self.peaks(parts.amax(dim=(2, 3)))
        return Encoded(
            parts, self.pool(self.norm_parts(self._kept(parts))), self.pool(self.norm_rest(F.relu(self.rest(maps)))),
            self.weight.sigmoid(),
        )  # fmt: skip

    def _kept(self, maps: Tensor) -> Tensor:
        return maps * part_masks(maps, BETA) if self.masked else maps

    def strengths(self, parts: Float[Tensor, "batch filter h w"]) -> Float[Tensor, "batch filter"]:
        """Peak over the filter's mean activation; 0 for a dead filter."""
        alpha = self.norm_parts.running.mean
        return torch.where(alpha > FLOOR, parts.amax(dim=(2, 3)) / alpha.clamp(min=FLOOR), 0)


def near_identity(channels: int) -> nn.Conv2d:
    """A 3x3 convolution that gives its input back, and a little of everything."""
    convolution = nn.Conv2d(channels, channels, 3, padding=1)
    with torch.no_grad():
        nn.init.normal_(convolution.weight, std=NOISE / (9 * channels) ** 0.5)
        nn.init.zeros_(convolution.bias)  # pyright: ignore[reportArgumentType]
        places = torch.arange(channels)
        convolution.weight[places, places, 1, 1] += 1
    return convolution
