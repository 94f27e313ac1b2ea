"""What a loaded model is known by, wherever it is loaded: weights, class names, and what it computes for two fixed images.

The driver writes these facts into the run's fingerprint; every worker compares its own before its first image.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import ModelError, shortened

if TYPE_CHECKING:
    from .load import LoadedModel

MODEL_FACTS = {
    "model.digest": "weights by content, and the preprocessing",
    "model.bank": "feature bank by content, where it stands in for a classifier",
    "model.explainer": "trained explainer by content, of methods that have one",
    "model.logits": "what the model computes on a CPU in fp32 for two fixed images: a changed program with the same weights",
    "model.class_names": "the model's own class names in their order",
    "classes.number": "number of classes",
}
"""By their dotted names in the fingerprint."""
LOGITS = "model.logits"
RELATIVE_TOLERANCE = 1e-3
"""Of logits, relative to the largest: more than CPUs and thread counts make, less than another program does."""
_LONGEST = 80


def model_facts(loaded: LoadedModel) -> dict[str, Any]:
    """The facts of `MODEL_FACTS`, plain JSON values; one that does not apply is None."""
    return {
        "model.digest": loaded.digest,
        "model.bank": loaded.bank_digest or None,
        "model.explainer": loaded.explainer.digest() if loaded.explainer else None,
        LOGITS: list(loaded.logits),
        "model.class_names": names_digest(loaded.class_names),
        "classes.number": loaded.num_classes,
    }


def model_differences(expected: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    """A line about every expected fact that was found otherwise."""
    return [
        difference_text(key, expected[key], own.get(key))
        for key in expected
        if not facts_agree(key, expected[key], own.get(key))
    ]


def facts_agree(key: str, first: Any, second: Any) -> bool:
    """Whether two values of a fact mean the same model."""
    return logits_agree(first, second) if key == LOGITS else first == second


def difference_text(key: str, stored: Any, now: Any) -> str:
    if key == LOGITS:
        return f"{key}: {logits_difference(stored, now)}"
    return f"{key}: stored {shortened(json.dumps(stored), _LONGEST)}, now {shortened(json.dumps(now), _LONGEST)}"


def require_model(expected: Mapping[str, Any], loaded: LoadedModel) -> None:
    """Refuse a model that is not the run's.

    Raises:
        ModelError: Naming what differs.
    """
    if lines := model_differences(expected, model_facts(loaded)):
        raise ModelError(
            f"this worker's model is not that of the run ({'; '.join(lines)}): its files or its code changed since the run began, differ on "
            "this machine, or it is another one each time it is built; restore it and run the same command again"
        )


def names_digest(names: Sequence[str] | None) -> str | None:
    """Sha256 (hex) of class names in their order; None where the classes have no names."""
    return hashlib.sha256(json.dumps(list(names)).encode()).hexdigest() if names else None


def logits_agree(first: Sequence[float | None] | None, second: Sequence[float | None] | None) -> bool:
    """Whether two probes came from the same program."""
    return _distance(first, second) <= RELATIVE_TOLERANCE


def logits_difference(stored: Sequence[float | None] | None, now: Sequence[float | None] | None) -> str:
    """How two probes differ, for people."""
    if not stored or not now:
        return f"stored {'a probe' if stored else '(not set)'}, now {'a probe' if now else '(not set)'}"
    return f"the same images give other logits, by {_distance(stored, now):.2g} of the largest: the model computes something else"


def _distance(first: Sequence[float | None] | None, second: Sequence[float | None] | None) -> float:
    """Largest difference relative to the largest number; infinite where the two cannot be compared."""
    ours, theirs = first or (), second or ()
    if len(ours) != len(theirs) or any(
        (mine is None) != (yours is None) for mine, yours in zip(ours, theirs, strict=True)
    ):
        return math.inf
    pairs = [(mine, yours) for mine, yours in zip(ours, theirs, strict=True) if mine is not None and yours is not None]
    scale = max((abs(value) for pair in pairs for value in pair), default=0.0)
    return max((abs(mine - yours) for mine, yours in pairs), default=0.0) / scale if scale else 0.0
