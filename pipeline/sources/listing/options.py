"""What a source is asked for, besides the place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """How to read a data set."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Names in the data set by our names, where they differ: see `columns.MANIFEST_COLUMNS`."""
    extra: bool = False
    """Whether columns that are none of ours are wanted too."""
    rows: Literal["image", "annotation"] = "image"
    """For sources with annotated objects: one row per image, or one per object."""
    images: str | None = None
    """Folder of the images, where a source looks for it elsewhere than beside its file."""
    data_root: str | None = None
    folder_label: Literal["first", "last"] | None = None
    """Which folder on an image's way is its label, where labels are folders; None: the first, where that is clear."""


@dataclass(frozen=True)
class Listed:
    """A source's answer."""

    listing: pa.Table
    """As `listing.make_listing` makes it."""
    class_names: tuple[str, ...] | None = None
    """The data set's classes in its own order, where it knows them."""
    used_class_names: tuple[str, ...] | None = None
    """Those of them that a sample has, where a list often names more than are used (COCO's category 0)."""
    folders: bool = False
    """Whether labels are names of folders, which a training numbers by their order."""
    labels: tuple[str, ...] = ()
    """All labels as written, where the listing was cut down since."""
    ids: pa.ChunkedArray | None = None
    """Ids of all samples, where the listing was cut down since."""
    container_shards: bool = False
    """Whether a file of many samples (a tar) is a natural shard."""
    notes: tuple[str, ...] = ()
    """What the user should know."""

    @property
    def all_ids(self) -> list[str]:
        """Ids of the whole data set's samples, also where the listing was cut down."""
        return (self.listing["id"] if self.ids is None else self.ids).to_pylist()

    @property
    def orders(self) -> tuple[tuple[str, ...], ...]:
        """The data set's classes in every order that it knows."""
        return tuple(names for names in (self.class_names, self.used_class_names) if names is not None)
