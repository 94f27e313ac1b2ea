"""The maps of a store as what a student imitates."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import UsageError
from ...workers.training.training_spec import TeacherMap
from ..store.reader import open_store

LARGEST_BYTES = 2 << 30
"""Of all maps in memory, which every worker holds."""


def teacher_run(store: str) -> dict[str, Any]:
    """The method that made a store's maps and its settings, for whoever wants to make such maps again."""
    fingerprint = open_store(store).run["fingerprint"]
    method = str(fingerprint.get("method", "sise"))
    return {"method": method, "settings": dict(fingerprint.get(method) or {})}


def read_teacher(store: str, model_digest: str, ids: set[str]) -> dict[str, TeacherMap]:
    """The first stored map of each of these samples, by id.

    Raises:
        UsageError: When the store is of another model, holds none of the samples, or too many maps for memory.
    """
    reader = open_store(store)
    own = reader.run["fingerprint"]["model"]["digest"]
    if own != model_digest:
        raise UsageError(
            f"--teacher {store} explains another model or preprocessing (digest {own[:12]}, this model has {model_digest[:12]}); give the "
            "model and --preprocess settings of that run"
        )
    facts, maps_by_id, size = reader.metadata.get("map"), {}, 0
    if not facts:
        raise UsageError(f"--teacher {store} holds no maps as numbers; explain with --store.map")
    shape = (facts["height"], facts["width"])
    for batch in reader.batches(["id", "target", "map"], "status = 'ok'"):
        maps = batch.column("map")
        for place, (id, target) in enumerate(
            zip(batch.column("id").to_pylist(), batch.column("target").to_pylist(), strict=True)
        ):
            if id not in ids or id in maps_by_id or not maps[place].is_valid:
                continue
            values = np.asarray(maps[place].values, dtype=np.float16).reshape(shape)
            size += values.nbytes
            if size > LARGEST_BYTES:
                raise UsageError(
                    f"the maps of --teacher {store} take more than {LARGEST_BYTES >> 30} GiB; train on fewer images (--sample), a student needs "
                    "thousands, not millions"
                )
            maps_by_id[id] = TeacherMap(int(target), values)
    if len(maps_by_id) < 4:
        raise UsageError(
            f"--teacher {store} has maps of {len(maps_by_id)} of the images of --data; it must have at least 4"
        )
    return maps_by_id
