"""What a model says of one whole image: a rank for every class, confidence in the first of them, and its penultimate features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..features.feature_bank import FeatureBank
from ..layers.eval_mode import untouched
from ..layers.outputs import logits_of
from .confidence import Confidence

MOST_LISTED_WHOLE = 100
"""With at most so many classes all of them are listed."""
LATEST = 8
"""Layers whose output is kept: auxiliary heads may run after the one that gives the logits."""


@dataclass(frozen=True, eq=False)
class ClassOverview:
    """One plain forward pass of the unmasked image, on the CPU."""

    ranking: Float[Tensor, " class"]
    """The larger the more the model sees of the class, see `Confidence.ranking`; the largest is predicted."""
    top: tuple[tuple[int, float], ...] = ()
    """Class and confidence in it, in [0, 1], the highest rank first; empty where the output is not finite."""
    label_confidence: float | None = None
    """Confidence in the labelled class, in [0, 1]; None without a label that is a class."""
    features: Float[Tensor, " width"] | None = None
    """float32 input of the layer that gives the logits, averaged over positions; None where that layer cannot be found."""


def class_overview(
    model: nn.Module,
    confidence: Confidence,
    image: Float[Tensor, "channel height width"],
    *,
    label: int | None = None,
    top_k: int = 5,
    features: bool = True,
) -> ClassOverview:
    """One plain forward pass in the model's own precision, alone in its batch.

    Args:
        model: Left as it came.
        confidence: What confidence in a class means.
        image: In network-input space, on the model's device.
        label: The image's class in the data set.
        top_k: How many classes to list, at least 1; all where there are at most 100.
        features: Whether to look for the penultimate features.
    """
    with untouched(model), torch.inference_mode(), _inputs_of_layers(model, features) as calls:
        logits = logits_of(model(image[None]))
        ranking = confidence.ranking(logits).float().cpu()
        count = len(ranking)
        top: tuple[tuple[int, float], ...] = ()
        known = label if label is not None and 0 <= label < count else None
        label_confidence = None
        if bool(logits.isfinite().all()):
            order = ranking.sort(descending=True, stable=True).indices.tolist()
            listed = order if count <= MOST_LISTED_WHOLE else order[:top_k]
            asked = [*listed, *([] if known is None else [known])]
            values = _confidences(confidence, logits, asked)
            top = tuple(zip(listed, values, strict=False))
            label_confidence = None if known is None else values[-1]
        return ClassOverview(ranking, top, label_confidence, _penultimate(calls, logits))


def _confidences(confidence: Confidence, logits: Tensor, classes: Sequence[int]) -> list[float]:
    """One at a time where every class has an image of its own, which would take too much memory together."""
    step = len(classes) if logits.ndim == 2 else 1
    values: list[float] = []
    for start in range(0, len(classes), step):
        some = torch.tensor(classes[start : start + step], device=logits.device)
        values += confidence.value(logits.expand(len(some), *logits.shape[1:]), some).tolist()
    return values


@contextmanager
def _inputs_of_layers(model: nn.Module, wanted: bool) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Averaged input and output of every layer that could give logits, in order of their calls; no hook stays behind.

    Large outputs, which are feature maps, are not kept: they would hold the memory of the whole forward pass.
    """
    calls: list[tuple[Tensor, Tensor]] = []

    def note(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        if given and isinstance(given[0], Tensor) and isinstance(output, Tensor) and output.ndim >= 2:
            calls.append((_averaged(given[0], module), output))
            for place in range(len(calls) - LATEST, -1, -1):
                if not calls[place][1].numel():
                    break
                calls[place] = calls[place][0], output.new_empty(0, 0)

    hooks = []
    try:
        if wanted:
            hooks = [module.register_forward_hook(note) for module in model.modules() if _gives_logits(module)]
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _gives_logits(module: nn.Module) -> bool:
    if isinstance(module, torch.jit.ScriptModule):
        return False
    weight = getattr(module, "weight", None)
    matrix = isinstance(weight, Tensor) and weight.ndim >= 2 and not any(True for _ in module.children())
    return matrix or isinstance(module, FeatureBank)


def _averaged(values: Tensor, module: nn.Module) -> Tensor:
    """`(width,)`: over tokens, which stand before the width, or over pixels, which stand behind the channels."""
    own = values[0].detach().float()
    channels_first = own.ndim == 3 and isinstance(getattr(module, "weight", None), Tensor) and module.weight.ndim == 4  # type: ignore[union-attr]
    return own.flatten(1).mean(dim=1) if channels_first else own.reshape(-1, own.shape[-1]).mean(dim=0)


def _penultimate(calls: Sequence[tuple[Tensor, Tensor]], logits: Tensor) -> Tensor | None:
    """The input of the layer whose output the logits are; else of the last layer with an output for every class.

    A dense model enlarges what its head gives, and may have an auxiliary head: of several the one nearest to the logits counts.
    """
    classes = logits.shape[1]
    fitting = [(given, output) for given, output in calls if classes in (output.shape[-1], output.shape[1])]
    same = [given for given, output in fitting if output.data_ptr() == logits.data_ptr()]
    if not same and logits.ndim == 4:
        heads = [(given, output) for given, output in fitting if output.ndim == 4]
        same = [given for given, output in sorted(heads, key=lambda call: -_distance(call[1], logits))]
    chosen = [*[given for given, _ in fitting[-1:]], *same[-1:]]
    return chosen[-1].cpu() if chosen else None


def _distance(output: Tensor, logits: Tensor) -> float:
    enlarged = nn.functional.interpolate(output.float(), logits.shape[2:], mode="bilinear", align_corners=False)
    return float((enlarged - logits.float()).abs().mean())
