"""What identifies a run, as one list: the fingerprint holds exactly this, a resuming run must share it, every worker compares its part
of it before the first image, and the digest of it stands in the footer of every part, which all readers and `heatlas verify` compare.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from ...errors import shortened
from ...workers.models.model_identity import LOGITS, MODEL_FACTS, logits_agree, logits_difference
from .part_summary import without_summary

Comparison = Literal["equal", "close", "told"]
"""`close`: within the tolerance of `logits_agree`; `told`: a difference is said and refuses nothing."""
ABSENT = "(not set)"
SCHEMA_FACT = "schema"
METHOD_SETTINGS = "(method)"
"""Stands for the group of settings that is called like the method."""
_LONGEST_VALUE = 100


@dataclass(frozen=True)
class IdentityFact:
    """One entry of the fingerprint."""

    key: str
    """Dotted; what lies below it in the fingerprint belongs to it."""
    meaning: str
    comparison: Comparison = "equal"
    by_workers: bool = False
    """Whether every worker compares it before its first image."""


IDENTITY: tuple[IdentityFact, ...] = (
    IdentityFact("plan", "which samples with which labels and ground truth, in which shards"),
    *(
        IdentityFact(key, meaning, "close" if key == LOGITS else "equal", by_workers=True)
        for key, meaning in MODEL_FACTS.items()
    ),
    IdentityFact("model.source", "text of the user's code that builds the model", "told"),
    IdentityFact("model.layers", "layers that the method reads"),
    IdentityFact("classes.names", "names of the classes in their order, as rows hold them"),
    IdentityFact("preprocess", "from image file to network input"),
    IdentityFact("method", "explanation method"),
    IdentityFact(METHOD_SETTINGS, "its settings"),
    IdentityFact("correct_shift", "pixels by which maps are moved back"),
    IdentityFact("target", "which classes are explained"),
    IdentityFact("score", "what confidence in a class means"),
    IdentityFact("metrics", "definitions of the metrics"),
    IdentityFact("floors", "images whose chance baselines are computed"),
    IdentityFact("sanity", "images explained with random weights too"),
    IdentityFact("budget", "forward passes"),
    IdentityFact("precision", "number format of masked passes"),
    IdentityFact("batch_size", "masked images per forward pass, which changes last bits"),
    IdentityFact("threads", "CPU threads, which change last bits"),
    IdentityFact("forward", "how masked passes run: batch norms folded, compiled, as a CUDA graph"),
    IdentityFact("seed", "of all random numbers"),
    IdentityFact("store", "what is kept of each map and image"),
    IdentityFact("data_root", "what may be read"),
    IdentityFact(SCHEMA_FACT, "columns of the parts and what their metadata says"),
    IdentityFact("versions", "libraries that compute rows"),
)


def fact_of(key: str, method: str | None) -> IdentityFact | None:
    """The entry that a dotted key of a fingerprint belongs to; None if the list has none."""
    for fact in IDENTITY:
        name = method if fact.key == METHOD_SETTINGS else fact.key
        if name is not None and ((key == name and fact.key != METHOD_SETTINGS) or key.startswith(f"{name}.")):
            return fact
    return None


def require_listed(fingerprint: Mapping[str, Any]) -> None:
    """Refuse a fingerprint with something that the list does not know, so that neither can grow without the other.

    Raises:
        RuntimeError: Naming the keys.
    """
    method = fingerprint.get("method")
    strangers = [key for key, _ in flat(fingerprint) if fact_of(key, method) is None and key != method]
    if strangers:
        raise RuntimeError(f"the fingerprint has {', '.join(strangers)}, which the list of what identifies a run lacks")


def facts_for_workers(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """What every worker compares, by dotted key."""
    values = dict(flat(fingerprint))
    return {fact.key: values.get(fact.key) for fact in IDENTITY if fact.by_workers}


def differences(stored: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """A line for people about every key, in stored order, in which two fingerprints differ and which is not only told."""
    return [text for fact, text in _compared(stored, ours) if fact is None or fact.comparison != "told"]


def differences_between(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """As `differences`, of two runs that are both stored."""
    compared = _compared(first, second, ("the first has", "the second"))
    return [text for fact, text in compared if fact is None or fact.comparison != "told"]


def remarks(stored: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """A line about every difference that refuses nothing."""
    return [text for fact, text in _compared(stored, ours) if fact is not None and fact.comparison == "told"]


def _compared(
    stored: Mapping[str, Any], ours: Mapping[str, Any], words: tuple[str, str] = ("stored", "now")
) -> Iterator[tuple[IdentityFact | None, str]]:
    theirs, mine = dict(flat(stored)), dict(flat(as_stored(ours)))
    for key in dict.fromkeys((*theirs, *mine)):
        fact = fact_of(key, stored.get("method"))
        first, second = theirs.get(key, ABSENT), mine.get(key, ABSENT)
        if first == second:
            continue
        if key == LOGITS and isinstance(first, list) and isinstance(second, list):
            if not logits_agree(first, second):
                yield fact, f"  {key}: {logits_difference(first, second)}"
            continue
        yield fact, f"  {key}: {words[0]} {_shown(first)}, {words[1]} {_shown(second)}"


def as_stored(values: Mapping[str, Any]) -> dict[str, Any]:
    """What JSON makes of the values, so that a tuple compares equal to the list that comes back."""
    return json.loads(json.dumps(dict(values), default=str))


def flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of everything in a nested mapping."""
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield from flat(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner


def _shown(value: Any) -> str:
    return shortened(value if value == ABSENT else json.dumps(value), _LONGEST_VALUE)


def schema_digest(schema: pa.Schema) -> str:
    """Sha256 (hex) of a part's columns and metadata, but for what is each part's own; the same for any version of Arrow."""
    shared = without_summary(schema)
    metadata = {key.decode(): value.decode() for key, value in (shared.metadata or {}).items()}
    columns = [(field.name, _type_text(field.type)) for field in shared]
    return hashlib.sha256(json.dumps([columns, metadata], sort_keys=True).encode()).hexdigest()


def _type_text(kind: pa.DataType) -> str:
    """Arrow's own text names list items, which its versions call otherwise."""
    if pa.types.is_struct(kind):
        return f"struct<{_joined(f'{field.name}: {_type_text(field.type)}' for field in kind)}>"
    if pa.types.is_fixed_size_list(kind):
        return f"{_type_text(kind.value_type)}[{kind.list_size}]"
    if pa.types.is_list(kind):
        return f"list<{_type_text(kind.value_type)}>"
    return str(kind)


def _joined(texts: Iterable[str]) -> str:
    return ", ".join(texts)
