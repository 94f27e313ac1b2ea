"""The metrics that were added to a store after its run: which there are, where their parts lie, and who they belong to.

out/metrics/<name>/_evaluation.json        which metrics, of which run, computed by what; created once, never changed
out/metrics/<name>/part-000042.parquet     one file per shard of the run: id, object_id, target, method, the metrics
out/metrics/<name>/_SUCCESS                last, with totals

The name is a function of the metrics alone, so that the same request finds the same folder.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ...errors import RunMismatchError, StorageError
from ..storage.atomic_write import put_if_absent
from ..storage.backoff import with_retries
from ..storage.json_object import read_object
from ..storage.location import child, locate, names_in
from .identity import differences
from .run_file import versions

METRICS_FOLDER = "metrics"
CLAIM_FILE = "_evaluation.json"
_NAME = re.compile(r"[0-9a-f]{12}")
KEYS = ("id", "object_id", "target", "method")
"""Columns by which a row of an evaluation finds its row in the store; evaluations of heatlas 0.2 lack `object_id`, as its stores do."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Some metrics that were, or are being, added to a store."""

    name: str
    created: str
    metrics: Mapping[str, Mapping[str, Any]]
    """What each column means, by name: its definition id, unit, range and so on."""
    fingerprint: Mapping[str, Any]

    @property
    def folder(self) -> str:
        """Where its parts lie, relative to the run's directory."""
        return f"{METRICS_FOLDER}/{self.name}"


def list_evaluations(out: str) -> list[Evaluation]:
    """What was added to the store `out`, the oldest first.

    Raises:
        StorageError: If a claim is damaged or cannot be read.
    """
    place = child(out, METRICS_FOLDER)
    fs, path = locate(place)
    names = with_retries(lambda: names_in(fs, path), f"list {place}")
    evaluations = [
        evaluation for name in names if _NAME.fullmatch(name) and (evaluation := read_evaluation(out, name)) is not None
    ]
    return sorted(evaluations, key=lambda evaluation: (evaluation.created, evaluation.name))


def read_evaluation(out: str, name: str) -> Evaluation | None:
    """The evaluation of that name; None if nobody has claimed it.

    Raises:
        StorageError: If the claim is damaged or cannot be read.
    """
    uri = child(out, f"{METRICS_FOLDER}/{name}/{CLAIM_FILE}")
    remedy = "delete its folder and evaluate the metrics again"
    claim = read_object(uri, remedy)
    if claim is None:
        return None
    if not all(isinstance(claim.get(key), dict) for key in ("metrics", "fingerprint")):
        raise StorageError(f"{uri} is damaged (its metrics and fingerprint are not objects); {remedy}")
    return Evaluation(name, str(claim.get("created")), claim["metrics"], claim["fingerprint"])


def column_owners(evaluations: Iterable[Evaluation], taken: Iterable[str] = ()) -> dict[str, Evaluation]:
    """Which evaluation a column is read from: a column of the run's own files stays theirs, else the oldest claim wins.

    Args:
        evaluations: As `list_evaluations` gives them.
        taken: Columns of the run's own files.
    """
    owners: dict[str, Evaluation] = {}
    for evaluation in evaluations:
        for column in evaluation.metrics:
            owners.setdefault(column, evaluation)
    return {column: evaluation for column, evaluation in owners.items() if column not in set(taken)}


def evaluation_name(definitions: Sequence[str]) -> str:
    """The folder of these metrics (definition ids, in any order): 12 hex digits."""
    return hashlib.sha256("\n".join(sorted(definitions)).encode()).hexdigest()[:12]


def run_digest(run: Mapping[str, Any]) -> str:
    """Sha256 (hex) of what `_run.json` says: one run and no other."""
    return hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()


def claim_evaluation(
    out: str, run: Mapping[str, Any], metrics: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]
) -> Evaluation:
    """Begin to add these metrics to the store, or find that it was begun already.

    Args:
        out: Directory or URI of the store.
        run: Content of its `_run.json`.
        metrics: What each column means; JSON values with at least `definition`.
        settings: JSON values of the run that the metrics depend on. Library versions are added here.

    Raises:
        RunMismatchError: If what was begun there belongs to another run, or to other library versions, naming what differs.
        StorageError: If storage fails.
    """
    definitions = [facts["definition"] for facts in metrics.values()]
    fingerprint = {"run": run_digest(run), "metrics": definitions, **settings, "versions": versions()}
    claim = {
        "created": datetime.now(UTC).isoformat(timespec="microseconds"),
        "metrics": metrics,
        "fingerprint": fingerprint,
    }
    name = evaluation_name(definitions)
    uri = child(out, f"{METRICS_FOLDER}/{name}/{CLAIM_FILE}")
    put_if_absent(uri, (json.dumps(claim, indent=2) + "\n").encode())
    stored = read_evaluation(out, name)
    if stored is None:
        raise StorageError(f"{uri} was written and is not there; run the same command again")
    refuse_other(out, stored, fingerprint)
    return stored


def refuse_other(out: str, stored: Evaluation, fingerprint: Mapping[str, Any]) -> None:
    """Half of a column must not mean something else than the other half.

    Raises:
        RunMismatchError: Naming what differs.
    """
    lines = differences(stored.fingerprint, fingerprint)
    if lines:
        raise RunMismatchError(
            f"{', '.join(stored.metrics)} of {out} were begun differently:\n"
            + "\n".join(lines)
            + "\nrestore the stored "
            f"values, or delete {child(out, stored.folder)} to evaluate these metrics anew; nothing was changed"
        )
