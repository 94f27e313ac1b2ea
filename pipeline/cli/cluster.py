"""`heatlas cluster`: cluster the maps of every class."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from ..text import harmless
from .status import Out


def cluster_command(
    out: Out,
    /,
    *,
    target: Annotated[
        Literal["predicted", "label"],
        Parameter(help="Cluster the rows that explain their predicted class, or their label."),
    ] = "predicted",
    min_size: Annotated[
        int | None, Parameter(help="Fewest maps of a cluster, at least 2; by default 2 % of the class's, at least 5.")
    ] = None,
    side: Annotated[
        int, Parameter(help="Longer side to which maps are reduced before they are compared, 2 to 64.")
    ] = 14,
    seed: Annotated[int, Parameter(help="Seed of the samples that large classes need.")] = 0,
) -> int:
    """Cluster the maps of every class, so that images that share one mark stand together, and write them to OUT/clusters."""
    from ..atlas import open_atlas
    from ..cluster.cluster import cluster_maps, clusters_text

    clusters = cluster_maps(open_atlas(out), target=target, min_size=min_size, side=side, seed=seed)
    print(harmless(clusters_text(clusters, clusters.write(out))))
    return 0
