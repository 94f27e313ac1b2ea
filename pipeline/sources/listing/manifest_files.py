"""Reads the columns of a CSV, TSV, JSONL or Parquet file into Arrow; what they mean is not known here.

CSV and JSON lines give text and, for boxes, whatever JSON says. Columns of the file's own come in plain types. Row numbers in messages count from 1, a header not counted.
"""

# pyarrow.compute makes its functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from ....errors import DataError
from ..reading.parquet_bounds import read_listing_columns
from .columns import as_spelt, present_columns
from .delimited_text import as_utf8, delimiter_of, header_of, without_separator_line
from .label_columns import label_notes
from .plain_values import is_binary, plain_array, plain_column
from .table import BOXES, typed_column

Columns = dict[str, pa.ChunkedArray]
Read = tuple[Columns, Columns, list[str]]
"""By our names those that are ours; by the file's names all others, if they are wanted; what the user should know."""


def read_delimited(data: bytes, mapping: Mapping[str, str], origin: str, others: bool = False) -> Read:
    """The columns of a CSV (or, ending in `.tsv`, tab-separated) file; ours as text, boxes parsed from JSON text."""
    data, notes = as_utf8(data, origin)
    data, left_out = without_separator_line(data, origin)
    notes += left_out
    delimiter, more = delimiter_of(data, mapping, origin)
    header = header_of(data, delimiter)
    mapping, spelt = as_spelt(mapping, header)
    present = present_columns(mapping, header, origin)
    rest = others_in(header, present, others)
    wanted = list(dict.fromkeys([*present.values(), *rest]))
    try:
        table = pyarrow.csv.read_csv(
            io.BytesIO(data),
            parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=wanted,
                column_types=dict.fromkeys(wanted, pa.string()),
                strings_can_be_null=True,
                null_values=[""],
            ),
        )
    except pa.ArrowInvalid as error:
        raise DataError(f"cannot read {origin} as CSV: {error}") from error
    known: Columns = {}
    for ours, name in present.items():  # after `uri, label` the cells of `label` begin with a blank too
        texts = pc.utf8_trim_whitespace(table[name]) if name != name.strip() or ours == "label" else table[name]
        known[ours] = _boxes(texts, origin) if ours == "boxes" else texts
    own = {name.strip() or name: typed_column(table[name]) for name in rest}
    return known, own, [*notes, *more, *spelt, *label_notes(mapping, present, header, own)]


def read_json_lines(data: bytes, mapping: Mapping[str, str], origin: str, others: bool = False) -> Read:
    """The columns of a file with one JSON object per line; a column is there if any row has it."""
    rows = [_json_object(line, number, origin) for number, line in enumerate(data.splitlines(), 1) if line.strip()]
    header = list(dict.fromkeys(name for row in rows for name in row))
    mapping, notes = as_spelt(mapping, header)
    present = present_columns(mapping, header, origin)
    columns = {}
    for ours, name in present.items():
        values = [row.get(name) for row in rows]
        columns[ours] = _boxes_array(values, origin) if ours == "boxes" else _texts(values, name, origin)
    rest = others_in(header, present, others)
    own = {name: pa.chunked_array([plain_array([row.get(name) for row in rows])]) for name in rest}
    return columns, own, [*notes, *label_notes(mapping, present, header, own)]


def read_parquet(data: bytes, mapping: Mapping[str, str], origin: str, others: bool = False) -> Read:
    """The columns of a Parquet file; ids and labels of any plain type become text."""
    try:
        file = pq.ParquetFile(io.BytesIO(data))
        schema = file.schema_arrow
        mapping, notes = as_spelt(mapping, schema.names)
        present = present_columns(mapping, schema.names, origin)
        rest = [name for name in others_in(schema.names, present, others) if not is_binary(schema.field(name).type)]
        wanted = list(dict.fromkeys([*present.values(), *rest]))
        table = read_listing_columns(io.BytesIO(data), schema, wanted, len(data))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"cannot read {origin} as Parquet: {error}") from error
    columns = {}
    for ours, name in present.items():
        try:
            columns[ours] = _parquet_column(table[name], ours, origin)
        except pa.ArrowException as error:
            raise DataError(
                f"column {name!r} of {origin} is {table[name].type}, which cannot be {ours}: {error}"
            ) from error
    own = {name: plain_column(table[name]) for name in rest}
    return columns, own, [*notes, *label_notes(mapping, present, schema.names, own)]


