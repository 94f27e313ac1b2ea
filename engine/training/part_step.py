"""One training step of an explainer network: rebuild the classifier's features, through parts as far as that goes, and let parts be parts.

Loss (arXiv 1805.07468): reconstruction - eta log p + filter loss. `robust` [ours] divides the squared error by the features' mean square and
the maps by their running mean peak, so that no weight depends on the classifier's scale, and lets the filter loss grow over the first
fifth of the steps. `paper` keeps squared error over the features' mean norm, eta 20 (recalled, unchecked) and maps as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .model_split import ModelSplit
from .part_encoder import FLOOR, Encoded
from .part_network import PartNetwork
from .part_settings import PartSettings
from .part_templates import filter_scores, information_bound, score_losses, templates

SHARPNESS = 8.0
"""Times the number of cells: by what robust maps are multiplied, their peaks being 1 on average."""
RAMP = 0.2
"""Share of the steps over which the filter loss grows."""
SHARE_RATE = 10.0
"""The learning rate of p's weight, over that of the others."""
LEAST_AREA = 0.5
"""Of a random crop."""


class PartStep(nn.Module):
    """The loss of a batch as a function of the network's weights.

    Args:
        network: What is trained.
        split: The classifier, frozen.
        settings: Weights of the losses.
        steps: Of the whole training.
        seed: Of the random crops.
    """

    shapes: Tensor
    queue: Tensor
    """Scores of the last images for every template, newest first."""
    queued: Tensor
    """How many of its places are taken."""

    def __init__(self, network: PartNetwork, split: ModelSplit, settings: PartSettings, steps: int, seed: int):
        super().__init__()
        self.network = network
        self._outside = (split, settings, steps, seed)
        self.register_buffer("shapes", templates(*split.size), persistent=False)
        self.register_buffer("queue", torch.zeros(network.filters, settings.filter_queue, len(self.shapes)))
        self.register_buffer("queued", torch.zeros((), dtype=torch.long))

    def forward(
        self, images: Float[Tensor, "batch channel height width"], targets: object = None, teacher: object = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its terms; `targets` and `teacher` are not used: the classifier's features are the teacher.

        In eval mode images are not cropped and the filter loss counts in full, so that epochs can be compared.
        """
        split, settings, steps, seed = self._outside
        network, ramp = self.network, 1.0
        if self.training:
            done = int(network.steps)
            ramp = min(1.0, done / max(1.0, RAMP * steps))
            if settings.augment:
                images = random_crops(images, seed, done)
            network.steps += 1
        maps, features, logits = split.read(images)
        encoded = network.encode(maps)
        own_features, own_logits = network.decode(encoded.mixed)
        robust = settings.preset == "robust"
        wanted, made = targets_of(split, features, logits), targets_of(split, own_features, own_logits)
        errors = [reconstruction(own, goal, robust) for own, goal in zip(made, wanted, strict=True)]
        scores = filter_scores(self._scaled(encoded, robust), self.shapes)
        earlier = self.queue[:, : int(self.queued)].clone() if self.training else None
        losses = score_losses(scores, earlier).mean()
        seen = len(images) + (0 if earlier is None else earlier.shape[1])
        log_share = F.logsigmoid(network.encoder.weight)
        loss = torch.stack(errors).sum() - settings.share_weight * log_share + ramp * settings.filter_weight * losses
        bound = information_bound(seen, len(self.shapes) - 1)
        if self.training:
            self._enqueue(scores.detach())
        terms = {
            "reconstruction": torch.stack(relative_errors(made, wanted)).mean(), "share_of_parts": encoded.share,
            "information": -losses / bound if bound else losses * 0, "agreement": (own_logits.argmax(1) == logits.argmax(1)).float().mean(),
        }  # fmt: skip
        return loss, {name: value.detach() for name, value in terms.items()}

    @torch.no_grad()
    def _enqueue(self, scores: Tensor) -> None:
        """Put a step's scores before those of earlier steps; the oldest leave."""
        length = self.queue.shape[1]
        self.queue.copy_(torch.cat([scores.to(self.queue), self.queue], dim=1)[:, :length])
        self.queued.copy_((self.queued + scores.shape[1]).clamp(max=length))

    def _scaled(self, encoded: Encoded, robust: bool) -> Tensor:
        """Maps as the filter loss sees them."""
        if not robust:
            return encoded.parts
        peaks = self.network.encoder.peaks.mean.clone().clamp(min=FLOOR)[:, None, None]
        return encoded.parts / peaks * (SHARPNESS * (len(self.shapes) - 1))


def targets_of(split: ModelSplit, features: Sequence[Tensor], logits: Tensor) -> list[Tensor]:
    """What is rebuilt: the inputs of the fully connected layers behind a hidden one, else the features before the logits, and the logits."""
    if split.hidden:
        return list(features)
    return [logits] if isinstance(split.head, nn.Identity) else [*features, logits]


def reconstruction(made: Float[Tensor, "batch ..."], wanted: Float[Tensor, "batch ..."], robust: bool) -> Tensor:
    """Squared error of a batch, over the mean square (robust) or the mean norm (paper) of what is wanted."""
    error = (made - wanted).flatten(1).square().sum(dim=1).mean()
    norms = wanted.flatten(1).norm(dim=1)
    return error / (norms.square().mean() if robust else norms.mean()).clamp(min=FLOOR)


def relative_errors(made: Sequence[Tensor], wanted: Sequence[Tensor]) -> list[Float[Tensor, " batch"]]:
    """|x - x*|^2 over the batch's mean |x*|^2 for each kind of feature, image by image."""
    return [
        (own - goal).flatten(1).square().sum(dim=1) / goal.flatten(1).square().sum(dim=1).mean().clamp(min=FLOOR)
        for own, goal in zip(made, wanted, strict=True)
    ]


def part_optimiser(network: PartNetwork, settings: PartSettings, steps: int) -> tuple[torch.optim.Optimizer, Any]:
    """The optimiser and its cosine schedule; only weights of convolutions and fully connected layers are decayed, p's weight moves faster."""
    named = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
    share = [parameter for _, parameter in named if parameter is network.encoder.weight]
    decayed = [parameter for _, parameter in named if parameter.ndim > 1]
    plain = [parameter for _, parameter in named if parameter.ndim <= 1 and parameter is not network.encoder.weight]
    rate = settings.learning_rate
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0},
        {"params": share, "weight_decay": 0.0, "lr": SHARE_RATE * rate},
    ]  # fmt: skip
    optimiser: torch.optim.Optimizer = (
        torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True)
        if settings.optimiser == "sgd"
        else torch.optim.AdamW(groups, lr=rate)
    )
    return optimiser, torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=max(steps, 1))


def random_crops(
    images: Float[Tensor, "batch channel height width"], seed: int, step: int
) -> Float[Tensor, "batch channel height width"]:
    """Every image cropped to half or more of its area at a random place, half of them mirrored, and resized bilinearly.

    Args:
        images: Network input.
        seed: Of the training.
        step: Which step of it: the crops follow from both alone.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    draws = torch.rand(len(images), 4, generator=generator)
    side = (LEAST_AREA + (1 - LEAST_AREA) * draws[:, 0]).sqrt()
    centre = (2 * draws[:, 1:3] - 1) * (1 - side)[:, None]
    theta = torch.zeros(len(images), 2, 3)
    theta[:, 0, 0] = side * torch.where(draws[:, 3] < 0.5, -1, 1)
    theta[:, 1, 1] = side
    theta[:, :, 2] = centre
    grid = F.affine_grid(theta.to(images), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
