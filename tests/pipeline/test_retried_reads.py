"""DuckDB reads parts through storage that fails now and then, and says what is wrong with one that fails always."""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from heatlas.errors import StorageError
from heatlas.pipeline.storage import backoff
from heatlas.pipeline.storage.retried_reads import RetriedFileSystem
from heatlas.pipeline.store import sql
from tenacity import wait_none

ROWS = 20_000


class UnreliableFileSystem(MemoryFileSystem):
    """Every `period`-th request for what others have stored in memory fails."""

    cachable = False

    def __init__(self, period: int) -> None:
        super().__init__()
        self.period, self.failures, self.requests = period, 0, itertools.count(1)

    def request(self) -> None:
        if next(self.requests) % self.period == 0:
            self.failures += 1
            raise OSError(16, "Service Unavailable")

    def open(self, path: str, mode: str = "rb", *_: Any, **__: Any) -> Any:
        self.request()
        return UnreliableFile(self, self.cat_file(path))

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        self.request()
        return super().info(path)


class UnreliableFile(io.BytesIO):
    def __init__(self, fs: UnreliableFileSystem, data: bytes) -> None:
        super().__init__(data)
        self.fs = fs

    def read(self, size: int | None = -1) -> bytes:
        self.fs.request()
        return super().read(size)


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(backoff, "WAIT", wait_none())
    uri = "memory://unreliable/part [1].parquet"  # a pattern, if it were not the name of a file
    with MemoryFileSystem().open(uri, "wb") as file:
        pq.write_table(pa.table({"x": range(ROWS)}), file, row_group_size=ROWS // 4)
    yield uri
    MemoryFileSystem().rm("/unreliable", recursive=True)


@pytest.mark.parametrize("period", [2, 3, 5])
def test_failing_reads_are_repeated(part: str, monkeypatch: pytest.MonkeyPatch, period: int):
    fs = UnreliableFileSystem(period)
    monkeypatch.setattr(sql, "locate", lambda uri: (fs, uri.removeprefix("memory:/")))
    with contextlib.closing(sql.connect_parts([part])) as connection:
        assert connection.execute("SELECT sum(x), count(DISTINCT filename) FROM heatlas_parts").fetchall() == [
            (sum(range(ROWS)), 1)
        ]
    assert fs.failures > 0


def test_storage_that_always_fails_is_named_without_a_traceback(part: str, monkeypatch: pytest.MonkeyPatch):
    fs = UnreliableFileSystem(1)
    monkeypatch.setattr(sql, "locate", lambda uri: (fs, uri.removeprefix("memory:/")))
    with pytest.raises(StorageError, match="Service Unavailable") as raised:
        sql.connect_parts([part])
    assert "Traceback" not in str(raised.value)
    assert str(raised.value).count("\n") == 0


def test_it_writes_nothing(part: str):
    with pytest.raises(ValueError, match="only reads"):
        RetriedFileSystem(MemoryFileSystem()).open(part, "wb")
