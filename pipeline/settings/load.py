"""Settings from where they are written: defaults, then a YAML file, then flags (or keyword arguments), the later one winning."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ...configs import packaged_configs
from ...errors import SettingsError, did_you_mean
from .allowed_values import admits, allowed, choices
from .methods import METHOD_GROUPS, declared_settings
from .renamed import RENAMED, SWITCHES
from .run import Settings, leaves
from .types import SettingsGroup, is_group


def load_settings(flags: Mapping[str, Any], config: str | os.PathLike[str] | None = None) -> Settings:
    """Resolve the settings of a run.

    Args:
        flags: What was set by hand, by dotted name (`sise.mu`) or nested (`sise: {mu: ...}`).
        config: A packaged configuration's name or the path of a YAML file.

    Raises:
        SettingsError: Naming every unknown setting and every value out of range, with where it was written.
    """
    written = WrittenSettings()
    if config is not None:
        written.add(read_config(os.fspath(config)), f" (in {os.fspath(config)})")
    written.add(flags)
    problems = booleans_as_numbers(written)
    try:
        settings = Settings.model_validate(written.values)
    except ValidationError as error:
        problems += explained(error, written)
    else:
        problems += [*refused_by_methods(settings, written), *numbers_of_channels(settings, written)]
        if not problems:
            return settings
    raise SettingsError("\n".join(dict.fromkeys(problems)))


def refused_by_methods(settings: Settings, written: WrittenSettings) -> list[str]:
    """What the methods' own declarations say against values that were written for them."""
    refusals = []
    for name in METHOD_GROUPS.keys() & written.values.keys():
        try:
            declared_settings(settings, name)
        except SettingsError as error:
            refusals.append(f"{error}{written.place(name)}")
    return sorted(refusals)


def numbers_of_channels(settings: Settings, written: WrittenSettings) -> list[str]:
    """What is wrong with how many numbers mean and std have."""
    given, problems = settings.preprocess, []
    for name, numbers in (("preprocess.mean", given.mean), ("preprocess.std", given.std)):
        wanted = (3, 1) if given.channels is None else (given.channels,)
        if numbers is not None and len(numbers) not in wanted:
            problems.append(
                f"setting {name} has {len(numbers)} numbers{written.place(name)}; it needs one per channel: 3 (RGB), 1 (grey), or as many as "
                "--preprocess.channels says"
            )
    return problems


class WrittenSettings:
    """The values written so far, and for each the place where it was written."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.places: dict[str, str] = {}

    def add(self, source: Mapping[str, Any], place: str = "") -> None:
        """Put `source` (dotted or nested names) over what is there, group by group."""
        for name, value in source.items():
            group, _, key = str(name).partition(".")
            pairs = {key: value} if key else value
            if not isinstance(pairs, Mapping):
                self.values[group] = os.fspath(value) if isinstance(value, os.PathLike) else value
                self.places[group] = place
                continue
            below = self.values.get(group)
            self.values[group] = {**(below if isinstance(below, dict) else {}), **{str(k): v for k, v in pairs.items()}}
            self.places |= {group: place, **{f"{group}.{k}": place for k in pairs}}

    def value(self, name: str) -> Any:
        value: Any = self.values
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    def place(self, name: str) -> str:
        return self.places.get(name, "")


def read_config(name: str) -> dict[str, Any]:
    """The mapping in a packaged or a user's YAML file; plain data only, no Python objects.

    Raises:
        SettingsError: If there is no such file, or it is not YAML, or not a mapping.
    """
    known = packaged_configs()
    path = known.get(name) or Path(name)
    if not path.is_file():
        raise SettingsError(
            f"no configuration {name!r}{did_you_mean(name, known)}; packaged ones are {', '.join(known)}, or give the path of a YAML file"
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not plain YAML: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError(
            f"{path} must hold `name: value` lines, not {type(content).__name__}; `heatlas explain --help` lists the names"
        )
    return {str(key): value for key, value in content.items()}


def booleans_as_numbers(written: WrittenSettings) -> list[str]:
    """YAML's `yes` is a boolean, and Python's booleans pass as 0 and 1: refuse them where no boolean is meant."""
    return [
        not_allowed(name, field, written)
        for name, field in leaves().items()
        if isinstance(written.value(name), bool) and not admits(field.annotation, bool)
    ]


def explained(error: ValidationError, written: WrittenSettings) -> list[str]:
    """Pydantic's findings as messages; a union reports once per branch, so the same message may come repeatedly."""
    messages = []
    for item in error.errors():
        name, field = locate(item["loc"])
        place = written.place(name)
        if name in RENAMED:
            messages.append(f"setting {name!r}{place} is called {RENAMED[name]!r} now")
        elif name in SWITCHES:
            messages.append(f"setting {name!r}{place} is {SWITCHES[name].removeprefix('--').replace(' ', ': ')} now")
        elif item["type"] == "extra_forbidden":
            messages.append(
                f"unknown setting {name!r}{place}{did_you_mean(name, leaves())} (`heatlas explain --help` lists all settings)"
            )
        elif item["type"] == "missing" and written.value(name) is None:
            messages.append(f"setting {name!r} is required: give --{name} or a line `{name}: ...` in the --config file")
        elif field is None:
            keys = ", ".join(known for known in leaves() if known.startswith(f"{name}."))
            messages.append(f"setting {name!r}{place} is a group of settings: give {keys}")
        else:
            messages.append(not_allowed(name, field, written))
    return messages


def locate(loc: tuple[int | str, ...]) -> tuple[str, Any]:
    """Dotted name and field of the setting at fault, without pydantic's union branches and list positions; no field for a group."""
    group: type[SettingsGroup] = Settings
    name = ""
    for part in map(str, loc):
        name = f"{name}.{part}" if name else part
        field = group.model_fields.get(part)
        if field is None or not is_group(field.annotation):
            return name, field
        group = field.annotation
    return name, None


def not_allowed(name: str, field: Any, written: WrittenSettings) -> str:
    value = written.value(name)
    hint = did_you_mean(value, choices(field.annotation)) if isinstance(value, str) else ""
    return f"setting {name} = {value!r}{written.place(name)} is not allowed: it must be {allowed(field.annotation, field.metadata)}{hint}"
