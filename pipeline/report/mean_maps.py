"""The mean map of some classes, over a sample of their images, read some at a time.

The sample takes whole blocks of files, in an order drawn by the files' names and the same for all classes: as few files as possible
are opened, and the same store gives the same sample.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..store.sql import PARTS
from .rows import ReportRows, literal

PER_CLASS = 100
"""Images whose maps are averaged, at most."""
BYTES_AT_ONCE = 2**26


def class_mean_maps(
    rows: ReportRows, classes: Sequence[int], per_class: int = PER_CLASS
) -> dict[int, tuple[np.ndarray, int]]:
    """Mean map `(height, width)` in [0, 1] and how many maps it averages, by label; classes without a map are missing."""
    shape = rows.atlas.metadata.get("map")
    if not classes or shape is None:
        return {}
    size = (shape["height"], shape["width"])
    labels = ", ".join(str(int(index)) for index in classes)
    wanted = rows.ask(
        f"SELECT label, file, place FROM rows WHERE main AND status = 'ok' AND label IN ({labels}) "
        f"QUALIFY row_number() OVER (PARTITION BY label ORDER BY file, block, place) <= {int(per_class)} ORDER BY file, place"
    )
    files = _file_names(rows, {record["file"] for record in wanted})
    sums: dict[int, np.ndarray] = {}
    counts: dict[int, int] = {}
    step = max(1, BYTES_AT_ONCE // (4 * size[0] * size[1]))
    for start in range(0, len(wanted), step):
        some = wanted[start : start + step]
        label_of = {(record["file"], record["place"]): record["label"] for record in some}
        for file, place, values in _maps(rows, some, files):
            label = label_of[file, place]
            sums[label] = sums.get(label, 0.0) + values
            counts[label] = counts.get(label, 0) + 1
    return {label: ((total / counts[label]).reshape(size), counts[label]) for label, total in sums.items()}


def _maps(rows: ReportRows, wanted: Sequence[Mapping[str, Any]], files: Mapping[int, str]):
    """File, place and values of the maps of some rows, which are in the order of their files."""
    by_file = {
        key: [record["place"] for record in group]
        for key, group in itertools.groupby(wanted, lambda record: record["file"])
    }
    names = ", ".join(literal(files[key]) for key in by_file)
    places = ", ".join(f"({literal(files[key])}, {place})" for key, some in by_file.items() for place in some)
    table = rows.atlas.query_table(  # a join with the places: a condition that names them all is planned again for every file
        f"SELECT md5_number_lower(parse_filename(filename)) AS file, file_row_number AS place, map FROM {PARTS} "
        f"WHERE filename IN ({names}) AND (filename, file_row_number) IN (VALUES {places}) AND map IS NOT NULL"
    )
    for batch in table.to_batches():
        maps = batch["map"].flatten().to_numpy(zero_copy_only=False).reshape(len(batch), -1)
        yield from zip(batch["file"].to_pylist(), batch["place"].to_pylist(), maps.astype(np.float64), strict=True)


def _file_names(rows: ReportRows, digests: set[int]) -> dict[int, str]:
    """The names as DuckDB calls the files, by their digest."""
    asked = f"SELECT DISTINCT filename, md5_number_lower(parse_filename(filename)) FROM {PARTS}"
    return {digest: name for name, digest in rows.atlas.query_rows(asked) if digest in digests}
