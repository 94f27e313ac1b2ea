"""What an edge model is written for: ONNX Runtime, which runs anywhere, or ExecuTorch with XNNPACK, which phones use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from torch import nn

from ...errors import UsageError, did_you_mean
from ...workers.models.onnx_file import OnnxModule
from .executorch_export import ExecutorchModule, export_programs, require_executorch
from .onnx_export import export_float, export_int8, require_onnx

BackendName = Literal["onnx", "executorch"]
Export = Callable[[nn.Module, tuple[int, int, int], Sequence[np.ndarray], Path, Path], None]
"""(network, shape of its input, images to calibrate with, file of the float32 model, file of the int8 model)."""


@dataclass(frozen=True)
class Backend:
    """How a model is exported, and run again from its file."""

    title: str
    suffix: str
    """Of its files."""
    require: Callable[[], None]
    """Refuses where packages are missing."""
    export: Export
    load: Callable[[bytes, str, int], nn.Module]
    """(file, its name, threads) -> a module from images to logits."""


def export_onnx(
    module: nn.Module, shape: tuple[int, int, int], images: Sequence[np.ndarray], float_path: Path, int8_path: Path
) -> None:
    """Both ONNX files; see `export_float` and `export_int8`."""
    export_float(module, shape, float_path)
    export_int8(float_path, images, int8_path)


BACKENDS: dict[str, Backend] = {
    "onnx": Backend("ONNX", ".onnx", require_onnx, export_onnx, OnnxModule),
    "executorch": Backend("ExecuTorch", ".pte", require_executorch, export_programs, lambda data, _, threads: ExecutorchModule(data, threads)),
}  # fmt: skip


def find_backend(name: str) -> Backend:
    """Raises:
    UsageError: For an unknown name.
    """
    if name not in BACKENDS:
        known = get_args(BackendName)
        raise UsageError(f"--backend must be {' or '.join(known)}, got {name!r}{did_you_mean(name, known)}")
    return BACKENDS[name]
