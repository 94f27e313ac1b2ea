"""The table `STORE/features/cues.parquet`: the strongest cue of each class, and which images carry it."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import StorageError
from ..storage.atomic_write import put
from ..storage.location import child, locate, names_in
from .cues import LEAST_TRANSFER, CueSearch
from .image_table import FOLDER

if TYPE_CHECKING:
    from ..store.reader import StoreReader

NAME = "cues.parquet"
METADATA_KEY = b"heatlas_cues"
SCHEMA = pa.schema(
    [
        ("id", pa.string()), ("cue_class", pa.int32()), ("kind", pa.string()), ("share", pa.float64()), ("carrying", pa.int64()),
        ("transfer", pa.float64()), ("chance", pa.float64()), ("guilty", pa.bool_()),
    ]
)  # fmt: skip
"""One row per image that carries the strongest candidate of its class; `guilty` where it decides for the class by itself."""


def write_cues(out: str, search: CueSearch, ids: Sequence[str]) -> str:
    """Write what was found beside the store, over an older table; returns its URI."""
    rows = [
        {"id": ids[row], "cue_class": cue.label, "kind": cue.kind, "share": cue.share, "carrying": len(cue.rows), "transfer": cue.transfer,
         "chance": cue.chance, "guilty": cue.guilty}
        for cue in search.cues for row in cue.rows
    ]  # fmt: skip
    facts = {"skipped": {str(label): why for label, why in search.skipped.items()}, "least_transfer": LEAST_TRANSFER}
    table = pa.Table.from_pylist(rows, schema=SCHEMA.with_metadata({METADATA_KEY: json.dumps(facts).encode()}))
    buffer, uri = io.BytesIO(), child(out, f"{FOLDER}/{NAME}")
    pq.write_table(table, buffer, compression="zstd")
    put(uri, buffer.getvalue())
    return uri


def cues_of(atlas: StoreReader) -> pa.Table | None:
    """The cues of a store, as `SCHEMA`; None where nobody looked for them.

    Raises:
        StorageError: If the table cannot be read.
    """
    fs, path = locate(child(atlas.uri, FOLDER))
    if NAME not in names_in(fs, path):
        return None
    try:
        with fs.open(f"{path}/{NAME}", "rb") as file:
            table = pq.read_table(pa.PythonFile(file))
        return table.select(SCHEMA.names).cast(SCHEMA.with_metadata(table.schema.metadata))
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise StorageError(f"cannot read the cues in {atlas.uri}/{FOLDER}/{NAME}: {error}; run `heatlas curate {atlas.uri} --probe` again") from error  # fmt: skip


def verdict(table: pa.Table, class_names: Sequence[str]) -> str:
    """What the cues say of the data set, in a sentence or two; the same in terminal, queue and report.

    Args:
        table: As `cues_of` gives it.
        class_names: Of the model.
    """
    facts: dict[str, Any] = json.loads((table.schema.metadata or {}).get(METADATA_KEY, b"{}"))
    classes = {row["cue_class"]: row for row in table.to_pylist()}
    ordered = sorted(classes.values(), key=lambda row: -row["transfer"])
    guilty = [row for row in ordered if row["guilty"]]
    left = f" {len(facts['skipped'])} classes were not judged." if facts.get("skipped") else ""
    if not ordered:
        return f"cannot tell: no class could be judged.{left}"
    if not guilty:
        first = ordered[0]
        return (
            f"nothing beyond chance: the strongest cue, of {_name(first, class_names)}, raises its confidence in other classes' images by "
            f"{first['transfer']:.2f}, which is below {facts.get('least_transfer', LEAST_TRANSFER):.2f} (random halves: at most "
            f"{first['chance']:.2f}).{left}"
        )
    return "; ".join(
        f"{row['carrying']:,} images of {_name(row, class_names)} ({100 * row['share']:.0f} %) share a cue that raises the class's confidence in "
        f"other classes' images by {row['transfer']:.2f} (random halves: at most {row['chance']:.2f})"
        for row in guilty
    ) + f".{left}"  # fmt: skip


def _name(row: dict[str, Any], class_names: Sequence[str]) -> str:
    index = row["cue_class"]
    return str(class_names[index]) if index < len(class_names) else f"class {index}"
