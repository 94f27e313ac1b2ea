"""Where methods are found by name: those of heatlas and those that installed packages bring.

A package brings one by an entry point of the group `heatlas.methods`, NAME = MODULE, where importing the module registers the
method NAME; and its settings, where it has any, by one of the group `heatlas.method_settings`, NAME = MODULE:CLASS, where the module
should not import torch, so that a command line can show them at once. Nothing is imported before it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import import_module, metadata
from typing import TYPE_CHECKING

from ...errors import HeatlasError, SettingsError, did_you_mean

if TYPE_CHECKING:
    from .protocol import Method

GROUP = "heatlas.methods"
SETTINGS_GROUP = "heatlas.method_settings"
BATCH, PACKED = "batch_settings", "packed_settings"
BUILT_IN = (
    ("sise", "sise", PACKED, "SiseSettings"),
    ("ada_sise", "sise", PACKED, "AdaSiseSettings"),
    ("rise", "rise", PACKED, "RiseSettings"),
    ("score_cam", "score_cam", PACKED, "ScoreCamSettings"),
    ("grad_cam", "grad_cam", BATCH, "CamSettings"),
    ("grad_cam_pp", "grad_cam_pp", BATCH, "CamSettings"),
    ("layer_cam", "layer_cam", BATCH, "CamSettings"),
    ("integrated_gradients", "integrated_gradients", BATCH, "IntegratedGradientsSettings"),
    ("occlusion", "occlusion", BATCH, "OcclusionSettings"),
    ("refine_cam", "refine_cam", BATCH, "RefineCamSettings"),
    ("daam", "daam", BATCH, "DaamSettings"),
    ("ucag", "ucag", BATCH, "UcagSettings"),
    ("fovex", "fovex", BATCH, "FovexSettings"),
    ("consensus", "consensus", BATCH, "ConsensusSettings"),
)
"""Name, module, and where its settings are; in the order in which they are listed."""


@dataclass(frozen=True)
class Entry:
    """Where a method and its settings are."""

    name: str
    module: str
    settings: str
    """`module:class`; empty where the package names none."""
    package: str
    """Who brings it."""


@cache
def entries() -> dict[str, Entry]:
    """Every method by name: those of heatlas in their order, then those of other packages, by name; names of heatlas's are taken."""
    here = __name__.rpartition(".")[0]
    found = {
        name: Entry(name, f"{here}.{module}", f"{here}.{home}:{settings}", "heatlas")
        for name, module, home, settings in BUILT_IN
    }
    settings = {one.name: one.value for one in metadata.entry_points(group=SETTINGS_GROUP)}
    for one in sorted(metadata.entry_points(group=GROUP), key=lambda one: one.name):
        package = one.dist.name if one.dist else one.value
        found.setdefault(one.name, Entry(one.name, one.value, settings.get(one.name, ""), package))
    return found


def find_entry(name: str) -> Entry:
    """Where the method of that name is.

    Raises:
        SettingsError: When there is none.
    """
    if name not in entries():
        raise SettingsError(f"unknown method {name!r}{did_you_mean(name, entries())}; known are {', '.join(entries())}")
    return entries()[name]


def settings_class(name: str) -> type:
    """The dataclass of a method's settings; does not import torch for methods whose package takes care of that.

    Raises:
        SettingsError: When there is no method of that name, or it cannot be imported.
    """
    entry = find_entry(name)
    if not entry.settings:
        return find_method(name).settings
    module, _, attribute = entry.settings.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except Exception as error:
        raise SettingsError(
            f"the settings of method {name!r} of package {entry.package} cannot be read: {said(error)}"
        ) from error


def find_method(name: str) -> Method:
    """The method of that name, imported now.

    Raises:
        SettingsError: When there is none, or its package cannot be imported.
    """
    from .protocol import METHODS

    entry = find_entry(name)
    if name not in METHODS:
        try:
            import_module(entry.module)
        except HeatlasError:
            raise
        except Exception as error:
            raise SettingsError(
                f"method {name!r} of package {entry.package} cannot be imported: {said(error)}"
            ) from error
    if name not in METHODS:
        raise SettingsError(f"the module {entry.module} of package {entry.package} registers no method {name!r}")
    return METHODS[name]


def usable_methods(names: Iterable[str] | None = None) -> dict[str, Method]:
    """Every method that can be imported, in the order of `entries`."""
    found = {}
    for name in entries() if names is None else names:
        try:
            found[name] = find_method(name)
        except SettingsError:
            continue
    return found


def said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
