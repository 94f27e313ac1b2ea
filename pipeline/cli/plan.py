"""`heatlas plan`: the arguments of `heatlas explain`, and nothing is written."""

from __future__ import annotations

import inspect
import json
import os
from typing import Annotated, Any

from cyclopts import Group, Parameter

from ..settings.load import load_settings, read_config
from ..text import harmless
from .explain import explain_command, typed
from .signature import set_signature

NOWHERE = os.path.join(os.path.abspath(os.sep), "heatlas-plan-writes-nothing")
"""Stands for --out where it is left out."""
ITSELF = Group("The plan itself", sort_key=-1)


def plan_command(*, config: str | None = None, look_at: int = 32, as_json: bool = False, **flags: Any) -> int:
    """Say what `heatlas explain` with the same arguments would do, take and leave, and what looks wrong.

    Reads a few images, classifies them, counts masks and times forward passes on the device that is there. Writes nothing.
    Exit code 0 also where something looks wrong.
    """
    from ...errors import SettingsError

    if look_at < 1:
        raise SettingsError(f"--look-at must be at least 1 image, got {look_at}")
    given = typed(flags)
    if "out" not in given and (config is None or "out" not in read_config(config)):
        given["out"] = NOWHERE
    settings = load_settings(given, config)
    from ..plan.forecast import plan_run
    from ..plan.forecast_text import format_forecast

    found = plan_run(settings, look_at)
    print(json.dumps(found, indent=2) if as_json else harmless(format_forecast(found)))
    return 0


def signature() -> inspect.Signature:
    """That of `explain`, with two flags of its own."""
    own = [
        inspect.Parameter("look_at", inspect.Parameter.KEYWORD_ONLY, default=32, annotation=Annotated[
            int, Parameter(name="--look-at", help="How many images to read and classify, evenly spread.", group=ITSELF)]),
        inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[
            bool, Parameter(name="--json", help="Print JSON instead of text.", group=ITSELF, negative="")]),
    ]  # fmt: skip
    same = list(inspect.signature(explain_command).parameters.values())
    return inspect.Signature([*own, *same], return_annotation=int)


set_signature(plan_command, signature())
