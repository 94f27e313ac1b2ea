"""A model or a data set that the caller of `heatlas.explain_dataset` hands over as an object instead of naming it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from ...errors import ModelError, SettingsError
from ...workers.images.own_processor import kept_processor
from ...workers.images.preprocess import Preprocess
from ...workers.models.given_model import GivenModel
from ...workers.models.model_attributes import attributes_of, given_preprocess
from ...workers.object_names import PREFIX, given_objects, name_of


@contextmanager
def named_objects(
    model: str | nn.Module, data: Any, preprocess: Any, class_names: Sequence[str] | None
) -> Iterator[dict[str, Any]]:
    """Settings that stand for the arguments while the body runs: texts as they are, objects by name.

    Args:
        model: Of the settings, or a module.
        data: Of the settings, or a map-style data set, or a `DataLoader`, of which only the data set counts.
        preprocess: Settings of the group `preprocess`; with a module also whatever its attribute `preprocess` may be, which it replaces.
        class_names: With a module only: one per class.

    Raises:
        SettingsError: If the arguments do not go together.
    """
    objects: dict[str, Any] = {}
    settings: dict[str, Any] = {} if preprocess is None else {"preprocess": preprocess}
    if isinstance(model, nn.Module):
        objects[name_of(model)] = _given_model(model, preprocess, class_names)
        if not isinstance(preprocess, Mapping):
            settings.pop("preprocess", None)
        settings["model"] = f"{PREFIX}:{name_of(model)}"
    else:
        if class_names is not None:
            raise SettingsError(f"class_names goes with a model object; the model {model!r} brings its own")
        if preprocess is not None and not isinstance(preprocess, Mapping):
            raise SettingsError(f"preprocess must be a mapping of settings for the model {model!r}, got {preprocess!r}")
        settings["model"] = model
    data = data.dataset if isinstance(data, DataLoader) else data
    if isinstance(data, str | os.PathLike):
        settings["data"] = data
    else:
        objects[name_of(data)] = data
        settings["data"] = f"{PREFIX}:{name_of(data)}"
    with given_objects(objects):
        yield settings


def _given_model(model: nn.Module, preprocess: Any, class_names: Sequence[str] | None) -> GivenModel:
    """The module with what the arguments say of it, else with what it brings along."""
    names = None if class_names is None else tuple(class_names)
    if preprocess is not None and not isinstance(preprocess, Mapping):
        own, notes = given_preprocess(preprocess, "preprocess=")
        return GivenModel(model, own, names, notes=notes, transform=kept_processor(own.processor))
    try:
        brought = attributes_of(model, name_of(model))
    except ModelError as error:
        if preprocess is None:
            raise
        return GivenModel(model, Preprocess(), names, notes=(f"the model's own preprocessing is not taken: {error}",))
    own = brought.preprocess
    names = brought.class_names if names is None else names
    return GivenModel(model, own, names, brought.origin, brought.notes, kept_processor(own.processor))
