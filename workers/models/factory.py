"""`package.module:factory[@WEIGHTS]`: the user's own code builds the model.

The factory is called without arguments and returns an `nn.Module` that maps `(batch, channel, height, width)` to logits
`(batch, class)`. Two attributes of the module are honoured where they exist:

- `class_names`: a sequence of strings;
- `preprocess`: settings, a preset, an image processor or a function, see `model_attributes`. Without it a model of timm has timm's data
  config, any other 224 x 224 from the centre and ImageNet's mean and std.

WEIGHTS, a `.safetensors`, `.pth` or `.pt` file, replaces whatever weights the factory gave the module.
Importing and calling it is running code: give only names that you trust.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import Any

from torch import nn

from ...errors import ModelError, did_you_mean
from ..protocols import SampleReader
from .built_model import FamilyModel
from .model_attributes import attributes_of
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
    brought = attributes_of(model, f"{spec}()")
    return FamilyModel(
        model,
        brought.preprocess,
        brought.class_names,
        brought.origin,
        notes=(*notes, *brought.notes),
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


def _kind(value: object) -> str:
    return f"a {type(value).__name__}"
