"""The images of a store with what people decided about them: labels before and after, which mark an image carries, and where it is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ...errors import SampleError, UsageError
from ...workers.images.decode import prepare
from ...workers.images.preprocess import Preprocess
from ...workers.models.load import ModelSpec
from ...workers.protocols import SampleReader
from ...workers.samples import Sample
from ..decisions.decision import Decision
from ..decisions.record import current_decisions
from ..decisions.rle import Rle
from ..decisions.upright_masks import WHOLE_SHARE, upright_mask
from ..pictures.stored_images import decoding_of
from ..run_samples import chosen_samples
from ..settings.load import load_settings
from ..settings.renamed import current_names
from ..settings.run import Settings
from ..shards import plan_shards, samples_of
from ..sources.listing.detection import item_source
from ..sources.reading.reader import FsspecReader
from ..text import shown

if TYPE_CHECKING:
    from ..store.reader import StoreReader


@dataclass(frozen=True)
class DecidedImage:
    """One image of a store."""

    sample: Sample
    """Without a label."""
    label: int | None
    """Class index by the data set."""
    new_label: int | None
    """Class index by the decisions; None without a label, or where the image is to be dropped."""
    dropped: bool = False
    mark: int | None = None
    """Class whose mark the image carries, by a decision `shortcut`: the decision's `target`, else the image's label."""
    region: Rle | None = None
    """Where it is, in pixels of the upright source image; None where nobody painted it."""
    spread: bool = False
    """Whether that was spread from other images' decisions; else a person said it."""


def stored_settings(atlas: StoreReader) -> Settings:
    """The settings of the run that wrote a store."""
    return load_settings({**current_names(atlas.run["settings"]), "out": atlas.uri})


def stored_model_spec(atlas: StoreReader) -> ModelSpec:
    """The model of the run that wrote a store, with how it read its files."""
    settings = stored_settings(atlas)
    return ModelSpec(
        spec=settings.model, bank=settings.bank, **settings.preprocess.model_dump(), **decoding_of(atlas.run)
    )


def decided_images(atlas: StoreReader) -> tuple[dict[str, DecidedImage], FsspecReader]:
    """All images of a store by id, and what reads them.

    Raises:
        DataError: If the data set cannot be listed.
        UsageError: For a decision that names a class which the model does not have.
    """
    settings = stored_settings(atlas)
    root = atlas.run["fingerprint"].get("data_root")
    listing = chosen_samples(settings, root).listing
    listing = listing.set_column(
        listing.schema.get_field_index("label"), "label", pa.nulls(len(listing), pa.int32())
    )  # what the store says counts
    [shard] = plan_shards(len(listing), len(listing))
    rows = atlas.table(["id", "label"])
    labels = dict(zip(rows["id"].to_pylist(), rows["label"].to_pylist(), strict=True))
    decisions: dict[str, dict[str, Decision]] = defaultdict(dict)
    for decision in current_decisions(atlas.uri).current:
        if decision.object_id is None:
            decisions[decision.id][decision.group] = decision
    images = {
        sample.id: _decided(sample, labels[sample.id], decisions.get(sample.id, {}), atlas.class_names)
        for sample in samples_of(listing, shard)
        if sample.id in labels
    }
    return images, FsspecReader(root, code=item_source(settings.data))


def _decided(
    sample: Sample, label: int | None, decisions: Mapping[str, Decision], class_names: Sequence[str]
) -> DecidedImage:
    image = DecidedImage(replace(sample, label=None), label, label)
    about_label, mark = decisions.get("label"), decisions.get("shortcut")
    if about_label is not None and about_label.kind == "drop":
        image = replace(image, new_label=None, dropped=True)
    if about_label is not None and about_label.label_name is not None:
        if about_label.label_name not in class_names:
            raise UsageError(
                f"the decision about {shown(sample.id)} names the class {about_label.label_name!r}, which the model does not have"
            )
        image = replace(image, new_label=list(class_names).index(about_label.label_name))
    if mark is not None:
        image = replace(
            image, mark=label if mark.target is None else mark.target, region=mark.mask, spread=mark.source == "spread"
        )
    return image


@dataclass(frozen=True, eq=False)
class LoadedImages:
    """Images as the network takes them."""

    images: tuple[DecidedImage, ...]
    inputs: Float[Tensor, "image channel height width"]
    regions: Bool[Tensor, "image height width"]
    """Where the mark is; empty where there is none, or nobody painted it."""
    truths: Bool[Tensor, "image height width"]
    """Ground truth of the object; empty where the data set has none."""
    digests: tuple[str, ...]
    """Sha256 (hex) of the files."""

    def __len__(self) -> int:
        return len(self.images)

    def taken(self, places: np.ndarray) -> LoadedImages:
        """Some of the images, in the order given."""
        chosen = torch.from_numpy(places)
        return LoadedImages(
            tuple(self.images[place] for place in places), self.inputs[chosen], self.regions[chosen], self.truths[chosen],
            tuple(self.digests[place] for place in places),
        )  # fmt: skip

    @property
    def whole(self) -> Bool[np.ndarray, " image"]:
        """Whether the mark is the whole image."""
        return (self.regions.flatten(1).float().mean(dim=1) > WHOLE_SHARE).numpy()


def load_images(
    images: Iterable[DecidedImage], reader: SampleReader, preprocess: Preprocess, *, skip_unreadable: bool = False
) -> LoadedImages:
    """Read and prepare images.

    Args:
        images: At least one.
        reader: Reads them.
        preprocess: Of the model.
        skip_unreadable: Leave out what cannot be read.

    Raises:
        UsageError: For an image that cannot be read, or a mask of another size than its image.
    """
    kept, inputs, regions, truths, digests = [], [], [], [], []
    for image in images:
        try:
            prepared = prepare(image.sample, reader, preprocess)
        except SampleError as error:
            if skip_unreadable:
                continue
            raise UsageError(f"{shown(image.sample.id)} cannot be read: {error.text}") from error
        empty = torch.zeros(preprocess.size, dtype=torch.bool)
        kept.append(image)
        inputs.append(prepared.image)
        regions.append(_region(image, preprocess, prepared.height, prepared.width))
        truths.append(empty if prepared.truth is None else prepared.truth)
        digests.append(prepared.source_hash or "")
    if not kept:
        raise UsageError("none of the images can be read; copy or download them again")
    return LoadedImages(tuple(kept), torch.stack(inputs), torch.stack(regions), torch.stack(truths), tuple(digests))


def chunks(images: Sequence[DecidedImage], size: int) -> Iterator[Sequence[DecidedImage]]:
    """The images in pieces."""
    for start in range(0, len(images), size):
        yield images[start : start + size]


def _region(image: DecidedImage, preprocess: Preprocess, height: int, width: int) -> Bool[Tensor, "height width"]:
    if image.region is None:
        return torch.zeros(preprocess.size, dtype=torch.bool)
    mask = upright_mask(image.sample.id, image.region, (height, width))
    return torch.from_numpy(np.ascontiguousarray(preprocess.geometry(height, width).mask(mask)))
