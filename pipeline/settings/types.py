"""Types of settings, with what is read as such: a number as text, one name as a list of names."""

from __future__ import annotations

from typing import Annotated, Any, TypeGuard

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ...engine.scoring.budget import LEAST_FORWARDS

PositiveInt = Annotated[int, Field(ge=1)]
NaturalInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]


def one_or_more(value: Any) -> Any:
    """A single name counts as a list of one, so that `metrics: paper` can be written plainly."""
    return (value,) if isinstance(value, str) else value


def height_and_width(value: Any) -> Any:
    """One number stands for a square."""
    alone = value[0] if isinstance(value, list | tuple) and len(value) == 1 else value
    return (alone, alone) if isinstance(alone, int | str) else value


def whole_number(value: Any) -> Any:
    """Flags come as text, which a choice among numbers does not convert by itself."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def classes_as_text(value: Any) -> Any:
    """A list of classes is written like on the command line; a single index is a number."""
    listed = isinstance(value, list | tuple) and value and all(isinstance(one, int | str) for one in value)
    return whole_number(",".join(map(str, value)) if listed else value)


def number_or_share(value: Any) -> Any:
    """A whole number is a number of forwards, also where it is 1, which would otherwise pass as the share of all."""
    whole = whole_number(value)
    if isinstance(whole, int) and not isinstance(whole, bool) and whole < LEAST_FORWARDS:
        raise ValueError("too few forwards")
    return whole


Names = Annotated[tuple[str, ...], BeforeValidator(one_or_more)]
Size = Annotated[tuple[PositiveInt, PositiveInt], BeforeValidator(height_and_width)]
Mean = tuple[float, float, float] | tuple[float]
Std = tuple[PositiveFloat, PositiveFloat, PositiveFloat] | tuple[PositiveFloat]


class SettingsGroup(BaseModel):
    """Frozen, and refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def is_group(annotation: Any) -> TypeGuard[type[SettingsGroup]]:
    return isinstance(annotation, type) and issubclass(annotation, SettingsGroup)
