"""What an explainer network says of an image: where its parts are, how strong, what each gives to a class, and a map of that [ours]."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from .model_split import Grid, ModelSplit
from .part_encoder import FLOOR, Encoded
from .part_network import PartNetwork
from .part_step import targets_of
from .part_templates import peak_cells


@dataclass(frozen=True, eq=False)
class PartReadout:
    """Of a batch; every filter."""

    logits: Float[Tensor, "batch class"]
    """Of the classifier itself."""
    maps: Float[Tensor, "batch h w"]
    """What parts give to the class, cell by cell; not negative, at the layer's resolution."""
    x: Float[Tensor, "batch filter"]
    """Of each part, in [0, 1] of the input's width; NaN where the filter sees none."""
    y: Float[Tensor, "batch filter"]
    """In [0, 1] of its height."""
    strength: Float[Tensor, "batch filter"]
    """Peak over the filter's mean activation, at least 0."""
    contribution: Float[Tensor, "batch filter"]
    """a_k: what the part gives to the class's rebuilt logit, to first order."""
    rest: Float[Tensor, " batch"]
    """What the ordinary track gives."""
    error: Float[Tensor, " batch"]
    """Relative squared error of the rebuilt features."""
    rebuilt: Int[Tensor, " batch"]
    """The class of the rebuilt features."""

    @property
    def part_share(self) -> Float[Tensor, " batch"]:
        """Of the sum of |a_k| in that sum and |rest|, in [0, 1]."""
        parts = self.contribution.abs().sum(dim=1)
        return parts / (parts + self.rest.abs()).clamp(min=FLOOR)


def read_parts(
    network: PartNetwork,
    split: ModelSplit,
    images: Float[Tensor, "batch channel height width"],
    targets: Int[Tensor, " batch"],
    norms: Float[Tensor, " target"],
) -> PartReadout:
    """Take a batch apart; images do not depend on each other.

    Args:
        network: Trained, in eval mode.
        split: The classifier.
        images: Network input.
        targets: The class of each; -1 for the predicted one.
        norms: Mean square norm of each kind of feature that is rebuilt, over training images.
    """
    maps, features, logits = split.read(images)
    chosen = torch.where(targets < 0, logits.argmax(dim=1), targets)
    with torch.no_grad():
        encoded = network.encode(maps)
    with torch.enable_grad():
        mixed = encoded.mixed.detach().requires_grad_()
        own_features, own_logits = network.decode(mixed)
        (gradient,) = torch.autograd.grad(own_logits.gather(1, chosen[:, None]).sum(), mixed)
    with torch.no_grad():
        given = encoded.share * gradient * encoded.interpretable
        rest = ((1 - encoded.share) * gradient * encoded.ordinary).sum(dim=(1, 2, 3))
        x, y = part_places(encoded.parts, split.grid, (images.shape[2], images.shape[3]))
        made, wanted = targets_of(split, own_features, own_logits), targets_of(split, features, logits)
        errors = [
            (own - goal).flatten(1).square().sum(dim=1) / norm.clamp(min=FLOOR)
            for own, goal, norm in zip(made, wanted, norms, strict=True)
        ]
        return PartReadout(
            logits, class_map(given, encoded), x, y, network.encoder.strengths(encoded.parts), given.sum(dim=(2, 3)), rest,
            torch.stack(errors).mean(dim=0), own_logits.argmax(dim=1),
        )  # fmt: skip


def class_map(given: Float[Tensor, "batch filter _ _"], encoded: Encoded) -> Float[Tensor, "batch h w"]:
    """The positive part of what all filters give, un-pooled by nearest."""
    total = given.sum(dim=1, keepdim=True)
    return F.interpolate(total, size=encoded.parts.shape[2:], mode="nearest")[:, 0].relu()


def part_places(
    parts: Float[Tensor, "batch filter h w"], grid: Grid | None, size: tuple[int, int]
) -> tuple[Float[Tensor, "batch filter"], Float[Tensor, "batch filter"]]:
    """Centres of the peaks' receptive fields as shares of the input's width and height; NaN where a map is 0 everywhere.

    Without a grid, cells tile the input.
    """
    height, width = parts.shape[2:]
    cells = peak_cells(parts)
    rows, columns = cells // width, cells % width
    if grid is None:
        y, x = (rows + 0.5) / height, (columns + 0.5) / width
    else:
        y = (grid.start[0] + rows * grid.step[0] + 0.5) / size[0]
        x = (grid.start[1] + columns * grid.step[1] + 0.5) / size[1]
    absent = parts.amax(dim=(2, 3)) <= 0
    return x.clamp(0, 1).masked_fill(absent, torch.nan), y.clamp(0, 1).masked_fill(absent, torch.nan)


def feature_norms(split: ModelSplit, images: Float[Tensor, "batch channel height width"]) -> Float[Tensor, " target"]:
    """Mean square norm of each kind of feature that is rebuilt."""
    _, features, logits = split.read(images)
    return torch.stack([value.flatten(1).square().sum(dim=1).mean() for value in targets_of(split, features, logits)])
