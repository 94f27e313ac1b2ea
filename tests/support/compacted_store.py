"""What a store holds before and after `heatlas compact`."""

from __future__ import annotations

import os

import heatlas
import pyarrow as pa
from heatlas.pipeline.settings.load import load_settings
from heatlas.pipeline.shards import plan_shards
from heatlas.pipeline.storage.location import locate
from heatlas.pipeline.store.committed_shards import done_shards, row_totals
from heatlas.pipeline.store.completeness import check_complete
from heatlas.pipeline.store.content_digest import logical_digest

ROWS, SHARD = 22, 2


SETTINGS = load_settings({"model": "torchvision:resnet18", "data": "photos", "out": "out"})


def names(out) -> list[str]:
    listing = done_shards(str(out))
    return [file.name for file in sorted([*listing.files, *listing.superseded])]


def everything(out) -> pa.Table:
    return heatlas.open(str(out)).table()


def assert_whole(out, digest: str) -> None:
    """Every row once, for readers and for the totals."""
    assert logical_digest(str(out)) == digest
    assert row_totals(str(out))["digest"] == digest
    check_complete(str(out), plan_shards(ROWS, SHARD))


def copied(source: str, target: str) -> None:
    """Make `target` what `source` is."""
    (fs, source), target = locate(source), locate(target)[1]
    if fs.exists(target):
        fs.rm(target, recursive=True)
    for path in fs.find(source):
        fs.makedirs(os.path.dirname(target + path.removeprefix(source)), exist_ok=True)
        fs.cp_file(path, target + path.removeprefix(source))
