"""What looks wrong before a run is begun, each with what to do about it. Pure: from a probe and what the run was prepared with."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from ...errors import shortened
from ...workers.models.built_model import UNSTATED
from ...workers.models.load import LoadedModel
from ..sources.listing.labels import ResolvedLabels
from ..text import counted
from .forecast_facts import Finding
from .probe import Looked, RunProbe

MUCH_LARGER = 4.0
"""Times the input's side, from which an image is mostly thrown away after decoding."""
ENOUGH = 8
"""Images from which one class for everything is no accident."""
POOR = 0.3
SHOWN = 3


def findings(probe: RunProbe, labels: ResolvedLabels, model: LoadedModel) -> list[Finding]:
    """All that looks wrong, the most serious first."""
    return [
        *unusable(probe.looked),
        *labels_without_classes(labels),
        *accuracy_findings(probe, labels, model),
        *one_class(probe.looked),
        *too_large(probe, model.preprocess.size),
        *guessed(model.origins),
        *slow_decoding(probe),
    ]


def unusable(looked: Sequence[Looked]) -> Iterator[Finding]:
    """Images of the probe that have no map to come."""
    causes = Counter(image.status for image in looked if image.status)
    for status, count in causes.most_common():
        example = next(image for image in looked if image.status == status)
        yield Finding(
            f"{status}",
            f"{count} of the {len(looked)} images looked at: {status}, such as {example.sample.id!r}: {shortened(example.error or '', 200)}",
            "repair or leave out these images; in the run each becomes an error row",
        )


def labels_without_classes(labels: ResolvedLabels) -> Iterator[Finding]:
    if not labels.unresolved:
        return
    named = ", ".join(f"{shortened(name, 40)!r} ({count})" for name, count in list(labels.unresolved.items())[:SHOWN])
    more = ", ..." if len(labels.unresolved) > SHOWN else ""
    yield Finding(
        "labels_without_classes",
        f"{labels.unresolved_rows:,} of {counted(len(labels.listing), 'sample')} have a label that names no class of the model: {named}{more}"
        f" ({', '.join(f'{rows:,} {reason}' for reason, rows in labels.reasons.items())})",
        "write class indices from 0 or the model's class names, give the model its class names, or explain these images without labels "
        "(--allow-unlabelled, needed above 1 %)",
    )


def accuracy(looked: Sequence[Looked]) -> tuple[float, int] | None:
    """Top-1 accuracy over the images that have a label and a prediction, and their number; None without any."""
    judged = [image for image in looked if image.sample.label is not None and image.prediction is not None]
    if not judged:
        return None
    return sum(image.sample.label == image.prediction for image in judged) / len(judged), len(judged)


def accuracy_findings(probe: RunProbe, labels: ResolvedLabels, model: LoadedModel) -> Iterator[Finding]:
    """A wrong preprocessing, or labels in another order than the model's classes, shows here."""
    measured = accuracy(probe.looked)
    if measured is None:
        if labels.listing["label"].null_count < len(labels.listing):
            return
        return
    share, judged = measured
    if judged < ENOUGH:
        return
    chance = 1 / model.num_classes
    limit = chance + 2 * math.sqrt(chance * (1 - chance) / judged)
    if share <= limit:
        text = f"no better than chance (1 of {model.num_classes})"
    elif share < POOR:
        text = "poor"
    else:
        return
    yield Finding(
        "accuracy",
        f"top-1 accuracy {100 * share:.0f} % on {counted(judged, 'labelled image')} looked at is {text}",
        "check the preprocessing below (size, mean, std, colour or grey), the weights, and that label 0 is the model's class 0",
    )


def one_class(looked: Sequence[Looked]) -> Iterator[Finding]:
    predictions = [image.prediction for image in looked if image.prediction is not None]
    if len(predictions) < ENOUGH or len(set(predictions)) > 1:
        return
    labels = {image.sample.label for image in looked if image.sample.label is not None}
    if len(labels) == 1:
        return
    classes = f", though they have {len(labels)} different labels" if labels else ""
    yield Finding(
        "one_class",
        f"the model predicts class {predictions[0]} for all {len(predictions)} images looked at{classes}",
        "check weights and preprocessing; an untrained model, or pixels in another range than it was trained with, does this",
    )


def too_large(probe: RunProbe, size: tuple[int, int]) -> Iterator[Finding]:
    sides = [
        min(image.height / size[0], image.width / size[1]) for image in probe.looked if image.height is not None and image.width is not None
    ]  # fmt: skip
    if not sides or median(sides) < MUCH_LARGER:
        return
    largest = max(
        (image for image in probe.looked if image.height and image.width),
        key=lambda image: (image.height or 0) * (image.width or 0),
    )
    yield Finding(
        "images_much_larger",
        f"images are {median(sides):.0f} times the network's input of {size[0]}x{size[1]} pixels (such as {largest.sample.id!r}, "
        f"{largest.height}x{largest.width}): most of each is decoded and thrown away, and small objects vanish",
        "store smaller copies, or set a larger --preprocess.size if the model takes it",
    )


def guessed(origins: Mapping[str, str]) -> Iterator[Finding]:
    unsaid = [name for name in ("size", "mean", "std") if origins.get(name) == UNSTATED]
    if unsaid:
        yield Finding(
            "preprocessing_guessed",
            f"the model does not state its {', '.join(unsaid)}: ImageNet's usual values are assumed",
            "set " + ", ".join(f"--preprocess.{name}" for name in unsaid) + " as the model was trained",
        )


def slow_decoding(probe: RunProbe) -> Iterator[Finding]:
    """Where workers would wait for images rather than for the model."""
    times = [image.seconds for image in probe.looked if image.seconds]
    if not times or not probe.forwards:
        return
    rows = [image.targets for image in probe.looked if image.targets]
    busy = seconds_per_row(probe) * (sum(rows) / len(rows))
    if median(times) > 2 * busy:  # two decode ahead of each that is explained
        yield Finding(
            "slow_decoding",
            f"reading and decoding an image takes {median(times):.2f} s, explaining it {busy:.2f} s, so workers wait for images",
            "store smaller images or nearer to the workers, or give each GPU to fewer workers",
        )


def seconds_per_row(probe: RunProbe) -> float:
    """Of one worker on the device of the probe."""
    if probe.seconds is not None:
        return probe.seconds
    return sum(probe.forwards) / max(len(probe.forwards), 1) / probe.rate + probe.alone
