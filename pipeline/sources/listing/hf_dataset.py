"""Directories that `datasets` writes with `save_to_disk`: Arrow streams with images, their order in `state.json`.

Ids are the row's number in the data set, nine digits, which is the index of `datasets`, or the column `id` where there is one.
A local directory is mapped, so that listing reads no images; a remote one is read through once, as a stream has no index.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import IO, Any, cast

import pyarrow as pa
from fsspec import AbstractFileSystem

from ....errors import DataError
from ...storage.location import is_local
from ..reading.container_uri import column_part
from .image_tables import TableColumns
from .manifest import check_boxes, check_filled
from .options import Listed, SourceOptions
from .place import Place, find_place
from .table import make_listing, numbered

STATE, SPLITS = "state.json", "dataset_dict.json"


def list_hf(data: str, options: SourceOptions) -> Listed:
    """The listing of a directory of `save_to_disk`, or of the only split of one that has splits.

    Raises:
        DataError: If it is none, has several splits, or a file is damaged.
    """
    place = _one_split(find_place(data))
    files = _files(place)
    tables, uris, masks, columns = [], [], [], None
    for name in files:
        file = f"{place.path.rstrip('/')}/{name}"
        try:
            with _opened(place.fs, file) as source:
                schema = pa.ipc.open_stream(source).schema
                _refuse_dictionaries(schema, data)
                columns = columns or TableColumns(schema, options, data)
                for offset, length, batch in _batches(source, schema):
                    tables.append(_without_images(batch, columns.wanted))
                    uris += _cells(columns.image, offset, length, len(batch), place.uri(file))
                    if columns.mask:
                        masks += _cells(columns.mask, offset, length, len(batch), place.uri(file))
        except DataError:
            raise
        except Exception as error:  # each storage has errors of its own
            raise DataError(f"cannot read {name} of {data}: {type(error).__name__}: {error}; save it again") from error
    if columns is None or not uris:
        raise DataError(f"{data} lists no samples; save a data set with at least 1 row")
    known, others = columns.read(pa.concat_tables(tables)) if columns.wanted else ({}, {})
    check_filled(known, "id", data)
    check_boxes(known, data)
    ours: dict[str, Any] = {"id": numbered(len(uris)), **known, "uri": pa.array(uris, pa.string())}
    if masks:
        ours["mask_uri"] = pa.array(masks, pa.string())
    return Listed(make_listing(ours, data, others, as_stored=True), columns.class_names, notes=tuple(columns.notes))


def _one_split(place: Place) -> Place:
    if not place.is_folder:
        raise DataError(f"{place.origin} is a file; give the directory that `save_to_disk` wrote")
    names = place.names()
    if SPLITS not in names:
        return place
    splits = sorted(name for name, is_folder in names.items() if is_folder)
    if len(splits) != 1:
        choices = " or ".join(f"hf:{place.origin.rstrip('/')}/{name}" for name in splits)
        raise DataError(f"{place.origin} has {len(splits)} splits; choose one: {choices or 'there is none'}")
    return place.inner(splits[0])


def _files(place: Place) -> list[str]:
    try:
        state = json.loads(cast(bytes, place.fs.cat_file(f"{place.path.rstrip('/')}/{STATE}")))
        files = [file["filename"] for file in state["_data_files"]]
    except FileNotFoundError:
        raise DataError(f"{place.origin} has no {STATE}, so `save_to_disk` did not write it; a directory of Parquet files is parquet:{place.origin}") from None  # fmt: skip
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"the {STATE} of {place.origin} is damaged: {type(error).__name__}: {error}; save it again"
        ) from error
    if odd := [name for name in files if not isinstance(name, str) or "/" in name or "\\" in name]:
        raise DataError(f"the {STATE} of {place.origin} names {odd[0]!r}, which lies elsewhere; save it again")
    return files


def _opened(fs: AbstractFileSystem, path: str) -> pa.NativeFile:
    if is_local(fs):
        return pa.memory_map(path)
    return pa.PythonFile(cast(IO[bytes], fs.open(path, "rb", cache_type="readahead")), "r")


def _batches(source: pa.NativeFile, schema: pa.Schema) -> Iterator[tuple[int, int, pa.RecordBatch]]:
    """Offset and length in bytes of every record batch, and the batch."""
    source.seek(0)
    pa.ipc.read_message(source)  # the schema
    while True:
        offset = source.tell()
        try:
            message = pa.ipc.read_message(source)
        except EOFError:
            return
        yield offset, source.tell() - offset, pa.ipc.read_record_batch(message, schema)


def _without_images(batch: pa.RecordBatch, wanted: list[str]) -> pa.Table:
    """A copy, because the batch would keep its images alive where it is not mapped."""
    table = pa.Table.from_batches([batch]).select(wanted)
    table.validate(full=True)  # a damaged file must not send us anywhere in memory
    return table.take(pa.array(range(len(batch)))) if wanted else table


def _refuse_dictionaries(schema: pa.Schema, data: str) -> None:
    for field in schema:
        if pa.types.is_dictionary(field.type):
            raise DataError(f"column {field.name!r} of {data} is dictionary-encoded, which cannot be read row by row; write it with `to_parquet`")  # fmt: skip


def _cells(column: str, offset: int, length: int, rows: int, file: str) -> list[str]:
    head = f"arrow://{column_part(column)}/{offset}+{length}+"
    return [f"{head}{row}/{file}" for row in range(rows)]
