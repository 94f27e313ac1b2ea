"""The images that a repair may train on: those of the store outside of the locked test split, with the labels that the recipe takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ...errors import UsageError
from ...workers.images.preprocess import Preprocess
from ...workers.protocols import SampleReader
from ...workers.worker.shard_attempt import seed_of
from ..text import counted
from ..verdict.counterfactual_sets import Mark, load_marks
from ..verdict.image_decisions import DecidedImage, LoadedImages, load_images
from ..verdict.locked_split import LockedSplit
from .recipes import NEED_MARKS

FEWEST = 10
"""Training images, at least."""
MOST_BYTES = 8 * 2**30
"""Of the prepared images, which are kept in memory."""


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Prepared images with labels."""

    loaded: LoadedImages
    labels: Int[Tensor, " image"]
    marks: Mapping[int, Mark]
    """By class; their donors are among these images."""
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.loaded)

    def split(self, holdout: float) -> tuple[np.ndarray, np.ndarray]:
        """Places to train on and to hold out, by a digest of the ids: the same for every seed and recipe."""
        order = np.array(sorted(range(len(self)), key=lambda place: seed_of(self.loaded.images[place].sample.id)))
        count = max(1, round(holdout * len(order)))
        return np.sort(order[count:]), np.sort(order[:count])


def training_set(
    images: Mapping[str, DecidedImage],
    split: LockedSplit,
    recipe: str,
    reader: SampleReader,
    preprocess: Preprocess,
    class_names: tuple[str, ...],
    *,
    same_store: bool = True,
) -> TrainingSet:
    """Choose, label and prepare the training images.

    Args:
        images: Of the store, by id.
        split: Is left out by the bytes of the files, and by id where it is the same store's.
        recipe: One of `RECIPES`.
        reader: Reads images.
        preprocess: Of the model.
        class_names: For messages.
        same_store: Whether the split is of the store that the images are of; ids of another one may name other images.

    Raises:
        UsageError: If too few are left, they do not fit in memory, or the recipe needs decisions that nobody took.
    """
    kept: list[DecidedImage] = []
    tested = split.images.keys() if same_store else ()
    for identity, image in sorted(images.items()):
        label = image.new_label if recipe == "relabel" and not image.dropped else image.label
        if identity in tested or label is None or (recipe == "drop" and image.dropped):
            continue
        kept.append(replace(image, new_label=label))
    changed = [image for image in images.values() if image.sample.id not in tested and (image.dropped if recipe == "drop" else not image.dropped and image.new_label != image.label)]  # fmt: skip
    if recipe in ("relabel", "drop") and not changed:
        raise UsageError(
            f"recipe {recipe} changes nothing: no training image has a decision `{recipe}` (heatlas decide)"
        )
    if len(kept) < FEWEST:
        raise UsageError(
            f"{counted(len(kept), 'labelled image')} outside of the locked test split; a repair needs at least {FEWEST}: explain training images "
            "into the store, or name with --test the store that holds the test split"
        )
    size = 4 * preprocess.channels * preprocess.size[0] * preprocess.size[1] * len(kept)
    if size > MOST_BYTES:
        raise UsageError(
            f"{len(kept):,} images take {size / 2**30:.0f} GiB of memory, the reference trainer keeps at most {MOST_BYTES / 2**30:.0f}; explain a "
            "sample of them into a store, or train with --trainer"
        )
    loaded = load_images(kept, reader, preprocess, skip_unreadable=True)
    test = {image.digest for image in split.images.values()}
    fresh = np.array([place for place, digest in enumerate(loaded.digests) if digest not in test], np.int64)
    everything = TrainingSet(loaded, torch.tensor([image.new_label for image in loaded.images]), {}, ())
    own = loaded.taken(fresh)
    notes = []
    if len(loaded) < len(kept):
        notes.append(f"{counted(len(kept) - len(loaded), 'image')} cannot be read and are left out")
    if len(own) < len(loaded):
        notes.append(f"{counted(len(loaded) - len(own), 'image')} are the same files as test images and are left out")
    marks, said = load_marks({image.sample.id: image for image in own.images}, (), reader, preprocess, class_names)
    if recipe in NEED_MARKS:
        notes += said
        if not marks:
            raise UsageError(
                f"recipe {recipe} needs marks: decisions `shortcut` with a mask about images outside of the test split (heatlas decide, heatlas "
                f"annotate, heatlas spread){'; ' + said[0] if said else ''}"
            )
    return TrainingSet(own, everything.labels[torch.from_numpy(fresh)], marks, tuple(notes))
