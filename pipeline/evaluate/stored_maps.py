"""Explanations as a run stored them, read back by the workers that measure them."""

from __future__ import annotations

import threading
from collections.abc import Collection
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F

from ...engine.explanation import Explanation
from ...errors import StorageError
from ...workers.samples import Sample
from ..store.committed_shards import file_of
from ..store.part_reader import groups_with, open_file, read_groups, shard_ranges
from ..store.schema import read_metadata

COLUMNS = ["id", "status", "error", "prediction", "target", "confidence", "logit", "object_id", "map"]


class StoredMaps:
    """Reads explanations by sample, a row group (a few MB) at a time, because samples come in stored order.

    Picklable, so that it travels into actors; several threads may read at once.

    Args:
        out: Directory or URI of the store.
        size: Height and width of the network's input, to which smaller maps are enlarged bilinearly; None leaves maps as they are.
    """

    def __init__(self, out: str, size: tuple[int, int] | None = None):
        self.out, self.size = out, size
        self._lock = threading.Lock()
        self._group: dict[str, list[dict[str, Any]]] = {}
        self._part: int | None = None
        self._shape = (0, 0)

    def __reduce__(self) -> tuple[type[StoredMaps], tuple[str, tuple[int, int] | None]]:
        return StoredMaps, (self.out, self.size)

    def of(self, sample: Sample) -> list[Explanation]:
        """See `StoredExplanations.of`; the map is float32, with float16's 11 bits. Empty for a sample whose rows have no map."""
        with self._lock:
            if self._part != sample.explained_in or sample.id not in self._group:
                self._load(sample)
            rows, shape = self._group.get(sample.id, []), self._shape
        return [
            Explanation(
                row["status"], row["error"], row["prediction"], row["target"], row["confidence"], row["logit"],
                map=self._enlarged(torch.from_numpy(row["map"].astype(np.float32).reshape(shape))), object_id=row.get("object_id"),
            ) for row in rows
        ]  # fmt: skip

    def _enlarged(self, map_: torch.Tensor) -> torch.Tensor:
        if self.size is None or self.size == tuple(map_.shape):
            return map_
        return F.interpolate(map_[None, None], self.size, mode="bilinear", align_corners=False)[0, 0]

    def _load(self, sample: Sample) -> None:
        """Take the row groups that hold the sample into memory: its rows stand together, but a border may run between them."""
        part = sample.explained_in
        if part is None:
            raise StorageError(f"nobody said in which shard of {self.out} the explanation of {sample.id!r} is stored")
        file = file_of(self.out, part)
        with open_file(self.out, file) as opened:
            groups = groups_with(opened, *shard_ranges(opened, file)[part])
            ids = {group: opened.read_row_group(group, columns=["id"])["id"].to_pylist() for group in groups}
            if holding := [group for group in groups if sample.id in ids[group]]:
                elsewhere = {row for group in groups if group not in holding for row in ids[group]}
                self._group = _rows(read_groups(opened, holding, COLUMNS), elsewhere)
                facts = read_metadata(opened.schema_arrow)["map"]
                self._part, self._shape = part, (facts["height"], facts["width"])
                return
        raise StorageError(f"{file.uri(self.out)} has no row of {sample.id!r} any more; run the command again")


def _rows(table: pa.Table, incomplete: Collection[str]) -> dict[str, list[dict[str, Any]]]:
    """The rows that have a map by id, maps as flat float16 arrays; without ids that have rows in other row groups too."""
    column = table["map"].combine_chunks()
    side = column.type.list_size
    values = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, side)  # without the values under nulls
    maps = iter(values)
    rows_by_id: dict[str, list[dict[str, Any]]] = {}
    for row, there in zip(table.drop_columns(["map"]).to_pylist(), column.is_valid().to_pylist(), strict=True):
        if there:
            row["map"] = next(maps)
            if row["id"] not in incomplete:
                rows_by_id.setdefault(row["id"], []).append(row)
    return rows_by_id
