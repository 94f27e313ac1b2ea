"""`heatlas import`: those settings of `heatlas explain` that do not belong to a method, and how foreign maps are read."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from ..settings.load import load_settings
from ..settings.methods import METHOD_GROUPS
from ..settings.run import leaves
from .explain import Config, print_result
from .settings_flags import given_settings

OF_METHODS = {"method", "explainer", "sanity", "correct_shift", "budget", "forward"}
SETTINGS = tuple(name for name in leaves() if name.partition(".")[0] not in OF_METHODS | METHOD_GROUPS.keys())
TEXTS = {
    "target": "Class of maps whose files do not say theirs: predicted, label, column:NAME, or a class.",
    "precision": "Number format of the metrics' passes.",
}
DEFAULTS = {"store.map_size": "input"}
GROUP = Group("Maps", sort_key=-1)


def import_command(
    *,
    config: Config = None,
    maps: Annotated[
        str,
        Parameter(
            help="Folder of files named like the images' ids, or one file with ids: .npy, .npz, .pt, .safetensors, .parquet, grey .png.",
            group=GROUP,
            metavar="DIR|FILE",
        ),
    ],
    method: Annotated[
        str, Parameter(help="Name of the method that made the maps.", group=GROUP, metavar="NAME")
    ] = "imported",
    by: Annotated[
        Literal["id", "position"], Parameter(help="Which map is whose: by id, or in the listing's order.", group=GROUP)
    ] = "id",
    sign: Annotated[
        Literal["positive", "negative", "absolute", "range"],
        Parameter(
            help="Values below 0: count as 0, are all that counts, count by their size, or the map's range becomes 0 to 1.",
            group=GROUP,
        ),
    ] = "positive",
    channels: Annotated[
        Literal["sum", "largest"], Parameter(help="How three channels of a map become one.", group=GROUP)
    ] = "sum",
    covers: Annotated[
        Literal["input", "image"] | None,
        Parameter(
            help="What maps of another size than the network's input cover: that input, or the whole upright image.",
            group=GROUP,
        ),
    ] = None,
    array: Annotated[
        str | None, Parameter(help="Which array of a file with several.", group=GROUP, metavar="NAME")
    ] = None,
    method_index: Annotated[
        int | None,
        Parameter(help="Which method along the second axis of (image, method, channel, height, width).", group=GROUP),
    ] = None,
    **flags: Any,
) -> int:
    """Make a store from maps that another tool made, so that evaluate, report, curate, compare and view work on them.

    The model says what it predicts and measures the maps; nothing is explained. The same command again resumes.

    Example: `heatlas import --maps captum/ --method captum_ig --model torchvision:resnet50 --data photos/ --out maps/`
    """
    from ..foreign_maps.choices import MapChoices
    from ..foreign_maps.import_run import import_settings, with_defaults

    choices = MapChoices(method, by, sign, channels, covers, array, method_index)
    print_result(import_settings(maps, choices, load_settings(with_defaults(given_settings(flags)), config)))
    return 0
