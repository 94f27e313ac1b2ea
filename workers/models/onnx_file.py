"""ONNX files (`model.onnx`) as models, by the path of the file: forward passes only, on the CPU, by ONNX Runtime.

A graph in ONNX has no gradients and no layers that hooks reach, so methods that need neither can explain it. The file is data: nothing in
it is run but operators that ONNX Runtime brings. What it cannot say stands in a sidecar, as for programs.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...engine.layers.outputs import PREFERRED_KEYS
from ...errors import ModelError
from ..images.preprocess import Preprocess, with_overrides
from ..protocols import SampleReader
from .built_model import FamilyModel
from .exported import read_file
from .input_channels import refuse_other_channels
from .optional_package import require_package
from .sidecar import read_sidecar, sidecar_of

SUFFIX = ".onnx"
_FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


class OnnxModule(nn.Module):
    """A graph that takes images `(batch, channel, height, width)`, in a session of ONNX Runtime that each process makes for itself.

    Args:
        data: The file's bytes.
        name: What the user calls it, for messages.
        threads: Of one operator; None for as many as torch has in this process.

    Raises:
        ModelError: If ONNX Runtime cannot load it, it does not take one tensor of images, none of its outputs or more than one could be
            the logits, or it keeps weights in other files.
    """

    def __init__(self, data: bytes, name: str, threads: int | None = None):
        super().__init__()
        self._data, self._name, self._threads = data, name, threads
        self._session: Any = None
        _refuse_other_files(data, name)
        inputs = self.session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in _FLOATS:
            raise ModelError(
                f"{name} must take one tensor of images (batch, channel, height, width) of floating-point numbers, it takes {_stated(inputs)}"
            )
        if _is_channels_last(inputs[0].shape):
            raise ModelError(
                f"{name} takes {_stated(inputs)}, channels last; export it for (batch, channel, height, width), with tf2onnx by --inputs-as-nchw"
            )
        self.shape: tuple[int | None, ...] = tuple(
            side if isinstance(side, int) and side > 0 else None for side in inputs[0].shape
        )
        """Batch, channels, height and width where the file fixes them."""
        self.output = _logits_name(self.session.get_outputs(), name)
        self._input, self._kind = inputs[0].name, _FLOATS[inputs[0].type]

    @property
    def session(self) -> Any:
        """Of this process."""
        if self._session is None:
            self._session = _open_session(self._data, self._name, self._threads or torch.get_num_threads())
        return self._session

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": None}

    def forward(self, images: Tensor) -> Tensor:
        """The graph's output, on the images' device; it carries no gradient."""
        pixels = np.ascontiguousarray(images.detach().cpu().float().numpy(), self._kind)
        fixed = self.shape[0]
        batches = [pixels] if fixed is None else list(_batches_of(pixels, fixed))
        outputs = [self.session.run([self.output], {self._input: batch})[0] for batch in batches]
        output = outputs[0] if len(outputs) == 1 else np.concatenate(outputs)
        return torch.from_numpy(output[: len(pixels)]).float().to(images.device)


def load_onnx(path: str, reader: SampleReader | None = None, overrides: Mapping[str, Any] | None = None) -> FamilyModel:
    """Load the file, and what its sidecar says; where neither says the input's size, the file's own is taken.

    Args:
        path: Local path or URI.
        reader: Reads remote URIs.
        overrides: The user's preprocess settings.

    Raises:
        ModelError: When it is missing, damaged, or no model of images; when the extra `edge` is not installed.
    """
    require_package("onnxruntime", "edge", path)
    require_package("onnx", "edge", path)
    data = read_file(path, reader)
    side = read_file(sidecar_of(path), reader, may_lack=True)
    preprocess, names, origin = read_sidecar(path, side)
    module = OnnxModule(data, path)
    if preprocess == Preprocess():
        preprocess, origin = _stated_by(module, preprocess), origin if side is not None else "the file's input"
    own = with_overrides(preprocess, overrides or {})
    if module.shape[1] is not None:
        refuse_other_channels(module.shape[1], own, path, "its input")
    _refuse_other_size(module, own, path)
    return FamilyModel(module.eval(), preprocess, names, origin, hashlib.sha256(data).hexdigest())


def _stated_by(module: OnnxModule, preprocess: Preprocess) -> Preprocess:
    """With the input's size; nobody but the user knows the mean and spread of other channels than three."""
    height, width = module.shape[2:]
    return preprocess if height is None or width is None else with_overrides(preprocess, {"size": (height, width)})


