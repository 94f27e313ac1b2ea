"""Location instability: how much the distance of a filter's peak from an object part varies over images; the smaller, the more is it a part's.

As the code of the paper's group has it (Zhang et al., interpretable CNNs): over the 100 images with the highest peaks that have the part,
the sample standard deviation of the distance, mean over parts, over the diagonal of the image; mean over all filters.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

HIGHEST = 100
"""Images with the highest peaks that count, at most."""
FEWEST = 2
"""Images that a filter and a part must share."""


def location_instability(
    places: Float[Tensor, "image filter 2"],
    peaks: Float[Tensor, "image filter"],
    parts: Float[Tensor, "image part 2"],
    *,
    diagonal: float = 2**0.5,
) -> Float[Tensor, " filter"]:
    """The instability of each filter; NaN where no part is shared with two images.

    Args:
        places: Of each filter's peak, x and y; NaN where it has none. Objects should be cropped by their boxes.
        peaks: How high each peak is.
        parts: Of each annotated part, x and y in the same units; NaN where an image does not have it.
        diagonal: Of the image in these units: that of a unit square by default.
    """
    distances = (places[:, :, None] - parts[:, None]).norm(dim=3).double()
    values = torch.full(distances.shape[1:], torch.nan, dtype=torch.float64)
    for number in range(distances.shape[1]):
        for part in range(distances.shape[2]):
            own = distances[:, number, part]
            there = own.isfinite()
            if int(there.sum()) >= FEWEST:
                highest = peaks[there, number].argsort(descending=True, stable=True)[:HIGHEST]
                values[number, part] = own[there][highest].std(correction=1)
    return values.nanmean(dim=1) / diagonal
