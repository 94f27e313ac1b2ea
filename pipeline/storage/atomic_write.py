"""Writing a file whole or not at all, and only if nobody wrote it before. Does not know what it writes.

Local and NFS: a dot file in the same folder, synced, then linked to its name, which fails if the name is taken.
Object stores: one conditional PUT. Stores without one: a look, then a plain PUT, which is still atomic; keys and content are
functions of the work alone, so a lost race overwrites equals with equals.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

from fsspec import AbstractFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from .backoff import with_retries
from .location import is_local, locate

TEMPORARY_SUFFIX = ".tmp"
_MEMORY_LOCK = threading.Lock()
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def put_if_absent(uri: str, data: bytes) -> bool:
    """Store `data` at `uri` unless something is stored there already. Racing writers: exactly one wins.

    Returns:
        True if `data` now stands at `uri`, False if another writer was first.

    Raises:
        StorageError: When it still fails after retries; nothing partial is then visible and no temporary file is left.
    """
    fs, path = locate(uri)
    write = (lambda: _link_if_absent(Path(path), data)) if is_local(fs) else (lambda: _create_object(fs, path, data))
    return with_retries(write, f"write {uri}")


def put(uri: str, data: bytes) -> None:
    """Store `data` at `uri` atomically, over whatever stood there.

    Raises:
        StorageError: When it still fails after retries; what stood there before is then untouched.
    """
    fs, path = locate(uri)
    write = (lambda: replace_file(Path(path), data)) if is_local(fs) else (lambda: fs.pipe_file(path, data))
    with_retries(write, f"write {uri}")


def remove(uri: str) -> None:
    """Delete the file at `uri`; it need not be there.

    Raises:
        StorageError: When it still fails after retries.
    """
    fs, path = locate(uri)

    def delete() -> None:
        fs.invalidate_cache()
        with contextlib.suppress(FileNotFoundError):
            fs.rm_file(path)

    with_retries(delete, f"delete {uri}")


def sweep_temporaries(uri: str) -> None:
    """Delete temporary files that killed writers left in the local folder `uri`.

    Only for a folder in which everything is written: a writer still alive there has lost already and will see so.
    """
    fs, path = locate(uri)
    if is_local(fs):
        for stale in Path(path).glob(f".*{TEMPORARY_SUFFIX}"):
            with contextlib.suppress(OSError):
                stale.unlink()


def _link_if_absent(path: Path, data: bytes) -> bool:
    if path.exists():
        return False
    with _staged(path, data) as staged:
        try:
            os.link(staged, path)
        except FileExistsError:
            return False
        except FileNotFoundError:  # swept away because the folder is complete
            if path.exists():
                return False
            raise
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if path.exists():  # a file system without hard links: look, then rename
                return False
            os.replace(staged, path)
        _sync_folder(path.parent)
    return True


def replace_file(path: Path, data: bytes) -> None:
    """As `put`, on a mounted file system and without retries."""
    with _staged(path, data) as staged:
        os.replace(staged, path)
        _sync_folder(path.parent)


@contextlib.contextmanager
def _staged(path: Path, data: bytes) -> Iterator[Path]:
    """A synced temporary file beside `path`, gone at the end whatever happens. Plain permissions, unlike `tempfile`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.{uuid.uuid4().hex}{TEMPORARY_SUFFIX}")
    try:
        with open(staged, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield staged
    finally:
        with contextlib.suppress(FileNotFoundError):
            staged.unlink()


def _sync_folder(folder: Path) -> None:
    """Make the new name itself durable, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _create_object(fs: AbstractFileSystem, path: str, data: bytes) -> bool:
    # the memory file system looks and writes in two steps, which racing threads could come between
    with _MEMORY_LOCK if isinstance(fs, MemoryFileSystem) else contextlib.nullcontext():
        try:
            fs.pipe_file(path, data, mode="create")
        except Exception as error:
            if _says_taken(error):
                return False
            if not _says_unsupported(error):
                raise
            fs.invalidate_cache()
            if fs.exists(path):
                return False
            fs.pipe_file(path, data)
    return True


def _says_taken(error: BaseException) -> bool:
    return any(isinstance(cause, FileExistsError) or _status(cause) in ("412", "PreconditionFailed")
               for cause in _causes(error))  # fmt: skip


def says_changed(error: BaseException) -> bool:
    """A write that named the version it read, and came too late."""
    return any(_status(cause) in ("412", "PreconditionFailed") for cause in _causes(error))


def _says_unsupported(error: BaseException) -> bool:
    """A store or client that does not know conditional writes: 501, or a `pipe_file` without `mode`."""
    if isinstance(error, TypeError):
        return "mode" in str(error)
    return any(isinstance(cause, NotImplementedError) or _status(cause) in ("501", "NotImplemented")
               for cause in _causes(error))  # fmt: skip


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _status(error: BaseException) -> str:
    """The HTTP status or S3 code of an error, in the spellings of botocore, gcsfs, azure and aiohttp."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return str(response.get("Error", {}).get("Code", ""))
    for name in ("status_code", "status", "code"):
        if (value := getattr(error, name, None)) is not None:
            return str(value)
    return ""
