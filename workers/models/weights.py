"""Weight files: read without running anything they contain, and fitted to a module with every disagreement named."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from io import BytesIO
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from ...errors import ModelError, SampleError
from ..images.preprocess import Preprocess
from ..protocols import SampleReader

WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt")
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")
_COUNTER = ".num_batches_tracked"
_NAMED = 5
"""Keys named of each kind of disagreement; the rest is counted."""

StateDict = dict[str, Tensor]


def read_weights(uri: str, reader: SampleReader | None = None) -> StateDict:
    """The tensors of a `.safetensors`, `.pth` or `.pt` file.

    `.pth` and `.pt` are loaded with `weights_only=True`. A training checkpoint that wraps the tensors as `state_dict`,
    `model_state_dict` or `model` is unwrapped; the prefixes of DistributedDataParallel and `torch.compile` are dropped.

    Args:
        uri: Local path or `file://` URI; anything else is read through `reader`.
        reader: Reads remote URIs.

    Raises:
        ModelError: When the file is missing, damaged, or holds anything but tensors and plain values.
    """
    data = read_file(uri, reader, "weights")
    content = safetensors_of(uri, data) if uri.lower().endswith(".safetensors") else _torch_file(uri, data)
    tensors = _unwrapped(content)
    if not tensors:
        raise ModelError(
            f"{uri} holds no state dict (tensors by name); save one with torch.save(model.state_dict(), path)"
        )
    return _without_prefix(tensors)


def read_file(uri: str, reader: SampleReader | None, what: str, remedy: str = "check the path") -> bytes:
    """The whole file.

    Args:
        uri: Local path or `file://` URI; anything else is read through `reader`.
        reader: Reads remote URIs.
        what: It is, for messages.
        remedy: For a local file that cannot be read.

    Raises:
        ModelError: When it cannot be read.
    """
    path = uri.removeprefix("file://")
    if "://" not in path:
        try:
            return Path(path).expanduser().read_bytes()
        except OSError as error:
            raise ModelError(f"cannot read the {what} {path}: {error.strerror}; {remedy}") from error
    if reader is None:
        raise ModelError(f"cannot read the {what} {uri}: it is not a local file; copy the file here first")
    try:
        return reader.read(uri)
    except SampleError as error:
        raise ModelError(f"cannot read the {what} {uri}: {error.text}") from error


def fit(module: nn.Module, weights: StateDict, origin: str) -> None:
    """Load `weights` into `module`, all of them and nothing else (only BatchNorm's batch counters may be absent).

    Raises:
        ModelError: Naming missing and unexpected keys and both shapes where they differ.
    """
    own = module.state_dict()
    weights = {**{name: own[name] for name in own if name.endswith(_COUNTER)}, **weights}
    problems = [
        _listed("missing", [name for name in own if name not in weights]),
        _listed("unexpected", [name for name in weights if name not in own]),
        _listed(
            "of another shape",
            [
                f"{name} {tuple(weights[name].shape)} where the model has {tuple(own[name].shape)}"
                for name in own
                if name in weights and weights[name].shape != own[name].shape
            ],
        ),
    ]
    if any(problems):
        raise ModelError(
            f"the weights in {origin} do not fit the model: {'; '.join(filter(None, problems))}. "
            "Check that the file was saved from this architecture"
        )
    own.update(weights)  # into the module's own dict, for it knows the modules' versions, without which MNASNet refuses
    module.load_state_dict(own, strict=True)


def model_digest(module: nn.Module, preprocess: Preprocess, code: str = "") -> str:
    """Sha256 (hex) over the sorted names, dtypes, shapes and bytes of the module's state, and the preprocessing.

    `code` stands for what the module computes where its state does not tell.
    """
    digest = hashlib.sha256(json.dumps(asdict(preprocess), sort_keys=True).encode() + code.encode())
    for name, value in sorted(module.state_dict().items()):
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        else:  # a module's own extra state
            digest.update(f"{name} {value!r}\n".encode())
    return digest.hexdigest()


def safetensors_of(uri: str, data: bytes) -> StateDict:
    """The tensors in the bytes of a safetensors file.

    Raises:
        ModelError: When they are none.
    """
    try:
        return load_safetensors(data)
    except SafetensorError as error:
        raise ModelError(f"{uri} is not a readable safetensors file: {error}") from error


def _torch_file(uri: str, data: bytes) -> object:
    try:
        return torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{uri} is refused: it is damaged, or holds Python objects that would run code when loaded, not only tensors "
            f"({_first_sentence(error)}). Nothing in it was run; save model.state_dict() alone, best as .safetensors"
        ) from error
    except Exception as error:  # torch raises nearly anything on files of another kind
        raise ModelError(f"{uri} is not a file of weights that torch can load: {_first_sentence(error)}") from error


def _unwrapped(content: object) -> StateDict:
    if not isinstance(content, Mapping):
        return {}
    wrapped = (content[name] for name in _WRAPPERS if isinstance(content.get(name), Mapping))
    content = next(wrapped, content)
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _without_prefix(weights: StateDict) -> StateDict:
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in weights):
            return _without_prefix({name.removeprefix(prefix): tensor for name, tensor in weights.items()})
    return weights


def _listed(kind: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{len(names)} {kind} ({', '.join(names[:_NAMED])}{more})"


def _first_sentence(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text.split(". ", 1)[0]
