"""Write a network as ExecuTorch programs for XNNPACK, in float32 and as int8 (PT2E: static, symmetric, per channel, calibrated on images)."""

# ExecuTorch and torchao are in no environment of the tests
# pyright: reportMissingImports=false

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ...engine.layers.outputs import logits_of
from ...errors import ModelError, UsageError
from .onnx_export import LogitsAlone


def require_executorch() -> None:
    """Raises:
    UsageError: If the extra `executorch` is missing.
    """
    try:
        with _quiet():
            import executorch.runtime  # noqa: F401
            import torchao.quantization.pt2e.quantize_pt2e  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"--backend executorch needs the extra `executorch` ({error.name or error} is missing): pip install 'heatlas[executorch]'; or take "
            "--backend onnx"
        ) from None


def export_programs(
    module: nn.Module,
    shape: tuple[int, int, int],
    images: Sequence[np.ndarray],
    float_path: str | os.PathLike[str],
    int8_path: str | os.PathLike[str],
) -> None:
    """Write the network for one image at a time, as it is and quantised.

    Args:
        module: From `(batch, channel, height, width)` to logits, in eval mode.
        shape: Channels, height and width of the network's input.
        images: Network inputs `(channel, height, width)`, float32, at least one: they show the ranges of activations.
        float_path: Local file to write.
        int8_path: Another.

    Raises:
        ModelError: If it cannot be exported or quantised.
    """
    example = (torch.zeros(1, *shape),)
    try:
        with _quiet(), torch.no_grad():
            Path(float_path).write_bytes(_lowered(LogitsAlone(module).eval(), example))
            Path(int8_path).write_bytes(_lowered(_quantised(LogitsAlone(module).eval(), example, images), example))
    except Exception as error:  # each of the many stages raises what it likes
        lines = str(error).strip().splitlines() or [""]
        raise ModelError(
            f"the model cannot be written for ExecuTorch: {type(error).__name__}: {lines[0][:300]}"
        ) from error


def _quantised(module: nn.Module, example: tuple[torch.Tensor], images: Sequence[np.ndarray]) -> nn.Module:
    from executorch.backends.xnnpack.quantizer import xnnpack_quantizer
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    kind = xnnpack_quantizer.get_symmetric_quantization_config(is_per_channel=True, is_dynamic=False)
    quantizer = xnnpack_quantizer.XNNPACKQuantizer().set_global(kind)
    prepared = prepare_pt2e(torch.export.export(module, example).module(), quantizer)
    for image in images:
        prepared(torch.from_numpy(np.array(image))[None])
    return convert_pt2e(prepared)


def _lowered(module: nn.Module, example: tuple[torch.Tensor]) -> bytes:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    program = to_edge_transform_and_lower(torch.export.export(module, example), partitioner=[XnnpackPartitioner()])
    return program.to_executorch().buffer


class ExecutorchModule(nn.Module):
    """A program that takes one image, run for each image of a batch.

    Args:
        data: The file's bytes.
        threads: Of one inference; the last module made decides for all of the process.

    Raises:
        ModelError: If ExecuTorch cannot load it.
    """

    def __init__(self, data: bytes, threads: int):
        super().__init__()
        try:
            with _quiet():
                from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
                from executorch.runtime import Runtime

                _unsafe_reset_threadpool(threads)
                self._data = data  # the program reads its weights from there
                self._method = Runtime.get().load_program(data).load_method("forward")
        except RuntimeError as error:
            raise ModelError(f"ExecuTorch cannot load the program: {error}") from error

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits on the CPU, without gradients."""
        rows = images.detach().cpu().float().contiguous().split(1)
        return torch.cat([logits_of(list(self._run(row))).clone() for row in rows])

    def _run(self, image: torch.Tensor) -> Any:
        return self._method.execute([image])  # pyright: ignore[reportOptionalMemberAccess]


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporters warn and log about their own insides."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
