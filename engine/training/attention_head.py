"""The attention head of TAME, T-TAME and P-TAME: feature maps of several layers in, one map of logits per class out.

Ntrougkas, Gkalelis, Mezaris, "T-TAME: Trainable Attention Mechanism for Explaining Convolutional Networks and Vision Transformers",
IEEE Access 2024; "P-TAME", 2025. Written from a description of the method; none of the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...errors import SettingsError

LARGEST = 56
"""Cells of a map's longer side, at most: what the fused maps cost grows with its square."""


class AttentionHead(nn.Module):
    """One branch per layer, relu(BN(Conv1x1(F)) + F); all upsampled to the first one's size and fused by a 1x1 convolution.

    Args:
        channels: Of each layer's feature maps, low to high.
        classes: Maps to give, at least 2.
        bias: Of the fusion: T-TAME has one, P-TAME none.
        shared_row: Add one row of fusion weights to every class's own, which then start at zero [ours]: a class that has few
            training images still has a map. False is the paper's.

    Raises:
        SettingsError: When a number is out of its range.
    """

    def __init__(self, channels: Sequence[int], classes: int, *, bias: bool = True, shared_row: bool = False):
        super().__init__()
        if not channels or min(channels) < 1:
            raise SettingsError(f"an attention head needs at least one layer with channels, got {list(channels)}")
        if classes < 2:
            raise SettingsError(f"an attention head needs at least 2 classes, got {classes}")
        self.channels = tuple(channels)
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width)) for width in channels
        )
        self.fusion = nn.Conv2d(sum(channels), classes, 1, bias=bias)
        self.shared = nn.Conv2d(sum(channels), 1, 1, bias=bias) if shared_row else None
        if shared_row:
            for parameter in self.fusion.parameters():
                nn.init.zeros_(parameter)

    @property
    def classes(self) -> int:
        return self.fusion.out_channels

    def fused_features(self, features: Sequence[Float[Tensor, "batch _ _ _"]]) -> Float[Tensor, "batch channel h w"]:
        """The branches side by side at the size of the first layer, at most `LARGEST` cells: all that the classes share."""
        if len(features) != len(self.branches):
            raise SettingsError(f"the head reads {len(self.branches)} layers, got {len(features)}")
        size = head_size(features[0].shape[2:])
        outputs = [
            F.interpolate(F.relu(branch(maps) + maps), size=size, mode="bilinear", align_corners=False)
            for branch, maps in zip(self.branches, features, strict=True)
        ]
        return torch.cat(outputs, dim=1)

    def forward(self, features: Sequence[Float[Tensor, "batch _ _ _"]]) -> Float[Tensor, "batch class h w"]:
        """Logit maps of every class. `rows` gives the same for one class at a fraction of the cost."""
        fused = self.fused_features(features)
        maps = self.fusion(fused)
        return maps if self.shared is None else maps + self.shared(fused)

    def rows(
        self, features: Sequence[Float[Tensor, "batch _ _ _"]], targets: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch h w"]:
        """The logit map of one class for each image."""
        fused = self.fused_features(features)
        weights, bias = self._rows_of(targets)
        return torch.einsum("bchw,bc->bhw", fused, weights) + bias[:, None, None]

    def cross_rows(
        self, features: Sequence[Float[Tensor, "batch _ _ _"]], targets: Int[Tensor, " target"]
    ) -> Float[Tensor, "batch target h w"]:
        """The logit maps of all of `targets` for every image."""
        fused = self.fused_features(features)
        weights, bias = self._rows_of(targets)
        return torch.einsum("bchw,tc->bthw", fused, weights) + bias[None, :, None, None]

    def _rows_of(
        self, targets: Int[Tensor, " target"]
    ) -> tuple[Float[Tensor, "target channel"], Float[Tensor, " target"]]:
        weights = self.fusion.weight[targets, :, 0, 0]
        bias = weights.new_zeros(len(targets)) if self.fusion.bias is None else self.fusion.bias[targets]
        if self.shared is not None:
            weights = weights + self.shared.weight[:, :, 0, 0]
            bias = bias if self.shared.bias is None else bias + self.shared.bias
        return weights, bias

    def layer_shares(self) -> Float[Tensor, " layer"]:
        """How much each layer contributes: softmax of the fusion's weights over channels, summed by branch, mean over classes; sums to 1."""
        rows, _ = self._rows_of(torch.arange(self.classes, device=self.fusion.weight.device))
        shares = rows.detach().softmax(dim=1).split(self.channels, dim=1)
        return torch.stack([part.sum(dim=1).mean() for part in shares])


def head_size(size: Sequence[int]) -> tuple[int, int]:
    """Height and width of the head's maps for a first layer of that size: its own, reduced to `LARGEST` on the longer side."""
    scale = min(1.0, LARGEST / max(size))
    height, width = (max(1, round(side * scale)) for side in size)
    return height, width
