"""What of a model's output the class scores are: many models return a tuple or a dict around their logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from ...errors import ModelError
from ..lazy_torch import torch

Kind = TypeVar("Kind")
PREFERRED_KEYS = ("logits", "out")


def first_of(output: Any, kind: type[Kind]) -> Kind | None:
    """The first value of type `kind` in a model's output, looking into tuples, lists and mappings; None without one.

    Mappings are read by the keys that Transformers (`logits`) and torchvision's segmentation models (`out`) use, then in
    their own order.
    """
    if isinstance(output, kind):
        return output
    if isinstance(output, Mapping):
        output = [output[key] for key in PREFERRED_KEYS if key in output] + list(output.values())
    if isinstance(output, tuple | list):
        parts = (first_of(part, kind) for part in output)
        return next((part for part in parts if part is not None), None)
    return None


def wide(values: torch.Tensor) -> torch.Tensor:
    """In float32 at least."""
    return values if values.dtype == torch.float64 else values.float()


def logits_of(output: Any) -> torch.Tensor:
    """The logits in what a model returned: `(batch, class)` for a classifier.

    Raises:
        ModelError: If the output holds no tensor of at least two axes.
    """
    logits = first_of(output, torch.Tensor)
    if logits is None or logits.ndim < 2:
        given = f"a {type(output).__name__}" if logits is None else f"a tensor of shape {tuple(logits.shape)}"
        raise ModelError(
            f"the model returned {given}, but class scores of shape (batch, class) are needed; "
            "wrap the model so that its forward returns the logits"
        )
    return logits
