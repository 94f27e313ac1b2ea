"""Where methods are found by name: those of this folder and those that installed packages bring.

A package brings one by an entry point of the group `heatlas.methods`, NAME = MODULE, where importing the module registers the method
NAME. Command lines import it for its settings, so it should take torch from `heatlas.engine.lazy_torch`.
"""

from __future__ import annotations

import dataclasses
import pkgutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import import_module, metadata
from typing import Any

from ...errors import HeatlasError, SettingsError, did_you_mean
from ..explainer import Explainer
from ..lazy_torch import nn
from ..scoring.scoring_options import Scoring
from .protocol import METHODS, Method

GROUP = "heatlas.methods"
FIRST = "sise"


@dataclass(frozen=True)
class Entry:
    """Where a method is."""

    name: str
    module: str
    package: str
    """Who brings it."""


@cache
def entries() -> dict[str, Entry]:
    """Every method by name: those of heatlas, SISE's kind first, then those of other packages; names of heatlas's are taken."""
    known = {name: Entry(name, METHODS[name].explainer.__module__, "heatlas") for name in built_in()}
    for point in sorted(metadata.entry_points(group=GROUP), key=lambda point: point.name):
        package = point.dist.name if point.dist else point.value
        known.setdefault(point.name, Entry(point.name, point.value, package))
    return known


@cache
def built_in() -> tuple[str, ...]:
    """Names of the methods of this folder, whose modules are imported for it; they do without torch."""
    package = import_module(__name__.rpartition(".")[0])
    names = sorted(
        (module.name for module in pkgutil.iter_modules(package.__path__)), key=lambda name: (name != FIRST, name)
    )
    homes = [import_module(f".{name}", package.__name__).__name__ for name in names]
    return tuple(name for home in homes for name, declared in METHODS.items() if declared.explainer.__module__ == home)


def find_entry(name: str) -> Entry:
    """Where the method of that name is.

    Raises:
        SettingsError: When there is none.
    """
    if name not in entries():
        raise SettingsError(f"unknown method {name!r}{did_you_mean(name, entries())}; known are {', '.join(entries())}")
    return entries()[name]


def settings_class(name: str) -> type:
    """The dataclass of a method's settings; does not import torch for methods whose file takes care of that.

    Raises:
        SettingsError: When there is no method of that name, or it cannot be imported.
    """
    return find_method(name).settings


def find_method(name: str) -> Method:
    """The method of that name, imported now.

    Raises:
        SettingsError: When there is none, or its package cannot be imported.
    """
    entry = find_entry(name)
    if name not in METHODS:
        try:
            import_module(entry.module)
        except HeatlasError:
            raise
        except Exception as error:
            raise SettingsError(
                f"method {name!r} of package {entry.package} cannot be imported: {type(error).__name__}: {error}"
            ) from error
    if name not in METHODS:
        raise SettingsError(f"the module {entry.module} of package {entry.package} registers no method {name!r}")
    return METHODS[name]


def usable_methods(names: Iterable[str] | None = None) -> dict[str, Method]:
    """Every method that can be imported, in the order of `entries`."""
    usable = {}
    for name in entries() if names is None else names:
        try:
            usable[name] = find_method(name)
        except SettingsError:
            continue
    return usable


def make_explainer(name: str, model: nn.Module, settings: Any = None, scoring: Scoring | None = None) -> Explainer:
    """A method over a model.

    Args:
        name: Of the method.
        model: A classifier.
        settings: Of the method's settings class; None for its defaults.
        scoring: How its passes run.

    Raises:
        SettingsError: When there is no such method, or it does not do what is asked for.
        ModelError: When it cannot explain the model.
    """
    declared = find_method(name)
    settings = declared.settings() if settings is None else settings
    return declared.explainer(model, **values_of(settings), **values_of(Scoring() if scoring is None else scoring))


def bind_method(name: str, model: nn.Module, *, scoring: Scoring | None = None, **options: Any) -> Explainer:
    """A method over a model, by name.

    Args:
        name: One of `heatlas methods`.
        model: A classifier; it is left as it came.
        scoring: How its passes run, where `options` say nothing.
        **options: Of the method, and of how its passes run (`batch_size`, `precision`, ...); the defaults otherwise.

    Raises:
        SettingsError: When there is no such method or setting, or a value is out of its range.
        ModelError: When the method cannot explain the model.
    """
    declared = find_method(name)
    own = [setting.name for setting in dataclasses.fields(declared.settings)]
    own += ["mean", "std"] if declared.colours else []
    shared = [setting.name for setting in dataclasses.fields(Explainer) if setting.name != "model"]
    for given in options:
        if given not in (*own, *shared):
            has = f"it has {', '.join(own)}" if own else "it has none"
            raise SettingsError(f"method {name} has no setting {given!r}{did_you_mean(given, own + shared)}; {has}")
    return declared.explainer(model, **{**values_of(Scoring() if scoring is None else scoring), **options})


def values_of(options: Any) -> dict[str, Any]:
    """The fields of a dataclass, as they are."""
    return {setting.name: getattr(options, setting.name) for setting in dataclasses.fields(options)}
