"""Reading a stored file, changing it and writing it back, so that no other writer's change in between is lost.

Local and NFS: under a lock on the file itself, which the kernel drops with its process. S3: the write says which version it
read (If-Match), and loses against another one. Stores without either: read and write at once; run one writer at a time there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from fsspec import AbstractFileSystem

from .atomic_write import replace_file, says_changed
from .backoff import with_retries
from .location import bytes_of, is_local, locate

Change = Callable[[bytes], bytes | None]
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


class ChangedMeanwhileError(OSError):
    """Another writer was faster; read again."""


def exchange(uri: str, change: Change) -> bool:
    """Replace what is stored at `uri` by what `change` makes of it, in one atomic step.

    Args:
        uri: A file that exists.
        change: Gets the bytes, gives the new ones, or None to leave the file as it is. May be called again.

    Returns:
        Whether something was written.

    Raises:
        StorageError: When it still fails after retries; what stood there before is then untouched.
    """
    fs, path = locate(uri)
    swap = (lambda: _swap_local(Path(path), change)) if is_local(fs) else (lambda: _swap_object(fs, path, change))
    return with_retries(swap, f"replace {uri}")


def withdraw(uri: str, last_look: Callable[[bytes], None]) -> None:
    """Delete the file at `uri` after a look at what is in it; it need not be there.

    Local and NFS: under the lock that `exchange` takes, so nothing is written between the look and the end. Object stores: at once
    behind each other.

    Args:
        uri: The file.
        last_look: Gets its bytes; an error raised there leaves the file. May be called again.

    Raises:
        StorageError: When it still fails after retries.
    """
    fs, path = locate(uri)

    def look_and_delete() -> None:
        with contextlib.suppress(FileNotFoundError):
            if is_local(fs):
                with _locked(Path(path)):
                    last_look(Path(path).read_bytes())
                    Path(path).unlink()
            else:
                fs.invalidate_cache()
                last_look(bytes_of(fs, path))
                fs.rm_file(path)

    with_retries(look_and_delete, f"delete {uri}")


def _swap_local(path: Path, change: Change) -> bool:
    with _locked(path):
        new = change(path.read_bytes())
        if new is not None:
            replace_file(path, new)
    return new is not None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone with the file. A lock that came late may be one on a file that was replaced meanwhile; then it is taken anew.

    Not waited for here: its holder may be stopped, and the caller tries again anyway.
    """
    while True:
        with open(path, "r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                yield
                return


def _swap_object(fs: AbstractFileSystem, path: str, change: Change) -> bool:
    fs.invalidate_cache()
    version = fs.info(path).get("ETag") if "s3" in fs.protocol else None
    new = change(bytes_of(fs, path))
    if new is None:
        return False
    try:
        fs.pipe_file(path, new, **({"IfMatch": version} if version else {}))
    except Exception as error:
        if says_changed(error):
            raise ChangedMeanwhileError(errno.EAGAIN, "another writer replaced the file meanwhile", path) from None
        raise
    return True
