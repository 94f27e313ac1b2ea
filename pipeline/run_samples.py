"""The samples of a run, from its settings: listed, chosen, and with those of the data set's own columns that go into the store."""

# pyarrow.compute makes its functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from dataclasses import replace

import pyarrow.compute as pc

from ..engine.methods.protocol import Method
from ..engine.methods.registry import find_method
from ..engine.metrics import METRICS
from ..engine.metrics.sanity import SANITY
from ..engine.scoring.budget import EXACT, Budget
from ..errors import DataError
from ..workers.samples import Shard
from .settings.run import Settings
from .shards import EXTRA, cut_containers, default_shard_size, plan_shards
from .sources import list_source
from .sources.listing.boxes import settle_boxes
from .sources.listing.extra_columns import choose_extra, wants_extra
from .sources.listing.options import Listed, SourceOptions
from .sources.listing.selection import draw_sample, filter_by_condition, select_ids
from .sources.reading.container_uri import CONTAINER
from .store.schema import EXTRA_TYPES, RESERVED

ROUNDS_SHARED = 6
"""Images of a shard whose rounds fill batches together under a budget."""


def chosen_samples(settings: Settings, data_root: str | None) -> Listed:
    """The source's answer, its listing cut down to what the run is about.

    Raises:
        DataError: If the data set cannot be listed, nothing is left of it, or a column's name is taken in the store.
    """
    names = settings.columns.model_dump(exclude={"extra", "image"})
    image = {"image": settings.columns.image} if settings.columns.image else {}
    extra = settings.columns.extra
    options = SourceOptions(
        columns={**names, **image},
        extra=wants_extra(extra) or settings.where is not None,
        rows=settings.rows,
        images=settings.images,
        data_root=data_root,
        folder_label=settings.labels.folder,
    )
    listed = list_source(settings.data, options)
    if settings.labels.folder is not None and not listed.folders:
        raise DataError(f"--labels.folder is for labels that are folders, which those of {settings.data} are not")
    listing, notes = settle_boxes(listed.listing, settings.labels.boxes)
    if settings.where is not None:
        listing = filter_by_condition(listing, settings.where)
    if settings.ids is not None:
        listing = select_ids(listing, settings.ids)
    if settings.sample is not None:
        listing = draw_sample(listing, settings.sample, settings.seed)
    listing = choose_extra(
        listing.slice(0, settings.limit), extra, {*RESERVED, *METRICS, SANITY, *find_method(settings.method).extras}
    )
    chosen = replace(listed, listing=listing.combine_chunks(), notes=(*listed.notes, *notes))
    if len(listing) == len(listed.listing):
        return chosen
    labels = pc.unique(pc.drop_null(listed.listing["label"])).to_pylist()
    return replace(chosen, labels=tuple(labels), ids=listed.listing["id"])


def shards_of(listed: Listed, shard_size: int | str, least: int = 1) -> list[Shard]:
    """The plan: shards of equal size, or, where nobody asked for a size and the data set comes in tars, each within one tar.

    Args:
        listed: What there is.
        shard_size: Samples, or "auto".
        least: Of an automatic size, see `images_sharing_batches`.
    """
    if shard_size != "auto":
        return plan_shards(len(listed.listing), int(shard_size))
    if listed.container_shards:
        containers = pc.replace_substring_regex(listed.listing["uri"], CONTAINER, "")
        return cut_containers(containers)
    return plan_shards(len(listed.listing), default_shard_size(len(listed.listing), least))


def images_sharing_batches(method: Method, budget: Budget) -> int:
    """Images of a shard without which batches stay half empty: as many as a batch of a cheap method takes, and as the rounds of a
    budget need, each of which scores a few masks of every image. One where each image fills batches by itself."""
    if budget != EXACT:
        return ROUNDS_SHARED
    return 1 if method.packed else method.images


def stored_extra(listed: Listed) -> tuple[tuple[str, str], ...]:
    """Name and type of the data set's own columns, as the store's layout has them."""
    kinds = {kind: name for name, kind in EXTRA_TYPES.items()}
    return tuple(
        (field.name.removeprefix(EXTRA), kinds[field.type])
        for field in listed.listing.schema
        if field.name.startswith(EXTRA)
    )
