"""A group of settings for every method, made from the dataclass that the method declares, whoever brings it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

from pydantic import Field, create_model

from ...engine.methods.registry import entries, settings_class
from ...errors import SettingsError
from .types import SettingsGroup

DESCRIPTION = "Explanation method (heatlas methods)."
SEED = "seed"
BOUNDS = ("ge", "gt", "le", "lt")


def group_of(name: str, declared: type) -> type[SettingsGroup]:
    """The group of a method's settings: a field of the dataclass each, with its metadata's `help` and bounds. Only the seed is not
    among them: it is the run's."""
    hints = get_type_hints(declared)
    fields: dict[str, Any] = {
        setting.name: (hints[setting.name], Field(default_of(setting), description=sentence(setting.metadata.get("help", "")),
                   **{bound: setting.metadata[bound] for bound in BOUNDS if bound in setting.metadata}))
        for setting in dataclasses.fields(declared)
        if setting.name != SEED
    }  # fmt: skip
    return create_model(f"{name}_settings", __base__=SettingsGroup, __doc__=f"Settings of {name}.", **fields)


def default_of(setting: dataclasses.Field[Any]) -> Any:
    """Every setting of a method has a default."""
    return setting.default_factory() if setting.default_factory is not dataclasses.MISSING else setting.default


def sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].removesuffix('.')}." if text else ""


def method_groups() -> dict[str, type[SettingsGroup]]:
    """The groups by method; one whose package cannot be imported has none, and choosing it tells why."""
    groups: dict[str, type[SettingsGroup]] = {}
    for name in entries():
        try:
            groups[name] = group_of(name, settings_class(name))
        except SettingsError:
            continue
    return groups


METHOD_GROUPS = method_groups()

if TYPE_CHECKING:

    class MethodChoice(SettingsGroup):
        """The method, and a group of settings for each there is."""

        method: str
        sise: Any
        seed: int

else:
    MethodChoice = create_model(
        "MethodChoice",
        __base__=SettingsGroup,
        method=(Literal[tuple(entries())], Field("sise", description=DESCRIPTION)),
        **{name: (group, group()) for name, group in METHOD_GROUPS.items()},
    )


def chosen_settings(settings: MethodChoice) -> Any:
    """The chosen method's settings, as it declares them.

    Raises:
        SettingsError: When a value is out of its range, or the method cannot be imported.
    """
    return declared_settings(settings, settings.method)


def without_effect(settings: MethodChoice) -> list[str]:
    """Settings of other methods than the chosen one that are not at their defaults, by dotted name."""
    idle = []
    for name in METHOD_GROUPS.keys() - {settings.method}:
        given = getattr(settings, name)
        idle += [
            f"{name}.{setting}"
            for setting in type(given).model_fields
            if getattr(given, setting) != getattr(type(given)(), setting)
        ]
    return sorted(idle)


def declared_settings(settings: MethodChoice, name: str) -> Any:
    """A method's settings, as it declares them; see `chosen_settings`."""
    declared = settings_class(name)
    seeded = any(setting.name == SEED for setting in dataclasses.fields(declared))
    values = getattr(settings, name).model_dump() if name in METHOD_GROUPS else {}
    try:
        return declared(**values, **({SEED: settings.seed} if seeded else {}))
    except SettingsError as error:
        raise SettingsError(f"setting {name}.{error}") from None
