"""A tensor that a user keeps in a safetensors file, for methods that need more than the model."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ..errors import SettingsError


def read_tensor(path: str, name: str, *, axes: int) -> torch.Tensor:
    """The tensor of that name, float32.

    Raises:
        SettingsError: When the file is no safetensors file, lacks the tensor, or the tensor is not finite or has other axes.
    """
    if not Path(path).is_file():
        raise SettingsError(f"{path} is no file; it must be a safetensors file with a tensor {name!r}")
    try:
        with safe_open(path, framework="pt") as held:
            names = list(held.keys())
            values = held.get_tensor(name) if name in names else None
    except SafetensorError as error:
        raise SettingsError(f"{path} is no safetensors file: {error}") from error
    if values is None:
        raise SettingsError(f"{path} has no tensor {name!r}; it holds {', '.join(names) or 'nothing'}")
    if values.ndim != axes or values.numel() == 0 or not bool(values.float().isfinite().all()):
        raise SettingsError(f"{name} in {path} must be finite numbers with {axes} axes, got {tuple(values.shape)}")
    return values.float()
