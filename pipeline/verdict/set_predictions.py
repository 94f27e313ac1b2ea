"""What models predict for the test split as it is, without marks, and with marks pasted into images of other classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...engine.methods.cams import GradCAM
from ...errors import ModelError
from ...statuses import OK
from ...workers.models.load import LoadedModel
from ...workers.protocols import SampleReader
from .counterfactual_sets import Mark, with_mark, without_controls, without_mark
from .image_decisions import DecidedImage, LoadedImages, chunks, load_images

CHUNK_IMAGES = 128
BATCH = 64
MOST_MAPS = 400
"""Images with ground truth of which every model's maps are compared."""
NOTHING = -1
Predictions = Int[np.ndarray, " image"]


@dataclass(frozen=True, eq=False)
class SetPredictions:
    """Predicted classes of one model, by image of the split; `NOTHING` where an image is not in the set."""

    plain: Predictions
    """The images as they are."""
    removed: Predictions
    """Their marks removed; the images that carry none as they are; not those whose mark has no mask."""
    control: Predictions
    """Of those that carry one: a region of the same shape removed elsewhere."""
    pasted: dict[int, Predictions] = field(default_factory=dict)
    """By class whose mark was pasted: images of other classes that carry none."""
    pasted_control: dict[int, Predictions] = field(default_factory=dict)
    """Another region of the donor pasted."""
    ebpg: Float[np.ndarray, " image"] = field(default_factory=lambda: np.empty(0))
    """Share of the Grad-CAM map of the label that lies on the object, in [0, 1]; NaN without ground truth."""

    @classmethod
    def empty(cls, images: int, marks: Sequence[int]) -> SetPredictions:
        def nothing() -> Predictions:
            return np.full(images, NOTHING)

        return cls(
            nothing(), nothing(), nothing(), {mark: nothing() for mark in marks}, {mark: nothing() for mark in marks},
            np.full(images, np.nan),
        )  # fmt: skip


def predict_sets(
    images: Sequence[DecidedImage],
    models: Sequence[LoadedModel],
    marks: dict[int, Mark],
    reader: SampleReader,
    check: Callable[[DecidedImage, str], None],
) -> list[SetPredictions]:
    """Predictions of all sets, by model.

    Args:
        images: The test split, in order.
        models: With one preprocessing.
        marks: By class, prepared with it.
        reader: Reads the images.
        check: Is told every image and its file's digest, and refuses what changed.

    Raises:
        UsageError: If an image cannot be read.
    """
    results = [SetPredictions.empty(len(images), list(marks)) for _ in models]
    explainers, maps = [_explainer(model) for model in models], 0
    start = 0
    for chunk in chunks(images, CHUNK_IMAGES):
        loaded = load_images(chunk, reader, models[0].preprocess)
        for image, digest in zip(loaded.images, loaded.digests, strict=True):
            check(image, digest)
        sets = _sets(loaded, marks)
        part = slice(start, start + len(loaded))
        for model, result in zip(models, results, strict=True):
            for into, (inputs, chosen) in zip(_targets(result, list(marks)), sets, strict=True):
                if chosen.any():
                    into[part][chosen] = predicted_classes(model.module, inputs)
        truth = loaded.truths.flatten(1).any(dim=1).numpy() & np.array([image.label is not None for image in chunk])
        places = np.flatnonzero(truth)[: MOST_MAPS - maps]
        maps += len(places)
        if len(places):
            for explainer, result in zip(explainers, results, strict=True):
                if explainer is not None:
                    result.ebpg[start + places] = _ebpg(explainer, loaded, places)
        start += len(loaded)
    return results


def _sets(loaded: LoadedImages, marks: dict[int, Mark]) -> list[tuple[Tensor, np.ndarray]]:
    """Inputs and which images they are of, in the order of `_targets`; `plain`, `removed`, `control`, then a pair for each mark."""
    carried = np.array([NOTHING if image.mark is None else image.mark for image in loaded.images])
    removable = np.array([image.mark in marks and image.region is not None for image in loaded.images])
    everything = np.ones(len(loaded), bool)
    clean = (carried == NOTHING) | removable
    sets = [(loaded.inputs, everything), (without_mark(loaded, marks)[clean], clean)]
    sets.append((without_controls(loaded, marks)[removable], removable))
    labels = np.array([NOTHING if image.label is None else image.label for image in loaded.images])
    for label, mark in marks.items():
        receives = (carried == NOTHING) & (labels != label) & (labels != NOTHING)
        some = loaded.taken(np.flatnonzero(receives))
        sets += [(with_mark(some, mark), receives), (with_mark(some, mark, control=True), receives)]
    return sets


def _targets(result: SetPredictions, marks: Sequence[int]) -> list[Predictions]:
    pairs = [array for mark in marks for array in (result.pasted[mark], result.pasted_control[mark])]
    return [result.plain, result.removed, result.control, *pairs]


@torch.inference_mode()
def predicted_classes(
    module: torch.nn.Module, inputs: Float[Tensor, "image channel height width"]
) -> Int[np.ndarray, " image"]:
    """The class with the largest logit."""
    device = next((value.device for value in module.parameters()), torch.device("cpu"))
    parts = [module(batch.to(device)).argmax(dim=1).cpu() for batch in inputs.split(BATCH)]
    return torch.cat(parts).numpy()


def _explainer(model: LoadedModel) -> GradCAM | None:
    try:
        return GradCAM(model.module)
    except ModelError:  # no layer whose maps could be weighted
        return None


def _ebpg(explainer: GradCAM, loaded: LoadedImages, places: np.ndarray) -> np.ndarray:
    device = next((value.device for value in explainer.model.parameters()), torch.device("cpu"))
    labels = [int(loaded.images[place].label or 0) for place in places]
    explained = explainer.explain(loaded.inputs[places].to(device), labels)
    maps, truths = explained.maps.cpu(), loaded.truths[places]
    mass = maps.flatten(1).sum(dim=1)
    inside = (maps * truths).flatten(1).sum(dim=1)
    fine = torch.tensor([status == OK for status in explained.statuses]) & (mass > 0)
    return torch.where(fine, inside / mass.clamp(min=1e-12), torch.nan).numpy()
