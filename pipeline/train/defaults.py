"""The settings of a training by method, what is not chosen at the method's own defaults. No torch here: a command line reads them, too."""

from __future__ import annotations

import dataclasses
from typing import Any

from ...engine.training.head_settings import HeadSettings
from ...engine.training.part_settings import PartSettings
from ...errors import SettingsError, UsageError

STUDENT = {"optimiser": "adamw", "learning_rate": 3e-3, "weight_decay": 1e-4, "epochs": 20}
"""Defaults that differ where a teacher's maps are imitated [ours]."""
PTAME = {
    "cross_entropy": 0.16143, "area": 0.83857, "variation": 0.0, "weight_decay": 2.4267e-4, "optimiser": "adamw", "learning_rate": 1e-4,
    "epochs": 1,
}  # fmt: skip
"""P-TAME's defaults that differ from T-TAME's: those that its authors tuned for ResNet-50 with ResNet-18 as auxiliary network."""
NOT_IMITATED = ("confidence", "fill", "cross_entropy", "area", "variation", "power", "border")
"""Settings of learning from the classifier, which a student does not do."""
ALIASES = {
    "explainer": ("explainer_network", "robust"), "explainer:robust": ("explainer_network", "robust"),
    "explainer:paper": ("explainer_network", "paper"),
}  # fmt: skip
"""Other names for the explainer network, with its preset."""


def training_settings(
    method: str, chosen: dict[str, Any], preset: str | None = None, teacher: bool = False
) -> HeadSettings | PartSettings:
    """The settings of a method's training, what is not chosen at the method's defaults.

    Args:
        method: Of the trained ones.
        chosen: Settings by name.
        preset: Of the explainer network.
        teacher: Whether another method's maps are imitated.

    Raises:
        UsageError: When a setting is another method's.
        SettingsError: When a value is out of its range, naming the flag.
    """
    kind: type[HeadSettings] | type[PartSettings] = PartSettings if method == "explainer_network" else HeadSettings
    known = {field.name for field in dataclasses.fields(kind)}
    for name in chosen:
        if name not in known:
            raise UsageError(f"--{name.replace('_', '-')} has no effect with {method}; leave it out")
        if teacher and name in NOT_IMITATED:
            raise UsageError(
                f"--{name.replace('_', '-')} has no effect with --teacher, whose maps a student imitates; leave it out"
            )
    defaults: dict[str, Any] = {"preset": preset or "robust"} if kind is PartSettings else {}
    if kind is HeadSettings:
        defaults = {**(PTAME if method == "ptame" else {}), **(STUDENT if teacher else {})}
    try:
        return kind(**{**defaults, **chosen})
    except SettingsError as error:
        raise SettingsError(f"--{str(error).replace('_', '-', 1)}") from None
