"""What an evaluation takes from the run (all that changes a value) and what from the user (how to run)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import SettingsError, did_you_mean
from ..settings.load import load_settings
from ..settings.run import Settings, leaves
from ..stored_settings import settings_of_run

EXECUTION = (
    "workers", "device", "gpus_per_worker", "address", "image_timeout", "start_timeout", "shard_retries", "retry_errors",
    "max_error_rate", "any_device", "shared_fs", "wait_for_space",
)  # fmt: skip
"""Settings of the evaluation's own; by default those of a new run, not of the one that is evaluated."""


def evaluation_settings(out: str, run: Mapping[str, Any], how: Mapping[str, Any]) -> Settings:
    """The settings by which the run's samples, model and method are found again.

    Args:
        out: Directory or URI of the store, as the user writes it now.
        run: Content of its `_run.json`.
        how: Settings out of `EXECUTION`.

    Raises:
        SettingsError: For a setting that is the run's, an unknown one, or a value out of range.
    """
    for name in how:
        if name not in EXECUTION:
            known = f"it is the run's, or its metrics would not compare: {run['settings'].get(name)!r}"
            why = known if name in leaves() else f"there is no such setting{did_you_mean(name, EXECUTION)}"
            raise SettingsError(f"an evaluation cannot set {name!r}: {why}; it can set {', '.join(EXECUTION)}")
    kept = {name: value for name, value in settings_of_run(run).items() if name not in (*EXECUTION, "append")}
    return load_settings({**kept, "out": out, "metrics": (), **how})
