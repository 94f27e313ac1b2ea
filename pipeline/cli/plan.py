"""`heatlas plan`: the arguments of `heatlas explain`, and nothing is written."""

from __future__ import annotations

import json
from typing import Annotated, Any

from cyclopts import Group, Parameter

from ..plan.place import with_place
from ..settings.load import load_settings
from ..text import harmless
from .explain import Config
from .settings_flags import given_settings

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
    settings = load_settings(with_place(given_settings(flags), config), config)
    from ..plan.forecast import plan_run

    forecast = plan_run(settings, look_at)
    print(json.dumps(forecast.as_json(), indent=2) if as_json else harmless(str(forecast)))
    return 0
