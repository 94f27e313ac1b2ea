"""`heatlas bank`: the features of a labelled data set in one file, which then stand in for a classifier."""

# pyarrow.compute makes its functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch

from ...engine.features.feature_bank import MOST_CLASSES
from ...errors import DataError, SettingsError, UsageError
from ...workers.models.bank_file import SUFFIX, StoredBank, bank_bytes
from ...workers.models.load import ModelSpec, load_feature_model
from ...workers.samples import Sample, Shard
from ...workers.worker.bank_entries import Skipped, fill_bank
from ...workers.worker.build import device_of
from ..run_samples import chosen_samples
from ..settings.load import load_settings
from ..settings.run import Settings
from ..shards import samples_of
from ..sources.listing.detection import item_source
from ..sources.listing.label_readings import LabelRules
from ..sources.listing.labels import ResolvedLabels, own_classes, resolve_labels
from ..sources.listing.nested_folders import refuse_unclear_folders
from ..sources.listing.options import Listed
from ..sources.reading.confinement import check_data_root
from ..sources.reading.reader import FsspecReader
from ..storage.atomic_write import put, put_if_absent
from ..storage.backoff import with_retries
from ..storage.location import locate
from ..store.run_file import versions
from ..terminal_log import say
from ..text import counted
from .image_files import file_evidence

SHOW_SECONDS = 10.0
"""Between two lines of progress."""
BATCH_SIZE = 64
"""Images per forward pass where nobody says how many."""


@dataclass(frozen=True)
class BankResult:
    """What was written."""

    out: str
    entries: int
    """Images in it."""
    classes: int
    represented: int
    """Classes of which it has an entry."""
    class_names: tuple[str, ...] | None
    """None where labels are class indices."""
    width: int
    """Numbers in a feature."""
    skipped: Mapping[str, int]
    """Images left out, by cause."""

    def summary(self) -> str:
        """For people."""
        few = f" ({self.represented:,} of them with images)" if self.represented < self.classes else ""
        names = "" if self.class_names else ", without names"
        return f"{self.out}: {self.entries:,} entries of {self.classes:,} classes{few}{names}, width {self.width:,}"


def make_bank(
    *,
    model: str,
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    config: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    **settings: Any,
) -> BankResult:
    """Write a feature bank, as `heatlas bank` does.

    Args:
        model: As for `explain_dataset`; it need not have a classifier.
        data: Labelled images; not those that are to be explained, or each finds itself.
        out: File to write, `.safetensors`; path or fsspec URI.
        config: YAML file with settings, or the name of a packaged one.
        overwrite: Replace the file if it is there.
        **settings: Of `heatlas bank --help`; all others of `heatlas explain` have no effect.

    Returns:
        What is in the file.

    Raises:
        UsageError: When the request cannot be carried out as written; nothing was written.
        StorageError: When the file cannot be written.
    """
    return bank_settings(load_settings({"model": model, "data": data, "out": out, **settings}, config), overwrite)


def bank_settings(settings: Settings, overwrite: bool = False) -> BankResult:
    """As `make_bank`, with resolved settings."""
    refuse_out(settings.out, overwrite)
    data_root = check_data_root(settings.data_root)
    labels, classes = labelled(settings, listed(settings, data_root))
    listing = labels.listing.filter(pc.is_valid(labels.listing["label"]))
    reader = FsspecReader(data_root, code=item_source(settings.data))
    files = file_evidence(listing, reader, settings)
    spec = files.applied_to(ModelSpec(spec=settings.model, **settings.preprocess.model_dump()), settings)
    model = load_feature_model(spec, FsspecReader())
    for note in files.notes:
        say(f"note: {note}")
    device = usable_device(settings.device)
    skipped = Skipped()
    skipped.causes.update(without_class(labels))
    if warning := labels.warning():
        say(f"note: {warning}")
    say(f"{counted(len(listing), 'image')} through {settings.model} on {device.type}; writing {settings.out}")
    size = BATCH_SIZE if settings.batch_size == "auto" else settings.batch_size
    bank = fill_bank(model, batches(listing, size), reader, device, classes, skipped)
    represented = len(torch.unique(bank.labels))
    if note := skipped_text(skipped, len(labels.listing)):
        say(note)
    if represented < 2:
        raise DataError(f"every usable image of --data {settings.data} is of one class; a bank needs at least 2")
    write(
        settings.out, bank_bytes(StoredBank(bank, model.digest, labels.class_names), versions()["heatlas"]), overwrite
    )
    return BankResult(settings.out, len(bank.features), bank.num_classes, represented, labels.class_names, model.width,
                        dict(skipped.causes))  # fmt: skip


