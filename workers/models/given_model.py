"""`object:NAME`: a model that the caller hands over as an `nn.Module`, with its preprocessing and class names."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from torch import nn

from ...errors import ModelError, UsageError
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
    return FamilyModel(
        module, given.preprocess, given.class_names, f"preprocess= of {PREFIX}:{name}", code=repr(given.module)
    )
