"""Read back the settings of a stored run, with its local places as they were meant in the folder where the run was started."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from .settings.renamed import current_names

STARTED_IN = "started_in"
"""Key of `_run.json`: the folder where the run was started; stores of older releases lack it."""
PLACES = ("images", "bank", "explainer", "data_root")
"""Settings, beside `data`, that are a path or URI."""
_PREFIX = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]+):(?!//|:)(.+)", re.DOTALL)


def settings_of_run(run: Mapping[str, Any]) -> dict[str, Any]:
    """The settings under today's names, as `load_settings` takes them; relative paths are those of the run's own folder, wherever this process is.

    Args:
        run: Content of `_run.json`. Relative paths of a run that does not name its folder stay as they are.
    """
    settings, folder = current_names(run["settings"]), run.get(STARTED_IN)
    if not isinstance(folder, str):
        return settings
    if isinstance(data := settings.get("data"), str):
        settings["data"] = data_seen_from(data, folder)
    for name in PLACES:
        if isinstance(place := settings.get(name), str):
            settings[name] = place_seen_from(place, folder)
    return settings


def remedy_for_relative_data(run: Mapping[str, Any]) -> str:
    """What to do where the data set of a run of an older release is not found; empty where its place does not depend on the folder."""
    data = run["settings"].get("data")
    if run.get(STARTED_IN) or not isinstance(data, str) or data_seen_from(data, os.getcwd()) == data:
        return ""
    return (
        f"; the run names its data by the relative path {data}: run the command in the folder where the run was started"
    )


def data_seen_from(data: str, folder: str) -> str:
    """What `--data` names when it is written in `folder`: a prefix stays, a local path becomes absolute, code stays as it is."""
    whole = place_seen_from(data, folder)
    match = _PREFIX.fullmatch(data)
    if match is None or os.path.exists(whole):
        return whole
    from .sources.listing.registry import SOURCES  # here, because it waits for Arrow, and help does not

    prefix, rest = match.groups()
    source = SOURCES.get(prefix)
    if source is not None and source.is_place:
        return f"{prefix}:{place_seen_from(rest, folder)}"
    before, at, after = rest.partition("@")
    if prefix == "torchvision" and at and "?" not in before:
        root, question, arguments = after.partition("?")
        return f"{prefix}:{before}@{place_seen_from(root, folder) if root else root}{question}{arguments}"
    return data


def place_seen_from(place: str, folder: str) -> str:
    """A local path that is relative to `folder` made absolute; URIs and absolute paths stay."""
    if not place or "://" in place or "::" in place or place.startswith("~") or os.path.isabs(place):
        return place
    whole = os.path.join(folder, place)
    return whole if "{" in place else os.path.normpath(whole)  # braces are a pattern, whose parts are no names
