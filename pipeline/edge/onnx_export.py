"""Write a network as ONNX, in float32 and as int8 (static quantisation, QDQ, per channel, calibrated on images)."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ...engine.layers.outputs import logits_of
from ...errors import ModelError, UsageError

INPUT, OUTPUT = "image", "logits"
EXAMPLE_IMAGES = 2
"""In the batch that is traced; 1 would be taken for a constant."""
_NOISY_LOGGERS = ("torch.onnx", "onnxscript", "onnx_ir", "root")


class LogitsAlone(nn.Module):
    """The network with its logits alone as output."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return logits_of(self.network(image))


def require_onnx() -> None:
    """Raises:
    UsageError: If the extra `edge` is missing.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"heatlas edge needs the extra `edge` ({error.name} is missing): pip install 'heatlas[edge]'"
        ) from None


def export_float(module: nn.Module, shape: tuple[int, int, int], path: str | os.PathLike[str]) -> None:
    """Write the network as it is, with any number of images in a batch.

    Args:
        module: From `(batch, channel, height, width)` to logits, in eval mode.
        shape: Channels, height and width of the network's input.
        path: Local file.

    Raises:
        ModelError: If the network cannot be exported.
    """
    example = torch.zeros(EXAMPLE_IMAGES, *shape)
    try:
        with _quiet_exporters():
            torch.onnx.export(
                LogitsAlone(module).eval(), (example,), os.fspath(path), dynamo=True, input_names=[INPUT], output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},), external_data=False, verbose=False,
            )  # fmt: skip
    except Exception as error:  # the exporter raises what its many stages raise
        lines = str(error).strip().splitlines() or [""]
        raise ModelError(f"the model cannot be written as ONNX: {type(error).__name__}: {lines[0][:300]}") from error
    _strip(path)


def export_int8(source: str | os.PathLike[str], images: Iterable[np.ndarray], path: str | os.PathLike[str]) -> None:
    """Quantise a float32 ONNX model: weights int8 per output channel, activations uint8 with ranges seen on the images.

    Args:
        source: Local file of the float32 model.
        images: Network inputs `(channel, height, width)`, float32, at least one.
        path: Local file to write.

    Raises:
        ModelError: If it cannot be quantised.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = Path(f"{os.fspath(path)}.prepared")
    try:
        with _quiet_exporters():
            quant_pre_process(os.fspath(source), os.fspath(prepared))
            quantize_static(
                os.fspath(prepared), os.fspath(path), _calibration_reader(images), quant_format=QuantFormat.QDQ, per_channel=True,
                weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8,
            )  # fmt: skip
    except Exception as error:  # as above
        raise ModelError(f"the model cannot be quantised: {type(error).__name__}: {error}") from error
    finally:
        prepared.unlink(missing_ok=True)
    _strip(path)


def _strip(path: str | os.PathLike[str]) -> None:
    """Take out what the exporters note for debugging: stack traces with paths of this machine, and shapes that follow from the graph."""
    import onnx

    model = onnx.load(os.fspath(path))
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    del graph.value_info[:]
    onnx.save(model, os.fspath(path))


def _calibration_reader(images: Iterable[np.ndarray]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class ImageReader(CalibrationDataReader):
        """Gives one image at a time."""

        def __init__(self) -> None:
            self._images: Iterator[np.ndarray] = iter(images)

        def get_next(self) -> Any:
            image = next(self._images, None)
            return None if image is None else {INPUT: image[None]}

    return ImageReader()


@contextmanager
def _quiet_exporters() -> Iterator[None]:
    """The exporters warn and log about their own insides."""
    loggers = [logging.getLogger(None if name == "root" else name) for name in _NOISY_LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
