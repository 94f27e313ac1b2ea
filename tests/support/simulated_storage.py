"""An object store in memory whose requests are made one at a time, in the order in which a test lets their callers go on.

Every process of the simulation is a thread that stops before each of its requests. The test chooses who goes on, and whether that request
fails before it has an effect, fails after it (the answer is lost), or kills its process there. What is not chosen is late.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Literal

import fsspec
from fsspec import AbstractFileSystem
from heatlas.errors import StorageError

Fault = Literal["none", "before", "after", "killed"]


class ProcessKilled(BaseException):
    """Ends the thread of a process as SIGKILL would: nothing of it runs any more."""


class RefusedError(OSError):
    """A conditional write that came too late."""

    status = 412


class Process:
    """One simulated process."""

    def __init__(self, name: str, work: Callable[[], Any]):
        self.name, self.result, self.error = name, None, None
        self.done = False
        self.killed = False
        self.listing = False
        """Whether it is between the two pages of a listing."""
        self._work, self._fault = work, "none"
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        CURRENT[self._thread] = self
        self._thread.start()
        self._stopped.acquire()

    def advance(self, fault: Fault = "none") -> None:
        """Make its next request, and run to the one after it or to its end."""
        if not self.done:
            self._fault = fault
            self._go.release()
            self._stopped.acquire()

    def at_request(self) -> Fault:
        """Called by the process before a request: waits for its turn. Nothing that a killed process would clean up is requested."""
        if self.killed:
            raise ProcessKilled
        self._stopped.release()
        self._go.acquire()
        fault, self._fault = self._fault, "none"
        if fault == "killed":
            self.killed = True
            raise ProcessKilled
        return fault

    def _run(self) -> None:
        try:
            self.result = self._work()
        except ProcessKilled:
            pass
        except BaseException as error:
            self.error = error
        self.done = True
        del CURRENT[threading.current_thread()]
        self._stopped.release()


CURRENT: dict[threading.Thread, Process] = {}
"""The processes that run, by thread; requests of other threads (readers of footers, DuckDB) are made at once."""


class SimulatedStore(AbstractFileSystem):
    """`sim://`: conditional writes and versions as S3 has them; listings come in two pages, read one after the other."""

    protocol = ("sim", "s3")
    cachable = True
    objects: dict[str, bytes] = {}  # noqa: RUF012  (one store for all instances, as a bucket is)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix("sim://").rstrip("/")

    def unstrip_protocol(self, name: str) -> str:
        return f"sim://{self._strip_protocol(name)}"

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", IfMatch: str | None = None, **_: Any) -> None:
        path = self._strip_protocol(path)

        def write() -> None:
            if mode == "create" and path in self.objects:
                raise FileExistsError(path)
            if IfMatch is not None and IfMatch != self._version(path):
                raise RefusedError(errno.EPERM, "another version is there", path)
            self.objects[path] = bytes(value)

        self._request(write)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        return self._request(lambda: self._content(path)[slice(start, end)])

    def _open(self, path: str, mode: str = "rb", **_: Any) -> io.BytesIO:
        return io.BytesIO(self._request(lambda: self._content(path)))

    def rm_file(self, path: str) -> None:
        self._request(lambda: self.objects.pop(self._strip_protocol(path), None))

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        return self._request(
            lambda: {"name": path, "size": len(self._content(path)), "type": "file", "ETag": self._version(path)}
        )

    def modified(self, path: str) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        folder, process = self._strip_protocol(path), CURRENT.get(threading.current_thread())
        names = self._request(lambda: self._names(folder))
        middle = names[len(names) // 2] if names else ""
        if process is None or len(names) < 2:
            return self._entries(folder, names, detail)
        process.listing = True
        try:
            behind = self._request(lambda: [name for name in self._names(folder) if name >= middle])
        finally:
            process.listing = False
        return self._entries(folder, [name for name in names if name < middle] + behind, detail)

    def _names(self, folder: str) -> list[str]:
        inner = {path[len(folder) + 1 :].split("/")[0] for path in self.objects if path.startswith(f"{folder}/")}
        return sorted(inner)

    def _entries(self, folder: str, names: list[str], detail: bool) -> list[Any]:
        entries = []
        for name in names:
            data = self.objects.get(f"{folder}/{name}")
            kind = "directory" if data is None else "file"
            entries.append({"name": f"{folder}/{name}", "size": 0 if data is None else len(data), "type": kind})
        return entries if detail else [entry["name"] for entry in entries]

    def _content(self, path: str) -> bytes:
        try:
            return self.objects[self._strip_protocol(path)]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "no such object", path) from None

    def _version(self, path: str) -> str:
        return hashlib.sha256(self._content(path)).hexdigest()

    def _request(self, action: Callable[[], Any]) -> Any:
        process = CURRENT.get(threading.current_thread())
        fault = "none" if process is None else process.at_request()
        if fault == "before":
            raise ConnectionResetError("the connection broke before the request arrived")
        result = action()
        if fault == "after":
            raise ConnectionResetError("the connection broke before the answer arrived")
        return result


LOCKS: set[str] = set()
"""Files that a process holds, as the lock of a local folder does; dropped with the process."""


@contextlib.contextmanager
def lock(uri: str) -> Iterator[None]:
    if uri in LOCKS:
        raise StorageError(f"{uri} is locked by another process")
    LOCKS.add(uri)
    try:
        yield
    finally:
        LOCKS.discard(uri)


def exchange_locked(uri: str, change: Callable[[bytes], bytes | None]) -> bool:
    """`exchange` as in a local folder: under a lock on the file."""
    store = SimulatedStore()
    try:
        with lock(uri):
            new = change(store.cat_file(uri))
            if new is not None:
                store.pipe_file(uri, new)
            return new is not None
    except OSError as error:
        raise StorageError(f"cannot replace {uri}: {error}") from error


def withdraw_locked(uri: str, last_look: Callable[[bytes], None]) -> None:
    """`withdraw` as in a local folder: nothing is written between the look and the end."""
    store = SimulatedStore()
    try:
        with lock(uri):
            last_look(store.cat_file(uri))
            store.rm_file(uri)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"cannot delete {uri}: {error}") from error


fsspec.register_implementation("sim", SimulatedStore, clobber=True)


def wait_for_listings(processes: Callable[[], list[Process]]) -> None:
    """What a pause of seconds stands for: listings that have begun come to their end. Called by a process, which stops here."""
    own = CURRENT.get(threading.current_thread())
    if own is None:
        return
    while any(other.listing for other in processes() if other is not own):
        own.at_request()
