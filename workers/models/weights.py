"""Weight files: read without running anything they contain, and fitted to a module with every disagreement named."""

from __future__ import annotations

import argparse
import hashlib
import json
import pathlib
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from ...errors import ModelError, SampleError
from ..images.preprocess import Preprocess
from ..protocols import SampleReader

WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".pth.tar", ".ckpt", ".bin", ".tar")
"""Endings by which a file of weights is told from the name of published ones; what it holds is seen from its content."""
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "model_state_dict_ema", "params_ema", "ema")
"""Wrappers of averaged weights (EMA), which timm's loader takes and torchvision's scripts evaluate where there are both."""
_WRAPPERS = (*_AVERAGED, "state_dict", "model_state_dict", "model", "net", "network", "params")
_PREFIXES = ("module.", "_orig_mod.")
_OUTER_PREFIXES = ("model.", "backbone.", "net.", "network.")
"""Prefixes of a training program's own wrapper, which are dropped where the module has no such part."""
_BESIDE = ("n_averaged",)
"""Entries beside the weights that torch's AveragedModel writes."""
_COUNTER = ".num_batches_tracked"
_NAMED = 5
"""Keys named of each kind of disagreement; the rest is counted."""

StateDict = dict[str, Tensor]


@dataclass(frozen=True)
class WeightsFile:
    """What a file of weights holds."""

    tensors: StateDict
    notes: tuple[str, ...] = ()
    """What was chosen or dropped, for the user to read."""


def read_weights(uri: str, reader: SampleReader | None = None, *, outer: bool = False) -> WeightsFile:
    """The tensors of a file, whatever its name: safetensors, or what `torch.save` wrote, loaded with `weights_only=True`.

    A training checkpoint that wraps the tensors is unwrapped, averaged weights (EMA) before raw ones; prefixes that all names share are
    dropped: those of DistributedDataParallel and `torch.compile`, and with `outer` those of a training program's wrapper.

    Args:
        uri: Local path or `file://` URI; anything else is read through `reader`.
        reader: Reads remote URIs.
        outer: Whether `model.`, `backbone.` and the like are dropped too.

    Raises:
        ModelError: When the file is missing, damaged, or holds anything but tensors and plain values.
    """
    data = read_file(uri, reader, "weights")
    content = safetensors_of(uri, data) if _is_safetensors(uri, data) else _torch_file(uri, data)
    tensors, notes = _unwrapped(content, uri)
    if not tensors:
        raise ModelError(
            f"{uri} holds no state dict (tensors by name){_keys_of(content)}; save one with torch.save(model.state_dict(), path)"
        )
    tensors = {name: tensor for name, tensor in tensors.items() if name not in _BESIDE}
    tensors, dropped = _without_prefix(tensors, (*_PREFIXES, *_OUTER_PREFIXES) if outer else _PREFIXES)
    if any(prefix in _OUTER_PREFIXES for prefix in dropped):
        notes.append(f"{uri}: the prefix {''.join(dropped)!r} that all names share is dropped")
    return WeightsFile(tensors, tuple(notes))