def refuse_out(out: str, overwrite: bool) -> None:
    """Before anything is computed.

    Raises:
        UsageError: When the place is no name for a bank or taken.
    """
    if not out.lower().endswith(SUFFIX):
        raise UsageError(f"--out {out} must be a file that ends in {SUFFIX}, for that is what a bank is")
    fs, path = locate(out)
    if with_retries(lambda: fs.isdir(path), f"look for {out}"):
        raise UsageError(f"--out {out} is a folder; name a file")
    if not overwrite and with_retries(lambda: fs.exists(path), f"look for {out}"):
        raise taken(out)


def taken(out: str) -> UsageError:
    return UsageError(f"--out {out} is there already; choose another name, or --overwrite to replace it")


def write(out: str, data: bytes, overwrite: bool) -> None:
    """The whole file or none.

    Raises:
        UsageError: When somebody else has written there meanwhile.
    """
    if overwrite:
        put(out, data)
    elif not put_if_absent(out, data):
        raise taken(out)


def listed(settings: Settings, data_root: str | None) -> Listed:
    """The samples, without the data set's own columns, which a bank does not keep."""
    columns = settings.columns.model_copy(update={"extra": ("none",)})
    return chosen_samples(settings.model_copy(update={"columns": columns}), data_root)


def labelled(settings: Settings, listed: Listed) -> tuple[ResolvedLabels, int]:
    """The listing with class indices of the data set's own classes, and how many classes there are.

    Raises:
        DataError: When there are no labels, all are one class, or class indices are too large.
    """
    known = pc.unique(pc.drop_null(listed.listing["label"])).to_pylist()
    if not known:
        raise DataError(
            f"--data {settings.data} has no labels, and a bank needs them: sort the images into class folders, or name the column "
            "of a manifest that has them with --columns.label"
        )
    if listed.folders:
        refuse_unclear_folders(listed.all_ids, None, None, settings.labels.folder, settings.data)
    names, count = own_classes([*known, *listed.labels], listed.class_names)
    if count > MOST_CLASSES:
        raise DataError(
            f"the labels of --data {settings.data} are class indices up to {count - 1}; a bank has at most {MOST_CLASSES} classes, so "
            "number them from 0, or use names"
        )
    rules = LabelRules(base=0 if names is None else None)  # whole numbers are the bank's own indices
    resolved = resolve_labels(listed.listing, names, count, listed.orders, rules=rules)
    classes = len(pc.unique(pc.drop_null(resolved.listing["label"])))
    if classes < 2:
        raise DataError(
            f"the labels of --data {settings.data} name {classes or 'no'} class (such as {known[0]!r}); a bank needs images of at least 2"
        )
    return resolved, count


def without_class(labels: ResolvedLabels) -> dict[str, int]:
    """How many images have no class, by why."""
    unnamed = labels.unresolved_rows
    unlabelled = labels.listing["label"].null_count - unnamed
    causes = {"without a label": unlabelled, "whose label names no single class": unnamed}
    return {cause: number for cause, number in causes.items() if number}


def usable_device(wanted: str) -> torch.device:
    """The device to run on.

    Raises:
        SettingsError: When it is not there.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise SettingsError("setting device = 'cuda', but torch sees no GPU here; use --device cpu or auto")
    return device_of(wanted)


def batches(listing: pa.Table, size: int) -> Iterator[Sequence[Sample]]:
    """The samples, so many at once; says now and then how far it is."""
    shown = time.monotonic()
    for start in range(0, len(listing), size):
        samples = samples_of(listing, Shard(0, start, min(start + size, len(listing))))
        yield [replace(sample, boxes=(), mask_uri=None) for sample in samples]
        if time.monotonic() - shown >= SHOW_SECONDS:
            shown = time.monotonic()
            say(f"{start:,}/{len(listing):,} images")


def skipped_text(skipped: Skipped, images: int) -> str | None:
    """One sentence about what is not in the bank; None when everything is."""
    if not skipped.causes:
        return None
    causes = ", ".join(f"{number:,} {cause}" for cause, number in skipped.causes.most_common())
    example = f" (for example {skipped.example})" if skipped.example else ""
    return f"note: {skipped.causes.total():,} of {counted(images, 'image')} left out: {causes}{example}"
