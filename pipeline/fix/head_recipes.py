"""Recipes that replace the last layer: deep feature reweighting and projective class artifact compensation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from ...engine.repair.linear_head import find_head, fit_head, head_features, main_directions, projected_head
from ...errors import UsageError
from ..text import counted
from ..verdict.counterfactual_sets import with_mark, without_mark
from .marked_batches import FILLS
from .recipes import FixSettings
from .training_images import TrainingSet

L2 = (1e-4, 1e-3, 1e-2, 1e-1)
"""Of which dfr takes the one that is best on the worst held-out group."""
FEWEST_OF_GROUP = 5
DRAWS = 5
"""Balanced subsets over which dfr averages its heads."""


def repaired_head(model: nn.Module, data: TrainingSet, settings: FixSettings, seed: int) -> dict[str, Tensor]:
    """The model's weights with another last layer.

    Args:
        model: In eval mode; left as it came.
        data: Training images with at least one mark.
        settings: Its recipe is `dfr` or `pclarc`.
        seed: Of the balanced subsets, or of the half of the pairs from which directions are made.

    Raises:
        ModelError: If the last layer is not linear.
        UsageError: If a group has too few images.
    """
    device = next(model.parameters()).device
    head = find_head(model, data.loaded.inputs[:2].to(device))
    samples = feature_samples(model, head, data)
    make = reweighted if settings.recipe == "dfr" else compensated
    weight, bias = make(head, samples, settings, np.random.default_rng(seed))
    return head_state(model, head, weight, bias)


def head_state(model: nn.Module, head: nn.Linear, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    """The model's weights, on the CPU, with others of its last layer.

    Raises:
        UsageError: If the layer has no bias.
    """
    if head.bias is None:
        raise UsageError("the model's last layer has no bias, which the repair needs; use a recipe that trains")
    [name] = [name for name, module in model.named_modules() if module is head]
    state = {key: value.detach().cpu().clone().contiguous() for key, value in model.state_dict().items()}
    state[f"{name}.weight"] = weight.to(head.weight.dtype)
    state[f"{name}.bias"] = bias.to(head.bias.dtype)
    return state


class FeatureSamples:
    """Features of the training images without their marks, and with each mark."""

    def __init__(
        self, clean: Tensor, known: np.ndarray, marked: Mapping[int, tuple[Tensor, np.ndarray]], labels: np.ndarray
    ):
        self.clean = clean
        """`(image, feature)`."""
        self.known = known
        """`(image,)` whether the clean features are: not of images whose mark has no mask."""
        self.marked = marked
        """By mark: features `(some, feature)`, and the places of the images that they are of."""
        self.labels = labels


def feature_samples(model: nn.Module, head: nn.Linear, data: TrainingSet) -> FeatureSamples:
    """One pass with the marks removed and one with each mark pasted into images of the other classes."""
    loaded, labels = data.loaded, data.labels.numpy()
    carried = np.array([-1 if image.mark is None else image.mark for image in loaded.images])
    removable = np.array([image.mark in data.marks and image.region is not None for image in loaded.images])
    plain = head_features(model, head, loaded.inputs)
    clean = plain.clone()
    known, without = removable | (carried == -1), loaded.inputs
    if removable.any():
        places = torch.from_numpy(np.flatnonzero(removable))
        without = loaded.inputs.clone()
        without[places] = without_mark(loaded.taken(places.numpy()), data.marks, FILLS[0])
        clean[places] = head_features(model, head, without[places])
    marked = {}
    for label, mark in data.marks.items():
        own, others = np.flatnonzero(carried == label), np.flatnonzero(known & (carried != label) & (labels != label))
        receivers = replace(loaded.taken(others), inputs=without[torch.from_numpy(others)])
        pasted = head_features(model, head, with_mark(receivers, mark)) if len(others) else plain[:0]
        marked[label] = torch.cat([plain[torch.from_numpy(own)], pasted]), np.concatenate([own, others])
    return FeatureSamples(clean, known, marked, labels)


def reweighted(
    head: nn.Linear, samples: FeatureSamples, settings: FixSettings, random: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """A head fitted to as many images of every class without marks as with each: Kirichenko et al., ICLR 2023."""
    classes = head.out_features
    groups: list[tuple[int, Tensor]] = []
    for label in sorted(set(samples.labels.tolist())):
        groups.append((label, samples.clean[torch.from_numpy((samples.labels == label) & samples.known)]))
        for features, places in samples.marked.values():
            groups.append((label, features[torch.from_numpy(samples.labels[places] == label)]))
    parts = [(label, features[torch.from_numpy(random.permutation(len(features)))]) for label, features in groups]
    least = min(len(features) for _, features in parts)
    if least < 2 * FEWEST_OF_GROUP:
        raise UsageError(
            f"recipe dfr needs {2 * FEWEST_OF_GROUP} images of every class with and without each mark, and has {counted(least, 'image')} of one; "
            "decide about more images, or use patchmix"
        )
    cut = max(FEWEST_OF_GROUP, least // 5)
    held = [(label, features[:cut]) for label, features in parts]
    rest = [(label, features[cut:]) for label, features in parts]
    size = min(len(features) for _, features in rest)

    def drawn() -> tuple[Tensor, Tensor]:
        chosen = [features[torch.from_numpy(random.permutation(len(features))[:size])] for _, features in rest]
        return torch.cat(chosen), torch.cat([torch.full((size,), label) for label, _ in rest])

    first = drawn()
    heads = {l2: fit_head(*first, classes, l2) for l2 in L2}
    best = max(L2, key=lambda l2: min(_accuracy(heads[l2], features, label) for label, features in held))
    fitted = [heads[best], *(fit_head(*drawn(), classes, best) for _ in range(DRAWS - 1))]
    return torch.stack([weight for weight, _ in fitted]).mean(dim=0), torch.stack([bias for _, bias in fitted]).mean(
        dim=0
    )


def compensated(
    head: nn.Linear, samples: FeatureSamples, settings: FixSettings, random: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """A head that does not see the directions along which marks move features."""
    directions = []
    for features, places in samples.marked.values():
        known = samples.known[places]
        differences = features[torch.from_numpy(known)] - samples.clean[torch.from_numpy(places[known])]
        if len(differences) < FEWEST_OF_GROUP:
            raise UsageError(
                f"recipe pclarc needs {FEWEST_OF_GROUP} images with and without a mark, and has {len(differences)}; paint more masks"
            )
        half = random.permutation(len(differences))[: -(-len(differences) // 2)]
        directions.append(main_directions(differences[torch.from_numpy(half)], settings.directions))
    clean = samples.clean[torch.from_numpy(samples.known)]
    bias = torch.zeros(head.out_features) if head.bias is None else head.bias.detach().float().cpu()
    return projected_head(head.weight.detach().float().cpu(), bias, torch.cat(directions), clean.mean(dim=0))


def _accuracy(fitted: tuple[Tensor, Tensor], features: Tensor, label: int) -> float:
    weight, bias = fitted
    return float(((features @ weight.T + bias).argmax(dim=1) == label).float().mean())
