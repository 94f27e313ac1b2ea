"""Lock the test split of a store before the first repair, and refuse one that changed since, or that a model was trained on."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import SampleError, StorageError, UsageError
from ..storage.atomic_write import put_if_absent
from ..storage.location import bytes_of, child, locate, names_in
from ..text import counted, shown

if TYPE_CHECKING:
    from ...workers.protocols import SampleReader
    from ..store.reader import StoreReader
    from .image_decisions import DecidedImage

FOLDER, NAME = "verdict", "test_split.parquet"
METADATA_KEY = b"heatlas_test_split"
FEWEST_IMAGES = 10
"""Images of a test split, at least."""
_NAMED = 3


@dataclass(frozen=True)
class LockedImage:
    """One image of the split, as it was when the split was locked."""

    digest: str
    """Sha256 (hex) of the file."""
    label: int | None
    """Class index of the data set's label."""


@dataclass(frozen=True)
class LockedSplit:
    """A test split that no repair may change or train on."""

    store: str
    where: str | None
    """SQL condition by which it was chosen; None for all rows."""
    locked: str
    """UTC time, ISO 8601."""
    images: Mapping[str, LockedImage]
    """By id."""

    @property
    def digest(self) -> str:
        """Sha256 (hex) of ids, contents and labels."""
        lines = (f"{identity}\0{image.digest}\0{image.label}\n" for identity, image in sorted(self.images.items()))
        return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()

    def refuse_changed(self, image: DecidedImage, digest: str) -> None:
        """Refuse an image that is not what was locked.

        Raises:
            UsageError: Naming the image and what changed.
        """
        locked = self.images[image.sample.id]
        if digest != locked.digest:
            raise self.changed(f"the file of {shown(image.sample.id)} has other bytes now")
        if image.label != locked.label:
            raise self.changed(f"the label of {shown(image.sample.id)} is {image.label} now and was {locked.label}")

    def changed(self, reason: str) -> UsageError:
        """What is raised where the split is not what was locked."""
        return UsageError(
            f"the test split of {self.store}, locked {self.locked}, changed: {reason}. A verdict counts on what was locked: restore it, "
            "or lock a split of another store and repair anew"
        )

    def refuse_training_images(self, name: str, ids: Iterable[str], digests: Iterable[str]) -> None:
        """Refuse a model that was trained on images of the split, under the same id or as the same file.

        Raises:
            UsageError: Naming the model and some of the images.
        """
        by_digest = {image.digest: identity for identity, image in self.images.items()}
        seen = {identity for identity in ids if identity in self.images}
        seen |= {by_digest[digest] for digest in digests if digest in by_digest}
        if seen:
            some = ", ".join(shown(identity) for identity in sorted(seen)[:_NAMED])
            raise UsageError(
                f"{name} was trained on {counted(len(seen), 'image')} of the locked test split ({some}{', ...' if len(seen) > _NAMED else ''}), so its "
                "results there prove nothing; train it without them (heatlas fix does)"
            )


def lock_split(
    atlas: StoreReader, images: Mapping[str, DecidedImage], reader: SampleReader, where: str | None
) -> LockedSplit:
    """Write `STORE/verdict/test_split.parquet`; a split that is locked already stays, and the same one again changes nothing.

    Args:
        atlas: The store.
        images: All its images, by id.
        reader: Reads them.
        where: SQL condition on the store's rows; None for all.

    Raises:
        UsageError: For a condition that chooses fewer than 10 labelled images, an image that cannot be read, or where another split is
            locked.
        StorageError: If it cannot be written.
    """
    chosen = sorted(set(atlas.table(["id"], where)["id"].to_pylist()) & images.keys())
    labelled = [identity for identity in chosen if images[identity].label is not None]
    if len(labelled) < FEWEST_IMAGES:
        raise UsageError(
            f"--where {where!r} chooses {counted(len(labelled), 'labelled image')} of {atlas.uri}; a test split needs at least {FEWEST_IMAGES}"
        )
    locked: dict[str, LockedImage] = {}
    for identity in labelled:
        try:
            data = reader.read(images[identity].sample.uri)
        except SampleError as error:
            raise UsageError(
                f"{shown(identity)} cannot be read ({error.text}); leave it out of --where, or restore the file"
            ) from error
        locked[identity] = LockedImage(hashlib.sha256(data).hexdigest(), images[identity].label)
    split = LockedSplit(atlas.uri, where, datetime.now(UTC).isoformat(timespec="seconds"), locked)
    if put_if_absent(child(atlas.uri, f"{FOLDER}/{NAME}"), _bytes(split)):
        return split
    before = read_split(atlas.uri)
    if before is None or before.digest != split.digest:
        raise UsageError(
            f"{atlas.uri} has another test split already, locked {before and before.locked}: {counted(len(before.images) if before else 0, 'image')}, "
            f"where {before and before.where!r}. A locked split is not changed; explain the data into another store to lock another"
        )
    return before


def read_split(out: str) -> LockedSplit | None:
    """The split that is locked in a store; None where there is none.

    Raises:
        StorageError: If its file is damaged.
    """
    fs, path = locate(child(out, FOLDER))
    if NAME not in names_in(fs, path):
        return None
    try:
        table = pq.read_table(pa.BufferReader(bytes_of(fs, f"{path}/{NAME}")))
        facts = json.loads((table.schema.metadata or {})[METADATA_KEY])
        rows = zip(*(table[name].to_pylist() for name in ("id", "digest", "label")), strict=True)
        images = {identity: LockedImage(digest, label) for identity, digest, label in rows}
        split = LockedSplit(out, facts["where"], facts["locked"], images)
        if facts["digest"] != split.digest:
            raise ValueError("its rows are not those that were locked")
        return split
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise StorageError(f"cannot read the locked test split {out}/{FOLDER}/{NAME}: {error}") from error


def required_split(out: str) -> LockedSplit:
    """As `read_split`.

    Raises:
        UsageError: Where none is locked.
    """
    split = read_split(out)
    if split is None:
        raise UsageError(
            f"{out} has no locked test split; lock one before the first repair: heatlas verdict --lock {out} --where \"split = 'test'\" "
            "(without --where: all its images)"
        )
    return split


def _bytes(split: LockedSplit) -> bytes:
    ids = sorted(split.images)
    columns = {
        "id": pa.array(ids, pa.string()),
        "digest": pa.array([split.images[identity].digest for identity in ids], pa.string()),
        "label": pa.array([split.images[identity].label for identity in ids], pa.int32()),
    }
    facts = {"where": split.where, "locked": split.locked, "digest": split.digest}
    buffer = io.BytesIO()
    table = pa.table(columns).replace_schema_metadata({METADATA_KEY: json.dumps(facts).encode()})
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()
