"""Which storage failures pass by themselves, how long to wait for that, and what to tell the user when they do not."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential, wait_random

from ...errors import HeatlasError, StorageError

T = TypeVar("T")

ATTEMPTS = 6
WAIT = wait_exponential(multiplier=0.25, max=10) + wait_random(0, 0.5)
"""8 to 10 seconds over all attempts: longer than a throttled bucket or a busy NFS server needs; the random part keeps racing writers apart."""

_PERMANENT = (
    PermissionError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, NotImplementedError,
    TypeError, ValueError, ImportError, AttributeError, HeatlasError,
)  # fmt: skip
_PERMANENT_ERRNO = {errno.EROFS, errno.ENAMETOOLONG, errno.ENOSYS, errno.ELOOP}

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
"""Tried again for a moment, because others may free space, but not for ever."""
_TOO_MANY_FILES = {errno.EMFILE, errno.ENFILE}
_PASSING_4XX = {408, 409, 425, 429}


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later: 409, 5xx, timeouts, broken connections, a full disk.

    Clients of object stores have error classes of their own, so what is not known to be permanent counts as transient.
    """
    if not isinstance(error, Exception) or isinstance(error, _PERMANENT):
        return False
    return getattr(error, "errno", None) not in _PERMANENT_ERRNO and not _says_no(error)


def _says_no(error: Exception) -> bool:
    """An HTTP answer that will not change: 4xx but for timeouts, conflicts and throttling."""
    for name in ("status", "status_code", "code"):
        if isinstance(status := getattr(error, name, None), int):
            return 400 <= status < 500 and status not in _PASSING_4XX
    return False


def with_retries(action: Callable[[], T], what: str) -> T:
    """Run `action`, again with growing pauses after transient failures.

    Args:
        action: One request; must be safe to repeat.
        what: For the message, such as "write s3://bucket/run/_run.json".

    Raises:
        StorageError: After the last attempt, with cause and remedy.
    """
    retrying = Retrying(
        retry=retry_if_exception(is_transient), stop=stop_after_attempt(ATTEMPTS), wait=WAIT, reraise=True
    )
    try:
        return retrying(action)
    except HeatlasError:
        raise
    except Exception as error:
        tries = retrying.statistics.get("attempt_number", 1)
        after = f" after {tries} attempts" if tries > 1 else ""
        failure = StorageError(f"cannot {what}{after}: {_describe(error)}; {remedy(error)}")
        full = getattr(error, "errno", None) in _NO_SPACE
        failure.outage = "permanent" if full or not is_transient(error) else "passing"
        raise failure from error


def remedy(error: BaseException) -> str:
    """What the user can do about a storage failure."""
    code = getattr(error, "errno", None)
    if code in _NO_SPACE:
        return "free some space, then run the same command again: finished shards are kept"
    if code in _TOO_MANY_FILES:
        return "too many files are open at once: end other programs or raise the limit (`ulimit -n 65536`), then run the same command again"
    if isinstance(error, PermissionError) or code == errno.EROFS:
        return "check the permissions or credentials for this place"
    if isinstance(error, FileNotFoundError):
        return "check that the bucket or folder exists"
    if isinstance(error, NotADirectoryError | IsADirectoryError | FileExistsError):
        return "a file stands where a folder should be, or the other way round: choose another place"
    return "check the storage, then run the same command again: finished shards are kept"


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
