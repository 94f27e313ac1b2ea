"""What a model says of one whole image: a rank for every class, confidence in the first of them, and its penultimate features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int

from ..layers.eval_mode import in_eval_mode
from ..lazy_torch import nn, torch
from ..transfer import to_host
from .confidence import Confidence
from .precision import gradient_precision

MOST_LISTED_WHOLE = 100
"""With at most so many classes all of them are listed."""


@dataclass(frozen=True, eq=False)
class WholeImage:
    """What a forward pass of the unmasked image left on the device."""

    output: Float[torch.Tensor, " class *pixels"]
    """The model's, of this image alone."""
    features: Float[torch.Tensor, " width"] | None = None


@dataclass(frozen=True, eq=False)
class ClassOverview:
    """What is kept of a whole image."""

    ranking: Float[torch.Tensor, " class"]
    """The larger the more the model sees of the class, see `Confidence.ranking`; the largest is predicted. On the model's device."""
    top: tuple[tuple[int, float], ...] = ()
    """Class and confidence in it, in [0, 1], the highest rank first; empty where the output is not finite."""
    label_confidence: float | None = None
    """Confidence in the labelled class, in [0, 1]; None without a label that is a class."""
    scene: Int[torch.Tensor, "height width"] | None = None
    """Of dense models the class of every pixel, on the model's device; None of classifiers, and where the output is not finite."""
    features: Float[torch.Tensor, " width"] | None = None
    """float32 input of the layer that gives the logits, averaged over positions, on the CPU; None where that layer cannot be found."""


def class_overview(
    model: nn.Module,
    confidence: Confidence,
    image: Float[torch.Tensor, "channel height width"],
    *,
    label: int | None = None,
    top_k: int = 5,
    features: bool = True,
) -> ClassOverview:
    """One plain forward pass in the model's own precision (float32 is not TF32), alone in its batch.

    Args:
        model: Left as it came.
        confidence: What confidence in a class means.
        image: In network-input space, on the model's device.
        label: The image's class in the data set.
        top_k: How many classes to list, at least 1; all where there are at most 100.
        features: Whether to look for the penultimate features.
    """
    from .penultimate_features import logits_with_features

    with in_eval_mode(model), torch.inference_mode(), gradient_precision(image.device):
        output, penultimate = logits_with_features(model, image[None], features)
        whole = WholeImage(output[0], None if penultimate is None else penultimate[0])
        return overview_of(whole, confidence, label=label, top_k=top_k)


def overview_of(
    whole: WholeImage, confidence: Confidence, *, label: int | None = None, top_k: int = 5
) -> ClassOverview:
    """The overview of an image that a forward pass was made of, its numbers read in one piece."""
    logits = whole.output[None]
    ranking = confidence.ranking(logits).float()
    count = len(ranking)
    order = ranking.sort(descending=True, stable=True).indices
    listed = order if count <= MOST_LISTED_WHOLE else order[:top_k]
    known = label if label is not None and 0 <= label < count else None
    asked = listed if known is None else torch.cat([listed, listed.new_tensor([known])])
    numbers = [
        logits.isfinite().all()[None].double(),
        listed.double(),
        _confidences(confidence, logits, asked).double(),
    ]
    finite, *read = to_host(torch.cat(numbers))
    features = None if whole.features is None else whole.features.cpu()
    if not finite:
        return ClassOverview(ranking, (), None, features=features)
    values = read[len(listed) :]
    top = tuple((int(number), value) for number, value in zip(read, values[: len(listed)], strict=False))
    scene = None if confidence.scene is None else confidence.scene(logits)
    return ClassOverview(ranking, top, None if known is None else values[-1], scene, features)


def _confidences(confidence: Confidence, logits: torch.Tensor, classes: torch.Tensor) -> Float[torch.Tensor, " asked"]:
    """One at a time where every class has an image of its own, which would take too much memory together."""
    parts: Sequence[torch.Tensor] = [classes] if logits.ndim == 2 else classes.split(1)
    return torch.cat([confidence.value(logits.expand(len(some), *logits.shape[1:]), some) for some in parts])
