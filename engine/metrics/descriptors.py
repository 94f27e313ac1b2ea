"""What does the map look like? For sorting and searching a data set; neither high nor low is better.

Not defined for a map that is the same everywhere; the ones that read the map as mass not for negative values either.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..sise.fusion import otsu_thresholds
from .complexity import has_mass
from .protocol import Evidence, ExtraExplanations, Subject, metric, only_where, varies
from .ranking import average_ranks, correlation, rank_pixels, top_share

OURS = "heatlas"
FRAME = 0.1
OVERLAP_SHARE = 0.2
EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)


@metric(version=1, unit="share of mass", range=(0.0, 1.0), better="neither", needs="map", source=OURS)
def border_share(evidence: Evidence) -> Float[Tensor, " batch"]:
    """Sum of S in the frame / sum of S, the frame being the outer 10 % of the rows and columns on each side, at least one."""
    height, width = evidence.maps.shape[1:]
    rows, columns = max(1, round(FRAME * height)), max(1, round(FRAME * width))
    mass = evidence.maps.double()
    inner = mass[:, rows : height - rows, columns : width - columns].sum(dim=(1, 2))
    total = mass.sum(dim=(1, 2))
    return only_where(has_mass(evidence.maps), ((total - inner) / total).clamp(0, 1))


@metric(version=1, unit="share of width", range=(0.0, 1.0), better="neither", needs="map", source=OURS)
def centroid_x(evidence: Evidence) -> Float[Tensor, " batch"]:
    """Mean of (x + 0.5) / width weighted by S, x the pixel's column from the left: 0.5 is the middle."""
    return only_where(has_mass(evidence.maps), centroids(evidence.maps)[1] / evidence.maps.shape[2])


@metric(version=1, unit="share of height", range=(0.0, 1.0), better="neither", needs="map", source=OURS)
def centroid_y(evidence: Evidence) -> Float[Tensor, " batch"]:
    """Mean of (y + 0.5) / height weighted by S, y the pixel's row from the top: 0.5 is the middle."""
    return only_where(has_mass(evidence.maps), centroids(evidence.maps)[0] / evidence.maps.shape[1])


@metric(version=1, unit="share of the diagonal", range=(0.0, 0.5), better="neither", needs="map", source=OURS)
def spread(evidence: Evidence) -> Float[Tensor, " batch"]:
    """Root of the mean squared distance from the centroid weighted by S, over the diagonal, in pixels."""
    height, width = evidence.maps.shape[1:]
    down, right = centroids(evidence.maps)
    rows = torch.arange(height, device=down.device) + 0.5 - down[:, None]
    columns = torch.arange(width, device=down.device) + 0.5 - right[:, None]
    distance = rows[:, :, None] ** 2 + columns[:, None, :] ** 2
    mass = evidence.maps.double()
    mean = (mass * distance).sum(dim=(1, 2)) / mass.sum(dim=(1, 2))
    return only_where(has_mass(evidence.maps), mean.sqrt() / (height**2 + width**2) ** 0.5)


@metric(version=1, unit="regions", range=(0.0, float("inf")), better="neither", needs="map", source=OURS)
def n_components(evidence: Evidence) -> Float[Tensor, " batch"]:
    """Number of regions of the pixels above Otsu's threshold of S, joined over the 8 neighbours."""
    counts = [count_regions(region) for region in above_otsu(evidence.maps).cpu().numpy()]
    return only_where(varies(evidence.maps), torch.tensor(counts, dtype=torch.float64, device=evidence.maps.device))


@metric(version=1, unit="share of pixels", range=(0.0, 1.0), better="neither", needs="map", source=OURS)
def top_area(evidence: Evidence) -> Float[Tensor, " batch"]:
    """Share of the pixels above Otsu's threshold of S (256 bins over the map's own range)."""
    return only_where(varies(evidence.maps), above_otsu(evidence.maps).double().mean(dim=(1, 2)))


@metric(version=1, unit="correlation", range=(-1.0, 1.0), better="neither", needs="map", source=OURS, layers=True)
def layer_agreement(evidence: Evidence) -> Float[Tensor, " batch"]:
    """Mean over all pairs of blocks of Spearman's correlation of their maps V_l; not defined for fewer than two blocks.

    Raises:
        ValueError: When the block maps were not kept.
    """
    if evidence.layer_maps is None:
        raise ValueError("layer_agreement was asked for without the block maps")
    ranks = [average_ranks(layer.flatten(1)) for layer in evidence.layer_maps.unbind(dim=1)]
    pairs = [correlation(first, second) for first, second in itertools.combinations(ranks, 2)]
    return torch.stack(pairs).mean(dim=0) if pairs else torch.full_like(ranks[0][:, 0], torch.nan)


def label_and_prediction(subject: Subject) -> list[tuple[Tensor, int]]:
    """The image's label and its predicted class, where they differ."""
    if subject.label is None or subject.label == subject.prediction:
        return []
    return [(subject.image, subject.label), (subject.image, subject.prediction)]


BOTH_CLASSES = ExtraExplanations("label_and_prediction", 2, label_and_prediction)


@metric(
    version=1,
    unit="share of pixels",
    range=(0.0, 1.0),
    better="neither",
    needs="model",
    source=OURS,
    explains=(BOTH_CLASSES,),
)
def label_overlap(evidence: Evidence) -> Float[Tensor, " batch"]:
    """Intersection over union of the top 20 % pixels of the label's map and of the prediction's map, where the two differ.

    One of the two is the image's own map unless another class is explained. Not defined for an image without a label, for a
    label that is predicted, and where either class has no map.
    """
    both = evidence.explained[BOTH_CLASSES.name]
    size = (both.shape[2], both.shape[3])
    label, prediction = (top_share(rank_pixels(both[:, side].nan_to_num()), OVERLAP_SHARE, size) for side in (0, 1))
    shared, joint = (label & prediction).sum(dim=(1, 2)), (label | prediction).sum(dim=(1, 2))
    return only_where(both.isfinite().flatten(1).all(dim=1) & (joint > 0), shared.double() / joint)


def centroids(maps: Float[Tensor, "batch height width"]) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Centre of mass in pixels from the top and from the left, pixel centres at halves; float64."""
    mass = maps.double()
    total = mass.sum(dim=(1, 2))
    rows = torch.arange(maps.shape[1], device=maps.device) + 0.5
    columns = torch.arange(maps.shape[2], device=maps.device) + 0.5
    return (mass.sum(dim=2) * rows).sum(dim=1) / total, (mass.sum(dim=1) * columns).sum(dim=1) / total


def above_otsu(maps: Float[Tensor, "batch height width"]) -> Bool[Tensor, "batch height width"]:
    """The pixels above each map's own Otsu threshold, the same rule that gates the blocks."""
    return maps > otsu_thresholds(maps)[:, None, None]


def count_regions(mask: np.ndarray) -> int:
    """Regions of true pixels in `(height, width)`, joined over the 8 neighbours."""
    from scipy import ndimage  # here, because most runs do without it

    regions = np.empty(mask.shape, dtype=np.int32)
    return int(ndimage.label(mask, structure=EIGHT_NEIGHBOURS, output=regions))  # pyright: ignore[reportArgumentType]
