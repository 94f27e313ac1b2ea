"""Small stores of synthetic rows, written through the real sink."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from heatlas.pipeline.shards import plan_shards
from heatlas.pipeline.store.parquet_sink import ParquetSink
from heatlas.pipeline.store.run_file import claim_run
from heatlas.pipeline.store.schema import StoreLayout
from heatlas.pipeline.verdict.judge import lock_store
from heatlas.workers.samples import Row, Sample

from ..support.marked_set import MarkedSet, user_code, write_marked_set
from ..support.marked_store import importable_marked, write_marked

CLASSES = ["ant", "bee", "cat"]
LAYOUT = StoreLayout(
    (24, 32),
    metrics=("drop_pct", "ebpg"),
    map_size=8,
    metadata={
        "class_names": CLASSES,
        "metrics": {
            "ebpg": {"definition": "ebpg/v1", "unit": "1"},
            "drop_pct": {"definition": "drop_pct/v1", "unit": "%"},
        },
        "provenance": {"model": "sha256:abc"},
    },
)


def synthetic_row(number: int) -> Row:
    """Row `number` of a data set in which every seventh image is undecodable; always the same."""
    sample = Sample(f"img-{number:04d}", f"/data/img-{number:04d}.png", number % 3)
    if number % 7 == 6:
        return Row(sample, "decode_error", f"cannot identify <_io.BytesIO object at {id(sample):#x}>", seconds=0.1)
    values = np.random.default_rng(number).random((24, 32), dtype=np.float32)
    return Row(
        sample, "ok", None, 480, 640, number % 3, number % 3, 0.5 + number / 1000, 2.0, values,
        {"drop_pct": float(number), "ebpg": None if number % 5 == 0 else 0.25}, (3, number), 3 + number, 0.01, "cpu",
    )  # fmt: skip


@pytest.fixture
def layout() -> StoreLayout:
    return LAYOUT


@pytest.fixture
def make_row():
    return synthetic_row


@pytest.fixture
def make_store():
    """Writes a claimed run of `count` rows into `out`, shards in the order asked for; returns the plan."""

    def write(out, count=20, shard_size=6, *, order=None, layout=LAYOUT, device="cpu"):
        claim_run(str(out), {"plan_digest": "p"}, {"seed": 0})
        plan = plan_shards(count, shard_size)
        for index in order if order is not None else range(len(plan)):
            rows = [synthetic_row(number) for number in range(plan[index].start, plan[index].stop)]
            for row in rows:
                row.device = device
            assert ParquetSink(str(out), layout).commit(plan[index], rows)
        return plan

    return write


@pytest.fixture
def memory_uri():
    """A place in fsspec's memory file system of this test's own, emptied afterwards."""
    uri = f"memory://heatlas-{uuid.uuid4().hex}"
    yield uri
    fs = fsspec.filesystem("memory")
    if fs.exists(uri):
        fs.rm(uri, recursive=True)


@pytest.fixture(params=["local", "memory"])
def place(request, tmp_path):
    """The directory of a run, on both kinds of store."""
    return str(tmp_path / "out") if request.param == "local" else request.getfixturevalue("memory_uri")


@pytest.fixture(scope="session")
def planted(tmp_path_factory) -> Iterator[MarkedSet]:
    """A data set with a mark, networks that hang on it, and a store with decisions and a locked test split; not to be changed."""
    folder = tmp_path_factory.mktemp("planted")
    with user_code(folder):
        made = write_marked_set(folder)
        lock_store(made.store, "split = 'test'")
        yield made


@pytest.fixture(scope="session")
def marked_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of ants, bees and cats, most bees with a white mark, and a store `out` over them; not to be changed."""
    folder = tmp_path_factory.mktemp("marked")
    write_marked(folder)
    return folder


@pytest.fixture
def store(marked_folder: Path, tmp_path: Path) -> Iterator[str]:
    """A copy of that store, with its model importable."""
    shutil.copytree(marked_folder / "out", tmp_path / "out")
    with importable_marked(marked_folder):
        yield str(tmp_path / "out")
