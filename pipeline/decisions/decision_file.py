"""Read decisions from a table that people filled in: CSV, TSV, JSON lines or Parquet, such as a queue with a column `decision`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from PIL import Image

from ...errors import UsageError
from ..storage.location import bytes_of, locate
from .decision import FIELDS, Decision, decision_of
from .rle import LARGEST_PIXELS, Rle, encode_mask

FORMATS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
LARGEST_BYTES = 1_000_000_000
SYNONYMS = {"keep": "ok"}
_WHOLE = ("target", "round")


@dataclass(frozen=True)
class DecisionFile:
    """Decisions as they stand in a file."""

    decisions: tuple[Decision, ...]
    undecided: int
    """Rows whose decision is empty."""


def read_decision_file(uri: str, *, source: str = "csv") -> DecisionFile:
    """Read a table with the columns `id` and `decision` (or `kind`); others of `SCHEMA` are read too, further ones ignored.

    Args:
        uri: Path or fsspec URI. `decision` is a kind, `keep` for `ok`, or `relabel:CLASS`; `mask` is run lengths as JSON or the
            path of a PNG below the file's folder whose non-zero pixels belong to the mask.
        source: Of the decisions.

    Raises:
        UsageError: Naming the row and what is wrong with it.
    """
    rows = _table_rows(uri)
    if rows and not {"decision", "kind"} & rows[0].keys():
        raise UsageError(f"{uri} has the columns {', '.join(rows[0])}, but no `decision` (or `kind`); add one")
    decisions, undecided = [], 0
    for number, row in enumerate(rows, 1):
        try:
            record = _record(row, uri, source)
            if record is None:
                undecided += 1
            else:
                decisions.append(decision_of(record))
        except UsageError as error:
            raise UsageError(f"row {number} of {uri}: {error}") from None
    return DecisionFile(tuple(decisions), undecided)


def rows_of_file(uri: str, needed: Sequence[str]) -> Iterator[tuple[dict[str, Any], Callable[[], Rle]]]:
    """The rows of a table as they stand there, each with what reads its mask.

    Raises:
        UsageError: For a file that cannot be read or lacks a column.
    """
    rows = _table_rows(uri)
    if rows and (missing := [name for name in needed if name not in rows[0]]):
        raise UsageError(f"{uri} has the columns {', '.join(rows[0])}, but no `{missing[0]}`; add one")
    for row in rows:
        yield row, lambda row=row: _mask(row["mask"], uri)


def _table_rows(uri: str) -> list[dict[str, Any]]:
    ending = os.path.splitext(uri)[1].lower()
    if ending not in FORMATS:
        raise UsageError(f"cannot tell the format of {uri!r}; let it end in {', '.join(FORMATS)}")
    fs, path = locate(uri)
    try:
        if (size := fs.size(path) or 0) > LARGEST_BYTES:
            raise UsageError(f"{uri} has {size:,} bytes, more than the {LARGEST_BYTES:,} that are read")
        return _rows(bytes_of(fs, path), ending)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UsageError(f"cannot read {uri}: {error}") from error


def _rows(data: bytes, ending: str) -> list[dict[str, Any]]:
    if ending == ".parquet":
        return pq.read_table(pa.BufferReader(data)).to_pylist()
    if ending in (".jsonl", ".ndjson"):
        rows = [json.loads(line) for line in data.splitlines() if line.strip()]
        if wrong := [row for row in rows if not isinstance(row, dict)]:
            raise UsageError(f"every line must be a JSON object, one is {str(wrong[0])[:60]!r}")
        names = list(dict.fromkeys(name for row in rows for name in row))
        return [{name: row.get(name) for name in names} for row in rows]
    options = pyarrow.csv.ParseOptions(delimiter="\t" if ending == ".tsv" else ",", newlines_in_values=True)
    header = pyarrow.csv.open_csv(pa.BufferReader(data), parse_options=options).schema.names
    texts = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=True, null_values=[""])  # fmt: skip
    return pyarrow.csv.read_csv(pa.BufferReader(data), parse_options=options, convert_options=texts).to_pylist()


def _record(row: Mapping[str, Any], uri: str, source: str) -> dict[str, Any] | None:
    """The values of one row by the names of a decision; None where nothing was decided."""
    values = {name: value for name, value in row.items() if name in FIELDS and value is not None and value != ""}
    values.pop("decision_id", None)  # the file may be an earlier export; what is decided now is a new decision
    if row.get("decision") not in (None, ""):
        values["kind"] = str(row["decision"]).strip()
    if "kind" not in values:
        return None
    kind, colon, name = str(values["kind"]).partition(":")
    values["kind"] = SYNONYMS.get(kind.strip().lower(), kind.strip())
    if colon:
        values["label_name"] = name.strip()
    for column in _WHOLE:
        if isinstance(values.get(column), str | float):
            values[column] = _whole(values[column], column)
    if "mask" in values:
        values["mask"] = _mask(values["mask"], uri)
    values.setdefault("source", source)
    return {**values, "id": str(values.get("id", "")), "object_id": _text(values.get("object_id"))}


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _whole(value: Any, column: str) -> int:
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not number.is_integer():
        raise UsageError(f"{column} must be a whole number, got {value!r}")
    return int(number)


def _mask(value: Any, uri: str) -> Rle:
    if isinstance(value, Mapping):
        return cast(Rle, dict(value))
    text = str(value).strip()
    if text.startswith("{"):
        try:
            return json.loads(text)
        except ValueError as error:
            raise UsageError(f"mask is not JSON: {error}") from None
    return encode_mask(read_mask_image(text, uri))


def read_mask_image(name: str, beside: str) -> np.ndarray:
    """The non-zero pixels of a PNG that lies below the folder of the file `beside`.

    Raises:
        UsageError: For a path that leads out of the folder, or an image that cannot be read.
    """
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "~")) or "://" in name or "::" in name or ".." in parts or ":" in parts[0]:
        raise UsageError(f"mask {name!r} must be the path of a PNG below the folder of {beside}")
    fs, path = locate(beside)
    folder = path.rpartition("/")[0]
    place = f"{folder}/{name}" if folder else name
    if os.path.exists(folder or ".") and not os.path.realpath(place).startswith(
        os.path.realpath(folder or ".") + os.sep
    ):
        raise UsageError(f"mask {name!r} leads out of the folder of {beside} by a link")
    try:
        with fs.open(place, "rb") as file, Image.open(cast(Any, file), formats=["PNG"]) as image:
            if image.width * image.height > LARGEST_PIXELS:
                raise UsageError(f"mask {name!r} has more than {LARGEST_PIXELS:,} pixels")
            pixels = np.asarray(image)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise UsageError(f"cannot read the mask {name!r} as PNG: {error}") from error
    return np.asarray(pixels.reshape(*pixels.shape[:2], -1)[..., :3].any(axis=-1))
