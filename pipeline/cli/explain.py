"""`heatlas explain`: every setting as a flag."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from ...configs import packaged_configs
from ..settings.load import load_settings
from ..text import harmless
from .settings_flags import GROUPS, given_settings

Config = Annotated[
    str | None,
    Parameter(
        help=f"YAML file with settings, or {', '.join(packaged_configs())}.",
        group=GROUPS["model"],
        metavar="FILE|NAME",
    ),
]


def explain_command(
    *,
    config: Config = None,
    verify: Annotated[
        int | None,
        Parameter(
            help="Check a trained explainer on so many images.",
            group=GROUPS["method"],
        ),
    ] = None,
    **flags: Any,
) -> int:
    """Explain a data set: write maps and metrics of every image into a Parquet store.

    The same command again resumes. Flags override --config; [defaults] are shown.

    Example: `heatlas explain --model torchvision:resnet50 --data photos/ --out maps/`
    """
    settings = load_settings(given_settings(flags), config)
    from ..explain.explain import explain_settings

    if verify is None:
        print_result(explain_settings(settings))
        return 0
    from ..train.verify import check_explainer, refuse_check

    refuse_check(settings, verify)
    print_result(explain_settings(settings))
    print_result(check_explainer(settings, verify))
    return 0


def print_result(result: Any) -> None:
    """The closing summary of a run."""

    print(harmless(result.summary()))
