"""`object:NAME`: a model that the caller hands over as an `nn.Module`, with its preprocessing and class names."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from torch import nn

from ...errors import ModelError, UsageError
from ..images.own_processor import Transform, keep_processor
from ..images.preprocess import Preprocess
from ..object_names import PREFIX, given_object
from ..protocols import SampleReader
from .built_model import FamilyModel


@dataclass(frozen=True)
class GivenModel:
    """A caller's model; it is copied, so it stays as it is."""

    module: nn.Module
    preprocess: Preprocess
    class_names: tuple[str, ...] | None = None
    origin: str = ""
    """Where the preprocessing comes from, in words; empty: from the caller's argument."""
    notes: tuple[str, ...] = ()
    transform: Transform | None = None
    """The caller's function that `preprocess` names."""


def load_given(name: str, reader: SampleReader | None = None) -> FamilyModel:
    """The model of that name.

    Raises:
        ModelError: If this process was given none.
    """
    try:
        given: GivenModel = given_object(name)
    except UsageError as error:
        raise ModelError(str(error)) from None
    module = copy.deepcopy(given.module).cpu()
    if given.transform is not None:
        keep_processor(given.preprocess.processor, given.transform)
    origin = given.origin or f"preprocess= of {PREFIX}:{name}"
    return FamilyModel(module, given.preprocess, given.class_names, origin, repr(given.module), notes=given.notes)
