"""Types of settings, and how a value is read: the same way as flag, in YAML and from Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeGuard

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ...engine.scoring.budget import LEAST_FORWARDS
from .allowed_values import admits

PositiveInt = Annotated[int, Field(ge=1)]
NaturalInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]


def as_written(annotation: Any, value: Any) -> Any:
    """The value with `none` and comma-separated lists read as such: `none` unsets, `a,b` is a list of two."""
    several = admits(annotation, tuple)
    if several and isinstance(value, str):
        value = [item for item in map(str.strip, value.split(",")) if item]
    if several and (value is None or list_of_none(value)):
        return None if admits(annotation, type(None)) else ()
    return None if value == "none" and admits(annotation, type(None)) else value


def list_of_none(value: Any) -> bool:
    return isinstance(value, list | tuple) and list(value) == ["none"]


def height_and_width(value: Any) -> Any:
    """One number stands for a square."""
    alone = value[0] if isinstance(value, list | tuple) and len(value) == 1 else value
    return (alone, alone) if isinstance(alone, int | str) else value


def whole_number(value: Any) -> Any:
    """Flags come as text, which a choice among numbers does not convert by itself."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def classes_as_text(value: Any) -> Any:
    """A list of classes is written like on the command line; a single index is a number."""
    listed = isinstance(value, list | tuple) and value and all(isinstance(item, int | str) for item in value)
    return whole_number(",".join(map(str, value)) if listed else value)


def numbers_as_text(value: Any) -> Any:
    """A list of numbers is written like on the command line."""
    listed = isinstance(value, list | tuple) and all(isinstance(item, int | float) for item in value)
    return ",".join(f"{item:g}" for item in value) if listed else value


def number_or_share(value: Any) -> Any:
    """A whole number is a number of forwards, also where it is 1, which would otherwise pass as the share of all."""
    whole = whole_number(value)
    if isinstance(whole, int) and not isinstance(whole, bool) and whole < LEAST_FORWARDS:
        raise ValueError("too few forwards")
    return whole


def gpu_as_cuda(value: Any) -> Any:
    """`gpu` is understood as what torch calls it."""
    return "cuda" if value == "gpu" else value


Size = Annotated[tuple[PositiveInt, PositiveInt], BeforeValidator(height_and_width)]
Mean = tuple[float, ...]
Std = tuple[PositiveFloat, ...]


class SettingsGroup(BaseModel):
    """Frozen, and refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _as_written(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        fields = cls.model_fields
        return {
            name: as_written(fields[name].annotation, value) if name in fields else value
            for name, value in values.items()
        }


def is_group(annotation: Any) -> TypeGuard[type[SettingsGroup]]:
    return isinstance(annotation, type) and issubclass(annotation, SettingsGroup)
