"""A file system whose readings are tried again, for libraries such as DuckDB that read fsspec by themselves."""

from __future__ import annotations

import io
from typing import Any, cast

from fsspec import AbstractFileSystem

from .backoff import with_retries


class RetriedFile(io.RawIOBase):
    """A file open for reading; after a transient failure the same bytes are asked for again."""

    def __init__(self, file: Any, path: str) -> None:
        self._file, self._path = file, path

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return cast(int, self._file.seek(offset, whence))

    def tell(self) -> int:
        return cast(int, self._file.tell())

    def read(self, size: int = -1) -> bytes:
        start = self.tell()

        def read() -> bytes:
            self._file.seek(start)
            return cast(bytes, self._file.read(size))

        return with_retries(read, f"read {self._path}")

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


class RetriedFileSystem(AbstractFileSystem):
    """Reads from `fs`, again with growing pauses after transient failures; writes nothing."""

    cachable = False

    def __init__(self, fs: AbstractFileSystem) -> None:
        super().__init__()
        self._fs = fs
        self.protocol = fs.protocol

    def open(self, path: str, mode: str = "rb", *_: Any, **__: Any) -> Any:
        """Raises StorageError after the last attempt, ValueError for a mode that writes."""
        if mode != "rb":
            raise ValueError(f"{path}: mode {mode!r}, but this file system only reads")
        return RetriedFile(with_retries(lambda: self._fs.open(path, "rb"), f"open {path}"), path)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return with_retries(lambda: self._fs.info(path), f"look at {path}")

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        return with_retries(lambda: self._fs.ls(path, detail=detail), f"list {path}")

    def exists(self, path: str, **_: Any) -> bool:
        """False only where the file system says that nothing is there; file systems of fsspec say so after any failure."""

        def exists() -> bool:
            try:
                self._fs.info(path)
            except FileNotFoundError:
                return False
            return True

        return with_retries(exists, f"look at {path}")

    def glob(self, path: str, maxdepth: int | None = None, **_: Any) -> Any:
        """The file of exactly this name, else those that match it as a pattern."""
        return (
            [path]
            if self.exists(path)
            else with_retries(lambda: self._fs.glob(path, maxdepth=maxdepth), f"list {path}")
        )

    def modified(self, path: str) -> Any:
        return with_retries(lambda: self._fs.modified(path), f"look at {path}")

    def unstrip_protocol(self, name: str) -> str:
        return self._fs.unstrip_protocol(name)
