"""`package.module:factory[@WEIGHTS]`: the user's own code builds the model.

The factory is called without arguments and returns an `nn.Module` that maps `(batch, channel, height, width)` to logits
`(batch, class)`. Two attributes of the module are honoured where they exist:

- `class_names`: a sequence of strings;
- `preprocess`: a mapping with any of the preprocess settings (`size`, `mean`, ...), a torchvision `ImageClassification`
  preset (`weights.transforms()`), or a `Preprocess`. Without it: 224 x 224 from the centre, ImageNet's mean and std.

WEIGHTS, a `.safetensors`, `.pth` or `.pt` file, replaces whatever weights the factory gave the module.
Importing and calling it is running code: give only names that you trust.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from torch import nn

from ...errors import ModelError, SettingsError, did_you_mean
from ..images.preprocess import Preprocess, preprocess_from_preset, with_overrides
from ..protocols import SampleReader
from .built_model import UNSTATED, FamilyModel
from .model_source import source_digest
from .weights import fit, read_weights


def load_factory(spec: str, reader: SampleReader | None = None) -> FamilyModel:
    """Import the module, call the factory, load weights if they are named, and read the two optional attributes.

    Args:
        spec: What the user wrote, `package.module:factory[@WEIGHTS]`.
        reader: Reads weights at remote URIs.

    Raises:
        ModelError: When the module or the factory is missing or fails, what it returns is no `nn.Module`, or the weights do
            not fit it.
    """
    spec, _, weights = spec.partition("@")
    module_name, _, name = spec.partition(":")
    module = import_user_module(module_name)
    factory = module_attribute(module, name, module_name)
    if not callable(factory) or isinstance(factory, nn.Module):
        raise ModelError(f"{spec} is {_kind(factory)}, not a function to call; write one that returns the model")
    try:
        model = factory()
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{spec}() failed: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"{spec}() must return a torch.nn.Module, it returned {_kind(model)}")
    notes: tuple[str, ...] = ()
    if weights:
        file = read_weights(weights, reader)
        if not file.tensors.keys() & model.state_dict().keys():
            file = read_weights(weights, reader, outer=True)
        fit(model, file.tensors, weights)
        notes = file.notes
    origin = UNSTATED if getattr(model, "preprocess", None) is None else f"attribute `preprocess` of {spec}()"
    return FamilyModel(
        model,
        _preprocess(model, spec),
        _class_names(model, spec),
        origin,
        notes=notes,
        source=source_digest(module, model),
    )


def import_user_module(name: str) -> ModuleType:
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())  # as `python -m` does; a console script does not see the user's folder
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise ModelError(f"importing {name} failed: {error}; install what it needs") from error
        raise ModelError(
            f"there is no Python module {error.name!r}; install it, or run where it lies (current folder: {os.getcwd()})"
        ) from error
    except Exception as error:
        raise ModelError(f"importing {name} failed: {type(error).__name__}: {error}") from error


def module_attribute(module: ModuleType, name: str, module_name: str) -> Any:
    if hasattr(module, name):
        return getattr(module, name)
    hint = did_you_mean(name, (known for known in dir(module) if not known.startswith("_")))
    raise ModelError(f"module {module_name} has no {name!r}{hint}")


def _preprocess(model: nn.Module, spec: str) -> Preprocess:
    given = getattr(model, "preprocess", None)
    if given is None:
        return Preprocess()
    if isinstance(given, Preprocess):
        return given
    from torchvision.transforms._presets import (
        ImageClassification,
    )  # here, because torchvision takes a second to import

    if isinstance(given, ImageClassification):
        return preprocess_from_preset(given)
    if not isinstance(given, Mapping):
        raise ModelError(
            f"the attribute `preprocess` of what {spec}() returned must be a mapping of preprocess settings, a torchvision "
            f"ImageClassification preset or a Preprocess, it is {_kind(given)}"
        )
    try:
        return with_overrides(Preprocess(), given)
    except SettingsError as error:
        raise ModelError(f"the attribute `preprocess` of what {spec}() returned: {error}") from error


def _class_names(model: nn.Module, spec: str) -> tuple[str, ...] | None:
    names = getattr(model, "class_names", None)
    if names is None:
        return None
    if isinstance(names, str) or not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise ModelError(
            f"the attribute `class_names` of what {spec}() returned must be a list of strings, got {names!r}"
        )
    return tuple(names)


def _kind(value: object) -> str:
    return f"a {type(value).__name__}"
