"""Whether a store's maps are good enough to be measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import UsageError
from .schema import StoreLayout


def refuse_missing_maps(out: str, run: Mapping[str, Any]) -> None:
    """Without maps as numbers there is nothing to measure.

    Raises:
        UsageError: If the run stored none.
    """
    if not run["settings"]["store"]["map"]:
        refuse_reduced_maps(out, run)


def refuse_reduced_maps(out: str, run: Mapping[str, Any]) -> None:
    """Metrics rank the pixels of the whole map; a reduced one, or 256 grey levels, rank them otherwise.

    Raises:
        UsageError: If the run did not store its maps at network-input resolution.
    """
    height, width = run["fingerprint"]["preprocess"]["size"]
    store = run["settings"]["store"]
    layout = StoreLayout((height, width), map_size=store["map_size"])
    if store["map"] and layout.map_shape == (height, width):
        return
    there = "stored no maps as numbers"
    if store["map"]:
        there = "stored its maps at {}x{}, the network's input is {height}x{width}".format(*layout.map_shape, height=height, width=width)  # fmt: skip
    grey = ", and the 8-bit PNG ties too many pixels" if store["map_png"] else ""
    raise UsageError(
        f"{out} {there}: metrics need the whole map{grey}; explain the data anew with --store.map-size input into another --out, "
        "there with the metrics at once or with `heatlas evaluate` later"
    )
