"""What a loaded model is known by, wherever it is loaded: weights, class names, and what it computes for two fixed images.

The driver writes these facts into the run's fingerprint; every worker compares its own before its first image.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ...engine.layers.outputs import logits_of
from ...errors import ModelError, shortened
from ..images.preprocess import Preprocess

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
KEPT = 64
"""Numbers kept of the logits of one image; more logits are added up in so many groups with fixed random signs."""
_DIGITS = 6
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


def model_differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """A line about every expected fact that was found otherwise."""
    return [
        difference_text(key, expected[key], found.get(key))
        for key in expected
        if not facts_agree(key, expected[key], found.get(key))
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


def probe_logits(module: nn.Module, preprocess: Preprocess, spec: str) -> tuple[float | None, ...]:
    """What a model makes of two fixed images, noise and a smooth pattern, on the CPU in fp32.

    Args:
        module: In eval mode, on the CPU.
        preprocess: Says the size of its input.
        spec: What the user calls it.

    Returns:
        At most `KEPT` numbers an image, 6 digits each; None for what is not finite.

    Raises:
        ModelError: If the model fails on them.
    """
    try:
        with torch.no_grad():
            logits = logits_of(module(_probe_images(preprocess)))
    except Exception as error:
        raise ModelError(f"{spec} fails on an image of noise: {' '.join(str(error).split())}") from error
    numbers = [value for row in logits.detach().float().flatten(1) for value in _grouped(row).tolist()]
    return tuple(float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None for value in numbers)


def _probe_images(preprocess: Preprocess) -> Tensor:
    generator = torch.Generator().manual_seed(15)
    noise = torch.rand(1, preprocess.channels, *preprocess.size, generator=generator) * 2 - 1
    coarse = torch.rand(1, preprocess.channels, 4, 4, generator=generator) * 4 - 2
    smooth = interpolate(coarse, size=tuple(preprocess.size), mode="bilinear", align_corners=False)
    return torch.cat([noise, smooth])


def _grouped(values: Tensor) -> Tensor:
    """`(number,)` to at most `KEPT` numbers; every value goes into one of them, so a change of any is seen."""
    if len(values) <= KEPT:
        return values
    signs = torch.randint(0, 2, values.shape, generator=torch.Generator().manual_seed(15)) * 2 - 1
    groups = torch.zeros(KEPT, dtype=torch.float64)
    return groups.index_add_(0, torch.arange(len(values)) % KEPT, (values * signs).double())


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
        (one is None) != (other is None) for one, other in zip(ours, theirs, strict=True)
    ):
        return math.inf
    pairs = [(one, other) for one, other in zip(ours, theirs, strict=True) if one is not None and other is not None]
    scale = max((abs(value) for pair in pairs for value in pair), default=0.0)
    return max((abs(one - other) for one, other in pairs), default=0.0) / scale if scale else 0.0
