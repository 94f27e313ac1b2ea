"""Models saved as programs: TorchScript (`model.pt`) and exported programs (`model.pt2`), by the path of the file.

Both become a graph of plain operations in which SISE finds its layers and through which gradients flow. A TorchScript file
that cannot be turned into one stays as it is: it can be scored, so methods that need neither layers nor gradients can explain it.
Loading either is running what the file says: give only files that you trust. What the file cannot say stands in a sidecar.
"""

from __future__ import annotations

import hashlib
import io
import logging
import warnings
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from ...errors import ModelError, SampleError
from ..images.preprocess import with_overrides
from ..protocols import SampleReader
from .built_model import FamilyModel
from .sidecar import read_sidecar, sidecar_of

SUFFIXES = (".pt", ".pt2", ".torchscript")
TRIED = 2
"""Images in the batch with which a program is followed; a batch of 1 would be taken for a constant."""


def load_program(
    path: str, reader: SampleReader | None = None, overrides: Mapping[str, Any] | None = None
) -> FamilyModel:
    """Load the file, and what its sidecar says.

    Args:
        path: Local path or URI.
        reader: Reads remote URIs.
        overrides: The user's preprocess settings, because a program is followed with inputs as they will be.

    Raises:
        ModelError: When it is missing, damaged, exported in training mode or for other inputs.
    """
    data = read_file(path, reader)
    side = read_file(sidecar_of(path), reader, may_lack=True)
    preprocess, names, origin = read_sidecar(path, side)
    wanted = with_overrides(preprocess, overrides or {})
    example = torch.rand(TRIED, wanted.channels, *wanted.size, generator=torch.Generator().manual_seed(0))
    module = (_exported if path.lower().endswith(".pt2") else _scripted)(path, data, example)
    return FamilyModel(module, preprocess, names, origin, hashlib.sha256(data).hexdigest())


def read_file(path: str, reader: SampleReader | None, *, may_lack: bool = False) -> Any:
    """The bytes of a local or remote file; None where there is none and that is allowed."""
    local = path.removeprefix("file://")
    try:
        if "://" not in local:
            return Path(local).expanduser().read_bytes()
        if reader is None:
            raise ModelError(f"{path} is not a local file; copy it here first")
        return reader.read(path)
    except (OSError, SampleError) as error:
        if may_lack:
            return None
        text = error.strerror if isinstance(error, OSError) else str(error)
        raise ModelError(f"cannot read the model {path}: {text}; check the path") from error


def _exported(path: str, data: bytes, example: Tensor) -> nn.Module:
    with _quiet():
        try:
            program = torch.export.load(io.BytesIO(data))
        except Exception as error:  # torch raises nearly anything on files of another kind
            raise ModelError(
                f"{path} is not an exported program that this torch {torch.__version__} can load: {_first(error)}"
            ) from error
        module = as_graph(program)
    training = next((node for node in module.graph.nodes if _in_training(node)), None)
    if training is not None:
        raise ModelError(
            f"{path} was exported in training mode ({training.name}); call model.eval() before torch.export.export"
        )
    if (why := _unfit(module.eval(), example)) is not None:
        raise ModelError(
            f"{path} does not take batches of any number of images of shape {tuple(example.shape[1:])} ({why}): set preprocess.size to "
            "what it was exported with, and export it with dynamic_shapes=({0: torch.export.Dim('batch')},)"
        )
    return module


def _unfit(module: nn.Module, example: Tensor) -> str | None:
    """Why the program cannot be run on batches of different sizes; None where it can, each image by itself."""
    try:
        with torch.no_grad():
            several, alone = module(torch.cat([example, example[:1]])), module(example[:1])
    except Exception as error:
        return _first(error)
    if not isinstance(several, Tensor) or not isinstance(alone, Tensor):
        return None  # what it returns instead is told where all models are looked at
    if len(several) != len(example) + 1 or not torch.allclose(several[:1], alone, rtol=1e-3, atol=1e-3):
        return "an image's output depends on the others in its batch"
    return None


def _scripted(path: str, data: bytes, example: Tensor) -> nn.Module:
    with _quiet():
        try:
            scripted = torch.jit.load(io.BytesIO(data), map_location="cpu").eval()
        except Exception as error:
            raise ModelError(
                f"{path} is not a TorchScript file: {_first(error)}. Weights alone need their architecture: "
                f"torchvision:NAME@{path}, timm:NAME@{path} or package.module:factory@{path}"
            ) from error
        return _as_python(scripted, example) or scripted


def _as_python(scripted: Any, example: Tensor) -> nn.Module | None:
    """The same computation as a graph that hooks and gradients reach; None where torch cannot make one of it."""
    try:
        from torch._export.converter import TS2EPConverter

        module = as_graph(TS2EPConverter(scripted, (example,), {}).convert())
        for name, value in scripted.named_parameters():
            owner, _, own = name.rpartition(".")
            holder = module.get_submodule(owner)
            del holder._buffers[own]
            holder.register_parameter(own, nn.Parameter(value.detach()))
        with torch.no_grad():
            for images in (example, example[:1], torch.cat([example, example])):
                if not torch.equal(module(images), scripted(images)):
                    return None
        return module.eval()
    except Exception:  # the converter is young and raises nearly anything
        return None


def as_graph(program: Any) -> fx.GraphModule:
    """An exported program as an ordinary module, without the checks of its input's shape."""
    module = program.module()
    for node in list(module.graph.nodes):
        if node.op == "call_module" and "guards" in str(node.target):
            module.graph.erase_node(node)
    return fx.GraphModule(module, module.graph)


def _in_training(node: fx.Node) -> bool:
    name = str(node.target)
    if name.startswith(("aten.dropout", "aten.feature_dropout")):
        return bool(node.args[2] if len(node.args) > 2 else node.kwargs.get("train", False))
    if name.startswith("aten.batch_norm"):
        return bool(node.args[5])
    return name.startswith(("aten._native_batch_norm_legit_functional", "aten.native_dropout"))


@contextmanager
def _quiet():
    """TorchScript is deprecated and its conversion warns much; neither concerns the user."""
    level = logging.getLogger("torch").level
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logging.getLogger("torch").setLevel(logging.ERROR)
            yield
    finally:
        logging.getLogger("torch").setLevel(level)


def _first(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]
