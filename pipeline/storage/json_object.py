"""Small JSON files that other processes write while we read: the claims and totals beside the parts of a store."""

from __future__ import annotations

import json
from typing import Any

from ...errors import StorageError
from .backoff import with_retries
from .location import locate


def read_object(uri: str, remedy: str) -> dict[str, Any] | None:
    """The JSON object stored at `uri`, read afresh; None if there is no such file.

    Args:
        uri: Local path or URI.
        remedy: What the user can do if the file is damaged.

    Raises:
        StorageError: If it cannot be read, or holds no JSON object.
    """
    fs, path = locate(uri)

    def read() -> str | bytes | None:
        fs.invalidate_cache()
        try:
            return fs.cat_file(path)
        except FileNotFoundError:
            return None

    data = with_retries(read, f"read {uri}")
    if data is None:
        return None
    try:
        value = json.loads(data)
        if isinstance(value, dict):
            return value
        reason = f"it holds {type(value).__name__}, not an object"
    except (ValueError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
    raise StorageError(f"{uri} is damaged ({reason}); {remedy}")
