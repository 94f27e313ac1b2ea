"""`heatlas plan`: the arguments of `heatlas explain`, and nothing is written."""

from __future__ import annotations

import json
import os
from typing import Annotated, Any

from cyclopts import Group, Parameter

from ..settings.load import load_settings, read_config
from ..text import harmless
from .explain import Config
from .settings_flags import given_settings

NOWHERE = os.path.join(os.path.abspath(os.sep), "heatlas-plan-writes-nothing")
"""Stands for --out where it is left out."""
GROUP = Group("Plan", sort_key=-1)


def plan_command(
    *,
    config: Config = None,
    look_at: Annotated[
        int, Parameter(help="Images to read and classify, evenly spread, at least 1.", group=GROUP)
    ] = 32,
    as_json: Annotated[bool, Parameter(name="--json", help="Print JSON instead of text.", group=GROUP)] = False,
    **flags: Any,
) -> int:
    """Forecast what `heatlas explain` with the same arguments would do and cost, and report what looks wrong.

    Reads a few images, classifies them, counts masks and times forward passes on this machine. Writes nothing.
    Exit code 0 also where something looks wrong.

    Example: `heatlas plan --model torchvision:resnet50 --data photos/`
    """
    from ...errors import SettingsError

    if look_at < 1:
        raise SettingsError(f"--look-at must be at least 1 image, got {look_at}")
    given = given_settings(flags)
    if "out" not in given and (config is None or "out" not in read_config(config)):
        given["out"] = NOWHERE
    settings = load_settings(given, config)
    from ..plan.forecast import plan_run
    from ..plan.forecast_text import format_forecast

    forecast = plan_run(settings, look_at)
    print(json.dumps(forecast.as_json(), indent=2) if as_json else harmless(format_forecast(forecast)))
    return 0
