"""Part templates and the filter loss of interpretable filters: how much a filter's map says about where its part is.

Zhang et al., arXiv 1805.07468, with template, priors and loss as the same group's ICNN code and its independent re-implementations have
them. Positions outnumber images by far, so everything is computed from log-probabilities. None of the authors' code.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

BETA = 4.0
"""How fast a template falls with the distance from its part: it reaches 0 at a quarter of the map's side."""


def templates(height: int, width: int, beta: float = BETA) -> Float[Tensor, "template height width"]:
    """T_mu = tau max(1 - beta |x - mu|_1 / L, -1) for every cell mu, row by row, then the negative template -tau.

    tau = 0.5 / (height width); L is the longer side [ours for maps that are no squares].
    """
    distance = cell_distances(height, width)
    positive = (1 - beta * distance / max(height, width)).clamp(min=-1)
    negative = -torch.ones(1, height, width)
    return 0.5 / (height * width) * torch.cat([positive, negative])


def cell_distances(height: int, width: int) -> Float[Tensor, "cell height width"]:
    """City-block distance of every cell from every cell."""
    rows, columns = torch.arange(height), torch.arange(width)
    down, across = (rows[:, None] - rows).abs(), (columns[:, None] - columns).abs()
    return (down[:, None, :, None] + across[None, :, None, :]).reshape(height * width, height, width).float()


def filter_scores(
    maps: Float[Tensor, "batch filter height width"], shapes: Float[Tensor, "template height width"]
) -> Float[Tensor, "filter batch template"]:
    """s[b, t] = sum(x_b T_t) for each filter."""
    return torch.einsum("bfhw,thw->fbt", maps, shapes.to(maps))


def filter_losses(
    maps: Float[Tensor, "batch filter height width"],
    shapes: Float[Tensor, "template height width"],
    earlier: Float[Tensor, "filter image template"] | None = None,
) -> Float[Tensor, " filter"]:
    """Minus the mutual information of a batch's maps and the templates, for each filter: in [-min(log batch, log templates), 0].

    p(x_b | T_t) is the softmax over the batch of sum(x_b T_t), and all templates are equally likely. Everything is differentiated. Constant
    maps, and maps that are the same in all images, give 0: images in which the part never moves teach nothing.

    Args:
        maps: After their ReLU, before any mask.
        shapes: Of `templates`, of the maps' size.
        earlier: `filter_scores` of images of earlier batches, which count as images of this one; not differentiated [ours].
    """
    return score_losses(filter_scores(maps, shapes), earlier)


def score_losses(
    scores: Float[Tensor, "filter batch template"], earlier: Float[Tensor, "filter image template"] | None = None
) -> Float[Tensor, " filter"]:
    """`filter_losses` from `filter_scores`."""
    if earlier is not None:
        scores = torch.cat([scores, earlier.detach().to(scores)], dim=1)
    log_given = scores.log_softmax(dim=1)
    log_prior = -math.log(scores.shape[2])
    log_image = (log_given + log_prior).logsumexp(dim=2, keepdim=True)
    information = (log_given.exp() * (log_given - log_image)).sum(dim=(1, 2)) * math.exp(log_prior)
    return -information


def information_bound(batch: int, cells: int) -> float:
    """The most that `filter_losses` can say about a batch, in nats."""
    return min(math.log(batch), math.log(cells + 1))


def peak_cells(maps: Float[Tensor, "batch filter height width"]) -> Int[Tensor, "batch filter"]:
    """Where each map is largest, counted row by row; the first of equals."""
    return maps.flatten(2).argmax(dim=2)


def part_masks(
    maps: Float[Tensor, "batch filter height width"], beta: float = BETA
) -> Float[Tensor, "batch filter height width"]:
    """max(1 - beta |x - mu|_1 / L, 0) around each map's peak mu, a constant to differentiation; all 0 where a map is 0 everywhere."""
    height, width = maps.shape[2:]
    with torch.no_grad():
        shapes = (1 - beta * cell_distances(height, width).to(maps) / max(height, width)).clamp(min=0)
        present = (maps.amax(dim=(2, 3)) > 0)[:, :, None, None]
        return shapes[peak_cells(maps)] * present
