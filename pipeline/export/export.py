"""`heatlas export`: a store, or some of its rows, in the format of another program."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..._version import __version__
from ...errors import UsageError, did_you_mean
from ..store.reader import StoreReader, open_store
from ..text import counted
from .chosen import Chosen
from .cleanlab_table import write_cleanlab
from .coco import write_coco
from .csv_metrics import write_csv
from .fiftyone_dataset import write_fiftyone
from .hf_dataset import write_hf_dataset
from .lance_dataset import write_lance
from .overlays import write_overlays
from .place import checked, staged


@dataclass(frozen=True)
class Format:
    """One kind of export."""

    write: Callable[[Chosen, Path], int]
    """Writes the chosen rows to a path and says how many things it wrote."""
    kind: Literal["file", "folder"]
    counts: str
    """What it counts."""
    suffix: str = ""
    """Of a file."""


FORMATS: Mapping[str, Format] = {
    "csv": Format(write_csv, "file", "row", ".csv"),
    "cleanlab": Format(write_cleanlab, "file", "image", ".parquet"),
    "coco": Format(write_coco, "file", "row", ".json"),
    "fiftyone": Format(write_fiftyone, "folder", "sample"),
    "hf": Format(write_hf_dataset, "folder", "row"),
    "lance": Format(write_lance, "folder", "row"),
    "overlays": Format(write_overlays, "folder", "picture"),
}


@dataclass(frozen=True)
class Exported:
    """What an export wrote."""

    place: str
    format: str
    rows: int
    """Chosen."""
    written: int
    """Rows, images, samples or pictures, as the format counts."""
    notes: list[str] = field(default_factory=list)
    """What the user should know: what is missing, and why."""

    def text(self) -> str:
        """For people, ready to print."""
        what = counted(self.written, FORMATS[self.format].counts)
        of = f" of {counted(self.rows, 'row')}" if self.written != self.rows else ""
        return "\n".join([f"{self.place}: {what}{of}", *(f"  note: {note}" for note in self.notes)])


def export_store(
    out: str | os.PathLike[str] | StoreReader,
    to: str,
    place: str | os.PathLike[str],
    *,
    where: str | None = None,
    ids: str | None = None,
    columns: Sequence[str] | None = None,
    overwrite: bool = False,
    trust_code: bool = False,
) -> Exported:
    """Write a store, or some of its rows, in another format. A few MB of rows are in memory at a time.

    Args:
        out: Directory or URI of a store, or the store opened.
        to: `csv`, `cleanlab`, `coco`, `fiftyone`, `hf`, `lance` or `overlays`; docs/export.md says what each holds.
        place: Local path of the file or folder to be. It appears whole or not at all.
        where: SQL condition on the rows, such as `"label <> prediction"`.
        ids: File that lists the ids wanted, one per line or in a column `id`.
        columns: Which columns; None: those that suit the format.
        overwrite: Replace an older export at `place`.
        trust_code: Whether a source written in Python, which the store names, may be run to read images.

    Raises:
        UsageError: If something of the request is wrong; nothing was written.
        StorageError: If the store cannot be read or the export cannot be written; nothing is left of it.
    """
    if to not in FORMATS:
        raise UsageError(
            f"--format {to}: there is no such format{did_you_mean(to, FORMATS)}; there are {', '.join(FORMATS)}"
        )
    form, final = FORMATS[to], os.fspath(place)
    checked(final, form.kind, overwrite=overwrite)
    refuse_other_suffix(to, final)
    atlas = out if isinstance(out, StoreReader) else open_store(out)
    chosen = Chosen.of(atlas, where, ids, columns)
    chosen.trust_code = trust_code
    rows = chosen.count()
    facts = {"format": to, "store": atlas.uri, "rows": rows, "where": where, "ids": ids, "columns": list(columns) if columns else None,
             "heatlas": __version__, "run_created": atlas.run.get("created")}  # fmt: skip
    with staged(final, form.kind, facts, overwrite=overwrite) as path:
        written = form.write(chosen, path)
    return Exported(final, to, rows, written, chosen.notes)


def refuse_other_suffix(to: str, place: str) -> None:
    """Refuse a file name that says another kind of file than will be written.

    Raises:
        UsageError: Naming the suffix.
    """
    written = os.path.splitext(place)[1].lower()
    of_others = {form.suffix for form in FORMATS.values()} - {FORMATS[to].suffix, ""}
    if FORMATS[to].suffix and written in of_others:
        raise UsageError(f"--out {place}: --format {to} writes {FORMATS[to].suffix}; let the name end in it")
