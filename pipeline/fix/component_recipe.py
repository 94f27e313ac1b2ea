"""The recipe spufix: hold the components of logits that people called a shortcut at the level of images that have least of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ...engine.repair.linear_head import component_direction, find_head, head_features, head_without_components
from ...errors import UsageError
from ..components.shortcut_components import NamedShortcut
from ..text import counted
from .head_recipes import head_state
from .training_images import TrainingSet

FEWEST = 10
"""Training images of a class with contributions, at least."""
LEAST_SHARE = 0.1
"""Of a class's images: those with least of a component, at whose level it is held."""


def without_shortcuts(
    model: nn.Module, data: TrainingSet, shortcuts: Sequence[NamedShortcut], seed: int
) -> dict[str, Tensor]:
    """The model's weights with a last layer that named components do not move any more.

    A model of other features than the one whose components were named has the same cue along another direction: that of greatest covariance
    with the contributions of the same images (Neuhaus et al. 2023, section 5).

    Args:
        model: In eval mode; left as it came.
        data: Training images.
        shortcuts: At least one.
        seed: Of the half of the images from which directions and levels are taken.

    Raises:
        ModelError: If the last layer is not linear.
        UsageError: If too few training images have contributions.
    """
    head = find_head(model, data.loaded.inputs[:2].to(next(model.parameters()).device))
    features = head_features(model, head, data.loaded.inputs)
    weight = head.weight.detach().float().cpu().clone()
    bias = torch.zeros(len(weight)) if head.bias is None else head.bias.detach().float().cpu().clone()
    random = np.random.default_rng(seed)
    places = {image.sample.id: place for place, image in enumerate(data.loaded.images)}
    for index in dict.fromkeys(shortcut.index for shortcut in shortcuts):
        directions, levels = [], []
        for shortcut in (shortcut for shortcut in shortcuts if shortcut.index == index):
            known = sorted(identity for identity in shortcut.contributions if identity in places)
            if len(known) < FEWEST:
                raise UsageError(
                    f"recipe spufix needs {FEWEST} training images of {shortcut.class_name} with a contribution of {shortcut.name}, and has "
                    f"{counted(len(known), 'image')}; run heatlas components on the store that is trained on"
                )
            half = [known[place] for place in random.permutation(len(known))[: -(-len(known) // 2)]]
            parts = features[[places[identity] for identity in half]] * weight[index]
            contributions = torch.tensor([shortcut.contributions[identity] for identity in half])
            directions.append(component_direction(parts, contributions))
            least = contributions.argsort()[: max(FEWEST // 2, round(LEAST_SHARE * len(half)))]
            levels.append(parts[least].mean(dim=0))
        edited = head_without_components(weight[index], torch.stack(directions), torch.stack(levels))
        weight[index], bias[index] = edited[0], bias[index] + edited[1]
    return head_state(model, head, weight, bias)
