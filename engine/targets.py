"""Targets of a batch: what a caller gives, as one class per image."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import TargetError
from .lazy_torch import torch
from .scoring.object_scenes import ObjectTarget


def target_list(targets: torch.Tensor | Sequence[int] | int | None, count: int) -> list[int | None]:
    """One target per image.

    Raises:
        TargetError: When the number of targets is not the number of images.
    """
    if targets is None:
        return [None] * count
    if isinstance(targets, int):
        return [targets] * count
    listed = (
        targets.tolist()
        if isinstance(targets, torch.Tensor)
        else [target if isinstance(target, ObjectTarget) else int(target) for target in targets]
    )
    if not isinstance(listed, list) or len(listed) != count:
        raise TargetError(f"targets must hold one class index for each of the {count} images, got {targets!r}")
    return list(listed)