def _is_safetensors(uri: str, data: bytes) -> bool:
    """By content: a length, then JSON. By name where the content is neither this nor what torch writes, so that the error says so."""
    if data[:2] == b"PK" or data[:1] == b"\x80":
        return False
    return uri.lower().endswith(".safetensors") or data[8:9] == b"{"


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
        _listed(
            "of another type",
            [
                f"{name} {weights[name].dtype} where the model has {own[name].dtype}"
                for name in own
                if name in weights and own[name].is_floating_point() and not weights[name].is_floating_point()
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


_OF_FILES = ("levels", "clip_levels", "level_kind", "bands")
"""Settings that say how files are read, and nothing of the model."""
_NEWER = {"channel_order": "rgb", "processor": ""}
"""Settings that came later, with the values for which a digest is what it was before."""


def model_digest(module: nn.Module, preprocess: Preprocess, code: str = "") -> str:
    """Sha256 (hex) over the sorted names, dtypes, shapes and bytes of the module's state, and the preprocessing.

    `code` stands for what the module computes where its state does not tell.
    """
    said = {
        name: value for name, value in asdict(preprocess).items() if name not in _OF_FILES and _NEWER.get(name) != value
    }
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode() + code.encode())
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
        with torch.serialization.safe_globals(_harmless()):
            return torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = _unsafe_globals(data)
        if whole := [
            name for name in named if name.startswith(("torch.nn.modules.", "torchvision.models.", "timm.models."))
        ]:
            raise ModelError(
                f"{uri} is a whole pickled model (it names {whole[0]}), which loading would run; nothing in it was run. Save "
                "model.state_dict() alone, best as .safetensors"
            ) from error
        objects = f": {', '.join(named[:_NAMED])}" if named else f" ({_first_sentence(error)})"
        raise ModelError(
            f"{uri} is refused: it is damaged, or holds Python objects that would run code when loaded, not only tensors"
            f"{objects}. Nothing in it was run; save model.state_dict() alone, best as .safetensors"
        ) from error
    except Exception as error:  # torch raises nearly anything on files of another kind
        raise ModelError(f"{uri} is not a file of weights that torch can load: {_first_sentence(error)}") from error


def _harmless() -> list[Any]:
    """Plain values that checkpoints hold beside tensors, which run nothing: arguments of a program, paths, NumPy numbers."""
    numbers = [np.dtype, np.ndarray, *{type(np.dtype(kind)) for kind in "?bhilqBHILQefd"}]
    return [argparse.Namespace, pathlib.PosixPath, pathlib.PurePosixPath, *_NUMPY_MAKERS, *numbers]


_NUMPY_MAKERS = (np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0])
"""What NumPy's pickles call to make a number and an array of plain numbers."""


def _unsafe_globals(data: bytes) -> list[str]:
    try:
        with torch.serialization.safe_globals(_harmless()):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(BytesIO(data)))
    except Exception:  # a damaged file, or one in torch's old format
        return []


def _unwrapped(content: object, uri: str) -> tuple[StateDict, list[str]]:
    if not isinstance(content, Mapping):
        return {}, []
    wrapped = {name: inner for name in _WRAPPERS if (inner := _inside(content.get(name))) is not None}
    if not wrapped:
        return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}, []
    chosen, *others = wrapped
    others += [str(name) for name, value in content.items() if name not in wrapped and _has_tensors(value)]
    notes = []
    beside = f" and not {', '.join(map(repr, others))}" if others else ""
    if chosen in _AVERAGED:
        notes.append(f"{uri}: the averaged weights {chosen!r} are taken{beside}")
    elif others:
        notes.append(f"{uri}: the weights {chosen!r} are taken{beside}")
    return {str(name): value for name, value in wrapped[chosen].items() if isinstance(value, Tensor)}, notes


def _inside(value: object) -> Mapping[Any, Any] | None:
    """The tensors by name in a wrapper, or in a wrapper in it."""
    if not isinstance(value, Mapping):
        return None
    if _has_tensors(value):
        return value
    return next((value[name] for name in (*_WRAPPERS, "module") if _has_tensors(value.get(name))), None)


def _has_tensors(value: object) -> bool:
    return isinstance(value, Mapping) and any(isinstance(inner, Tensor) for inner in value.values())


def _keys_of(content: object) -> str:
    """What a checkpoint of an unknown kind has, for a message."""
    if not isinstance(content, Mapping):
        return f", it holds a {type(content).__name__}"
    inside = [
        f"{name} (tensors: {', '.join(map(str, list(value)[:2]))}, ...)"
        for name, value in content.items()
        if _has_tensors(value)
    ]
    names = ", ".join(inside or [str(name) for name in list(content)[: 2 * _NAMED]])
    return f"; its keys are {names}" if names else ""


def _without_prefix(weights: StateDict, prefixes: Sequence[str]) -> tuple[StateDict, list[str]]:
    """The weights without prefixes that all share, and which were dropped, outermost first."""
    for prefix in prefixes:
        if weights and all(name.startswith(prefix) for name in weights):
            inner, dropped = _without_prefix(
                {name.removeprefix(prefix): tensor for name, tensor in weights.items()}, prefixes
            )
            return inner, [prefix, *dropped]
    return weights, []


def _listed(kind: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{len(names)} {kind} ({', '.join(names[:_NAMED])}{more})"


def _first_sentence(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text.split(". ", 1)[0]
