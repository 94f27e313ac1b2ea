"""`_SUCCESS`: written last, with the totals of a complete run."""

from __future__ import annotations

import json
from typing import Any

from ...errors import StorageError
from ..storage.atomic_write import put, sweep_temporaries
from ..storage.compare_and_swap import exchange
from ..storage.json_object import read_object
from ..storage.location import child
from .committed_shards import row_totals
from .part_names import MAPS, SUCCESS


def write_success(out: str, totals: dict[str, Any]) -> None:
    """Mark the run complete, with its totals, and clear away temporary files of killed writers."""
    put(child(out, SUCCESS), success_bytes(totals))
    sweep_temporaries(child(out, MAPS))


def success_bytes(totals: dict[str, Any]) -> bytes:
    return (json.dumps(totals, indent=2, sort_keys=True) + "\n").encode()


def read_success(out: str) -> dict[str, Any] | None:
    """The totals of a complete run; None if the run is not complete."""
    return read_object(child(out, SUCCESS), "delete it and run the same command again")


def renew_success(out: str, folder: str = MAPS) -> None:
    """Say the new number of bytes in `_SUCCESS`, where there is one and the rows are those it speaks of; clear away temporaries.

    Args:
        out: The run's directory.
        folder: `maps`, or an evaluation's, whose own `_SUCCESS` is meant.
    """
    place = out if folder == MAPS else child(out, folder)
    if read_success(place) is None:
        return
    totals = row_totals(out, folder=folder)

    def change(stored: bytes) -> bytes | None:
        says = json.loads(stored)
        same = all(says.get(name) == totals[name] for name in ("rows", "shards", "digest"))
        return None if not same or says.get("bytes") == totals["bytes"] else success_bytes({**says, "bytes": totals["bytes"]})  # fmt: skip

    try:
        exchange(child(place, SUCCESS), change)
    except StorageError as error:
        if not isinstance(error.__cause__, FileNotFoundError):  # a retry takes it away while it works
            raise
    sweep_temporaries(child(out, folder))
