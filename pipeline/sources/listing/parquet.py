"""Parquet files that hold the images: a binary column, or Hugging Face's `struct{bytes, path}`.

Ids are the file's own column `id`, or `FILE/ROW`: the file relative to the folder or pattern, and the row's number in it, nine
digits. While listing, footers and columns without images are read; workers read a few dozen rows of a row group at a time.
Samples stay in stored order, so that neighbours lie in the same row group.
"""

# pyarrow.compute makes its functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ....errors import DataError
from ..reading.container_uri import column_part
from ..reading.parquet_bounds import read_listing_columns
from .image_tables import TableColumns
from .manifest import check_boxes, check_filled
from .options import Listed, SourceOptions
from .place import Place, find_place
from .plain_values import concat_columns
from .table import make_listing, numbered

_FILES_AT_ONCE = 8
Columns = dict[str, Any]


def list_parquet(data: str, options: SourceOptions) -> Listed:
    """The listing of one file, of those in a folder, or of those that a pattern names.

    Raises:
        DataError: If a file cannot be read, or it is not clear which column is the image.
    """
    place = find_place(data)
    paths = parquet_files(place)
    with ThreadPoolExecutor(_FILES_AT_ONCE, thread_name_prefix="parquet") as pool:
        files = list(pool.map(lambda path: _read_file(place, path, options), paths))
    rows = [len(file[0]["uri"]) for file in files]
    ours, others = concat_columns([file[0] for file in files], rows), concat_columns([file[1] for file in files], rows)
    names = {file[2] for file in files}
    if len(names) > 1:
        raise DataError(f"the files of {data} name their classes differently; list them one by one")
    return Listed(
        make_listing(ours, data, others, as_stored=True),
        names.pop(),
        notes=tuple(dict.fromkeys(note for file in files for note in file[3])),
    )


def parquet_files(place: Place) -> list[str]:
    """The files of the place: of a folder those directly in it, or else those in its folder `data`.

    Raises:
        DataError: If there is none.
    """
    if not place.is_folder:
        return list(place.paths)
    for folder in (place.path, f"{place.path.rstrip('/')}/data"):
        paths = sorted(map(str, place.fs.glob(f"{folder.rstrip('/')}/*.parquet")))
        if paths:
            return paths
    raise DataError(f"there is no .parquet in {place.origin}; give the folder that holds them, or a pattern such as {place.origin}/*/*.parquet")  # fmt: skip


def _read_file(
    place: Place, path: str, options: SourceOptions
) -> tuple[Columns, Columns, tuple[str, ...] | None, list[str]]:
    """The columns of one file, ours by the names of a listing; the data set's own; the names of its classes; notes."""
    origin = place.relative(path)
    try:
        with place.fs.open(path, "rb") as file:
            parquet = pq.ParquetFile(file)
            columns = TableColumns(parquet.schema_arrow, options, origin)
            wanted, size = columns.wanted, file.seek(0, 2)
            table = read_listing_columns(file, parquet.schema_arrow, wanted, size) if wanted else None
            sizes = [parquet.metadata.row_group(group).num_rows for group in range(parquet.metadata.num_row_groups)]
    except DataError:
        raise
    except Exception as error:  # each storage has errors of its own
        raise DataError(
            f"cannot read {origin} as Parquet: {type(error).__name__}: {error}; copy or download it again"
        ) from error
    known, others = columns.read(table) if table is not None else ({}, {})
    check_filled(known, "id", origin)
    check_boxes(known, origin)
    known.setdefault("id", pa.chunked_array([numbered(sum(sizes), f"{origin}/")]))
    known["uri"] = _cells(columns.image, sizes, place.uri(path))
    if columns.mask:
        known["mask_uri"] = _cells(columns.mask, sizes, place.uri(path))
    return known, others, columns.class_names, columns.notes


def _cells(column: str, sizes: Sequence[int], file: str) -> pa.ChunkedArray:
    """The URI of every cell of a column."""
    groups = pa.array(np.repeat(np.arange(len(sizes)), sizes)).cast(pa.string())
    rows = pa.array(np.concatenate([np.arange(size) for size in sizes] or [np.arange(0)])).cast(pa.string())
    head = pc.binary_join_element_wise(f"parquet://{column_part(column)}/", groups, "")
    return pa.chunked_array([pc.binary_join_element_wise(head, pc.binary_join_element_wise(rows, f"/{file}", ""), "+")])
