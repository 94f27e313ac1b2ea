"""Which run and which shard a part belongs to: stamped into its footer when it is written, compared whenever it is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

STAMPED_SINCE = 3
"""Store version; parts of older stores say nothing of their origin."""


@dataclass(frozen=True)
class PartOrigin:
    """What the footer of a part says of where it comes from."""

    run: str
    """Digest of the run's fingerprint, its plan among it: see `run_identity`."""
    shard: int
    ids: str
    """Digest of the ids in the part: see `ids_digest`."""
    version: int = STAMPED_SINCE
    """Of the store."""


def run_identity(fingerprint: Mapping[str, Any]) -> str:
    """Sha256 (hex) of a stored fingerprint: two runs share it if they compute the same rows."""
    return hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()


def expected_run(run: Mapping[str, Any] | None) -> str | None:
    """What parts of this run (content of `_run.json`) must say; None where they need not say anything."""
    if run is None or not isinstance(version := run.get("schema_version"), int) or version < STAMPED_SINCE:
        return None
    return run_identity(run["fingerprint"])


def ids_digest(ids: Iterable[str]) -> str:
    """Sha256 (hex) of a set of ids, in whatever order and however often they come."""
    return hashlib.sha256(json.dumps(sorted(set(ids))).encode()).hexdigest()


def foreign(origin: PartOrigin | None, run: str | None, shard: int) -> str | None:
    """What is wrong with a part that stands for this shard of this run, as the end of a sentence; None if nothing is."""
    if run is None:
        return None
    if origin is None:
        return "does not say which run it belongs to"
    if origin.run != run:
        return "belongs to another run"
    if origin.shard != shard:
        return f"is shard {origin.shard} and not shard {shard}"
    return None