def _refuse_other_size(module: OnnxModule, preprocess: Preprocess, path: str) -> None:
    for name, fixed, side in zip(("height", "width"), module.shape[2:], preprocess.size, strict=True):
        if fixed is not None and fixed != side:
            raise ModelError(
                f"{path} takes images of {name} {fixed}, preprocessing makes {side}: set preprocess.size to what it was exported with"
            )


def _is_channels_last(shape: Sequence[int | str | None]) -> bool:
    """Whether the last side is that of a pixel's colours and the second is not."""
    _, second, third, last = shape
    return last in (1, 3, 4) and second not in (1, 3, 4) and third != last


def _logits_name(outputs: Sequence[Any], name: str) -> str:
    """The output to take: the one that is called so, else the only one that can be logits."""
    floats = [output.name for output in outputs if output.type in _FLOATS]
    named = [key for key in PREFERRED_KEYS if key in floats]
    if named or len(floats) == 1:
        return (named or floats)[0]
    said = "none of which can be logits" if not floats else "and which are the logits is not said"
    raise ModelError(
        f"{name} gives {_stated(outputs)}, {said}: export it with one output of floating-point numbers, or name the one to take "
        f"{' or '.join(PREFERRED_KEYS)} (torch.onnx.export(..., output_names=[...]))"
    )


def _stated(entries: Sequence[Any]) -> str:
    """Inputs or outputs, for messages."""
    return ", ".join(f"{entry.name} {entry.type} {entry.shape}" for entry in entries) or "nothing"


def _batches_of(pixels: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Batches of exactly this size, the last one filled up with zeros."""
    for start in range(0, len(pixels), size):
        batch = pixels[start : start + size]
        lacking = size - len(batch)
        yield np.concatenate([batch, np.zeros((lacking, *batch.shape[1:]), batch.dtype)]) if lacking else batch


def _open_session(data: bytes, name: str, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # errors are raised, and told by whoever catches them
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has an exception for each kind of damage
        raise ModelError(
            f"{name} is not an ONNX file that ONNX Runtime {onnxruntime.__version__} can load ({_versions_of(data)}): {_first_line(error)}; export it "
            "with an older opset (torch.onnx.export(..., opset_version=18)) and standard operators, or install a newer onnxruntime"
        ) from error


def _refuse_other_files(data: bytes, name: str) -> None:
    """Weights in further files are refused: the bytes that are loaded name them, wherever they lie."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise ModelError(f"{name} is not an ONNX file: {_first_line(error)}") from error
    tensors = [*_tensors_of(model.graph), *(tensor for function in model.functions for tensor in _tensors_in(function))]
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors):
        raise ModelError(
            f"{name} keeps weights in other files, which are not read; export it into one file (torch.onnx.export(..., external_data=False))"
        )


def _tensors_of(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _tensors_in(graph)


def _tensors_in(part: Any) -> Iterator[Any]:
    """Tensors that nodes of a graph or function bring."""
    for node in part.node:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for inner in (attribute.g, *attribute.graphs):
                if inner.node or inner.initializer or inner.sparse_initializer:
                    yield from _tensors_of(inner)


def _versions_of(data: bytes) -> str:
    """What the file was made for."""
    import onnx

    model = onnx.load_model_from_string(data)
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), None)
    return f"opset {opset or 'not said'}, IR version {model.ir_version}"


_IN_RUNTIME = re.compile(r"/onnxruntime_src/\S+:\d+ .*?\) (?=[A-Z])")
"""Place and signature in the sources of ONNX Runtime, before what it says."""


def _first_line(error: Exception) -> str:
    return (_IN_RUNTIME.sub("", str(error)).strip().splitlines() or [type(error).__name__])[0][:300]