READERS: dict[str, Callable[[bytes, Mapping[str, str], str, bool], Read]] = {
    ".csv": read_delimited,
    ".tsv": read_delimited,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".parquet": read_parquet,
}
"""Manifest formats by suffix."""


def others_in(header: Iterable[str], present: Mapping[str, str], wanted: bool) -> list[str]:
    """Columns that are none of ours; of those with the same name none, for which of them is meant nobody knows."""
    taken, count = set(present.values()), Counter(header)
    return [name for name in count if wanted and name and name not in taken and count[name] == 1]


def _parquet_column(column: pa.ChunkedArray, ours: str, origin: str) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    if ours == "boxes":
        return _boxes(column, origin) if is_text else column.cast(BOXES)
    if pa.types.is_floating(column.type):  # class indices of a pandas column with gaps
        column = column.cast(pa.int64())
    return column.cast(pa.string())


def _json_object(line: bytes, number: int, origin: str) -> dict:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"row {number} of {origin} is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise DataError(
            f"row {number} of {origin} must be a JSON object, it is {line[:60].decode('utf-8', 'replace')!r}"
        )
    return row


def _texts(values: list, name: str, origin: str) -> pa.ChunkedArray:
    for row, value in enumerate(values, 1):
        if isinstance(value, (dict, list)):
            raise DataError(f"{name!r} in row {row} of {origin} must be text or a number, it is {value!r}")
        if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
            raise DataError(
                f"{name!r} in row {row} of {origin} is not Unicode text, it has half of a surrogate pair: {value!r}"
            )
    texts = [value if value is None or isinstance(value, str) else str(value) for value in values]
    return pa.chunked_array([pa.array(texts, pa.string())])


def _boxes(texts: pa.ChunkedArray, origin: str) -> pa.ChunkedArray:
    return _boxes_array([None if text is None else _json_text(text) for text in texts.to_pylist()], origin)


def _json_text(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text  # told with its row number below


def _boxes_array(values: list, origin: str) -> pa.ChunkedArray:
    try:
        return pa.chunked_array([pa.array(values, BOXES)])
    except (pa.ArrowException, TypeError):
        row = next(number for number, value in enumerate(values, 1) if not _fits(value))
        raise DataError(bad_boxes(row, values[row - 1], origin)) from None


def _fits(value: object) -> bool:
    try:
        pa.array([value], BOXES)
    except (pa.ArrowException, TypeError):
        return False
    return True


def bad_boxes(row: int, value: object, origin: str) -> str:
    """The message for boxes of another form."""
    return f"the boxes in row {row} of {origin} must be lists [[x0, y0, x1, y1], ...] in pixels, they are {value!r}"


def first_bad_row(boxes: pa.ChunkedArray) -> int | None:
    """The first row (from 1) with a box that has not four numbers; None if all have."""
    array = boxes.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], BOXES)
    inner, parents = pc.list_flatten(array), pc.list_parent_indices(array)
    wrong = pc.fill_null(pc.not_equal(pc.list_value_length(inner), 4), True)
    rows = set(pc.unique(parents.filter(wrong)).to_pylist())
    numbers, boxes_of = pc.list_flatten(inner), pc.list_parent_indices(inner)
    rows |= set(parents.take(boxes_of.filter(pc.is_null(numbers))).to_pylist())
    return min(rows) + 1 if rows else None
