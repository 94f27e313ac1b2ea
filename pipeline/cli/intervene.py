"""`heatlas intervene`: whether the model needs a region, and whether the region is enough."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from ..text import harmless
from .arguments import Json, Store


def intervene_command(
    store: Store,
    /,
    *,
    region: Annotated[
        str,
        Parameter(help="Place (lower_left, top, centre, border, ...), box x0,y0,x1,y1 in shares of the input, clusters, cluster:CLASS:NUMBER, masks (painted shortcuts), or cues (of curate --probe).", metavar="REGION"),
    ],
    classes: Annotated[list[str] | None, Parameter(name="--class", help="Only these classes, by name or number.")] = None,
    images: Annotated[int, Parameter(help="Most images measured per class or cluster, at least 5.")] = 64,
    receivers: Annotated[int, Parameter(help="Images of other classes that each region is pasted into.")] = 8,
    controls: Annotated[int, Parameter(help="Control regions of equal area per image.")] = 8,
    fill: Annotated[
        str, Parameter(help="What takes a region's place: surround, mean, blur, impute, or package.module:callable.", metavar="NAME|MODULE:CALLABLE")
    ] = "surround",
    method: Annotated[str | None, Parameter(help="Method of the rows, where there are several; default: the most frequent.")] = None,
    batch_size: Annotated[int, Parameter(help="Inputs per forward.")] = 64,
    seed: Annotated[int, Parameter(help="Seed of samples, control regions and resamples.")] = 0,
    as_json: Json = False,
) -> int:  # fmt: skip
    """Remove a region from images and paste it into others, against equal-area controls and other classes: is it needed, is it enough?

    Example: `heatlas intervene maps/ --region lower_left --class octagon`
    """
    from ..intervene.intervene import intervene_store, intervention_json

    measured = intervene_store(
        store,
        region,
        classes=classes,
        images=images,
        receivers=receivers,
        controls=controls,
        fill=fill,
        method=method,
        batch_size=batch_size,
        seed=seed,
    )
    print(intervention_json(measured) if as_json else harmless(measured.text()))
    return 0
