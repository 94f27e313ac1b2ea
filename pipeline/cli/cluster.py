"""`heatlas cluster`: groups of similar maps in each class."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from ..text import harmless
from .arguments import Store


def cluster_command(
    store: Store,
    /,
    *,
    target: Annotated[
        Literal["predicted", "label"], Parameter(help="Cluster the rows that explain their predicted class, or their label.")
    ] = "predicted",
    min_size: Annotated[
        int | None, Parameter(help="Smallest cluster in maps, at least 2; default: 2 % of the class's, at least 5.")
    ] = None,
    side: Annotated[int, Parameter(help="Longer side in pixels to which maps are reduced first, 2 to 64.")] = 14,
    seed: Annotated[int, Parameter(help="Seed of the samples that large classes need.")] = 0,
    features: Annotated[
        bool, Parameter(help="Compare the images' features, too: what the model sees where it looks.", negative="")
    ] = False,
) -> int:  # fmt: skip
    """Group similar maps in every class, such as those that hang on one watermark; writes STORE/clusters.

    Example: `heatlas cluster maps/ --min-size 10`
    """
    from ..atlas import open_atlas
    from ..cluster.cluster import cluster_maps, clusters_text

    clusters = cluster_maps(
        open_atlas(store), target=target, min_size=min_size, side=side, seed=seed, features=features
    )
    print(harmless(clusters_text(clusters, clusters.write(store))))
    return 0
