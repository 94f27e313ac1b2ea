"""What to say when a stored file cannot be read: the storage failed, or the file is damaged. Only the second is answered with a deletion."""

from __future__ import annotations

import errno
import os

from ...errors import StorageError
from ..storage.backoff import remedy
from .part_files import PartFile
from .part_names import written_by

_OF_THE_SYSTEM = (
    errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOSPC, errno.ENOMEM, errno.ESTALE, errno.ENOENT,
    errno.ETIMEDOUT, errno.ENOTCONN, errno.ENOTDIR, errno.EROFS, errno.ELOOP,
)  # fmt: skip


def read_failure(error: BaseException, out: str, file: PartFile) -> StorageError:
    """The error of a file of a store that could not be read.

    Args:
        error: What the file system, or Arrow's decoder, said.
        out: The run's directory.
        file: The file.
    """
    uri, said = file.uri(out), " ".join(str(error).split())
    if (cause := system_error(error)) is not None:
        return StorageError(f"cannot read {uri}: {said}; {remedy(cause)}")
    shards = "shard" if file.first == file.last else "shards"
    return StorageError(
        f"cannot read {uri}: {said}; the file is damaged: delete that file and run the same `{written_by(file.folder)}` command again, "
        f"which recomputes only its {shards}; `heatlas verify {out}` finds all such files"
    )


def system_error(error: BaseException) -> OSError | None:
    """The operating system's or storage's own error in `error`; None where the content of a file is wrong.

    Arrow raises OSError for damaged pages, too, but without a number. DuckDB hands on only the text.
    """
    if isinstance(error, OSError):
        return None if error.errno is None and not isinstance(error, FileNotFoundError | PermissionError) else error
    text = str(error)
    for number in _OF_THE_SYSTEM:
        if os.strerror(number).casefold() in text.casefold():
            return OSError(number, os.strerror(number))
    return None
