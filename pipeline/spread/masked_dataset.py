"""A data set of images, labels and masks for any training loop in PyTorch, from a store and what was decided about it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.data import Dataset

from ...errors import UsageError
from ...workers.images.decode import prepare
from ...workers.samples import Sample
from ..decisions.record import current_decisions
from ..decisions.rle import Rle
from ..decisions.upright_masks import upright_mask
from ..pictures.stored_images import reader_of, stored_preprocess
from ..run_samples import chosen_samples
from ..settings.load import load_settings
from ..store.reader import StoreReader, open_store
from ..stored_settings import settings_of_run
from ..text import shown

Item = tuple[Float[Tensor, "channel height width"], int, Bool[Tensor, "height width"]]
Transform = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class MaskedDataset(Dataset[Item]):
    """The labelled images of a store's data set as `(image, label, mask)`, as the run's model takes them.

    Decisions hold: relabelled images have their new label, dropped ones are left out, and the mask is what was painted or spread
    (all False where nothing was). Works with `torch.utils.data.DataLoader`, also in several processes.

    Args:
        store: Directory or URI of a run's store, or the store opened.
        kind: Whose masks: `shortcut` or `core`.
        transform: Called with each image and mask, and gives both back: augmentation must move them together.
        masked_only: Leave out images without a mask.
        trust_code: Whether a source written in Python, which the store names, may be run to read images.

    Raises:
        UsageError: For an unknown kind, or if no image is left.
        DataError: If the data set cannot be listed.
        StorageError: If the decisions cannot be read.
    """

    def __init__(
        self,
        store: str | os.PathLike[str] | StoreReader,
        *,
        kind: Literal["shortcut", "core"] = "shortcut",
        transform: Transform | None = None,
        masked_only: bool = False,
        trust_code: bool = False,
    ):
        if kind not in ("shortcut", "core"):
            raise UsageError(f"kind must be shortcut or core, got {kind!r}")
        atlas = store if isinstance(store, StoreReader) else open_store(store)
        self.class_names = atlas.class_names
        self.preprocess = stored_preprocess(atlas.run)
        self.transform = transform
        self._reader = reader_of(atlas.run, trust_code=trust_code)
        masks: dict[str, Rle] = {}
        labels: dict[str, int | None] = {}
        for decision in current_decisions(atlas.uri).current:
            if decision.object_id is not None:
                continue
            if decision.kind == kind and decision.mask is not None:
                masks[decision.id] = decision.mask
            if decision.kind == "drop":
                labels[decision.id] = None
            if decision.kind == "relabel" and decision.label_name is not None:
                if decision.label_name not in self.class_names:
                    raise UsageError(
                        f"the decision about {shown(decision.id)} names the class {decision.label_name!r}, which the model does not have"
                    )
                labels[decision.id] = self.class_names.index(decision.label_name)
        stored = dict(zip(*atlas.table(["id", "label"]).to_pydict().values(), strict=True))
        listing = chosen_samples(
            load_settings({**settings_of_run(atlas.run), "out": atlas.uri}), atlas.run["fingerprint"].get("data_root")
        ).listing
        self._items = [
            (Sample(identity, uri), label, masks.get(identity))
            for identity, uri in zip(listing["id"].to_pylist(), listing["uri"].to_pylist(), strict=True)
            if (label := labels.get(identity, stored.get(identity))) is not None
            and (identity in masks or not masked_only)
        ]
        if not self._items:
            raise UsageError(
                f"no labelled image of {atlas.uri} {'has a mask' if masked_only else 'is left'}; see `heatlas decide {atlas.uri}`"
            )

    def __len__(self) -> int:
        return len(self._items)

    @property
    def ids(self) -> list[str]:
        """Of the items, in order."""
        return [sample.id for sample, _, _ in self._items]

    @property
    def labels(self) -> list[int]:
        """Class indices of the items, after relabelling."""
        return [label for _, label, _ in self._items]

    @property
    def has_mask(self) -> list[bool]:
        return [mask is not None for _, _, mask in self._items]

    def __getitem__(self, number: int) -> Item:
        """Image `(channel, height, width)` float32 in network-input space, label, and mask `(height, width)`.

        Raises:
            SampleError: If the image cannot be read.
            UsageError: For a mask of another size than its image.
        """
        sample, label, rle = self._items[number]
        prepared = prepare(sample, self._reader, self.preprocess)
        image = prepared.image
        mask = torch.zeros(self.preprocess.size, dtype=torch.bool)
        if rle is not None:
            whole = upright_mask(sample.id, rle, (prepared.height, prepared.width))
            mask = torch.from_numpy(np.ascontiguousarray(self.preprocess.geometry(*whole.shape).mask(whole)))
        if self.transform is not None:
            image, mask = self.transform(image, mask)
        return image, label, mask
