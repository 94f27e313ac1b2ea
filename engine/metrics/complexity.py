"""How concentrated is the map? Needs nothing but the map; says nothing about whether the map is right.

Not defined for a map that is the same everywhere, and entropy and Gini index only for maps without negative values.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .protocol import Evidence, metric, only_where, varies


@metric(
    version=1, unit="nats", range=(0.0, float("inf")), better="lower", needs="map",
    source="Bhatt et al., IJCAI 2020, section 5.3 (complexity)",
)  # fmt: skip
def entropy(evidence: Evidence) -> Float[Tensor, " batch"]:
    """-sum q ln q, q = S / sum S: the Shannon entropy of the map's mass over the pixels, at most ln(height * width)."""
    mass = evidence.maps.flatten(1).double()
    share = mass / mass.sum(dim=1, keepdim=True)
    return only_where(has_mass(evidence.maps), torch.special.entr(share).sum(dim=1))


@metric(
    version=1, unit="index", range=(0.0, 1.0), better="higher", needs="map",
    source="Chalasani et al., ICML 2020, section 4 (sparseness); Hurley and Rickard 2009",
)  # fmt: skip
def gini(evidence: Evidence) -> Float[Tensor, " batch"]:
    """sum_k (2k - n - 1) s_k / (n sum S), s_1 <= ... <= s_n the pixels in ascending order: 0 is even, near 1 is one pixel."""
    ordered = evidence.maps.flatten(1).double().sort(dim=1).values
    count = ordered.shape[1]
    weights = 2 * torch.arange(1, count + 1, device=ordered.device, dtype=ordered.dtype) - count - 1
    return only_where(has_mass(evidence.maps), (weights * ordered).sum(dim=1) / (count * ordered.sum(dim=1)))


@metric(
    version=1, unit="share", range=(0.0, 1.0), better="lower", needs="map",
    source="Poppi et al., CVPR workshops 2021, section 3 (complexity)",
)  # fmt: skip
def complexity_l1(evidence: Evidence) -> Float[Tensor, " batch"]:
    """Mean of S over the pixels, S in [0, 1]: the L1 norm over the number of pixels.

    It depends on the map's scale (SISE's S / B seldom reaches 1), so it compares only maps that are scaled alike.
    """
    return only_where(varies(evidence.maps), evidence.maps.flatten(1).abs().mean(dim=1, dtype=torch.float64))


def has_mass(maps: Float[Tensor, "batch height width"]) -> Bool[Tensor, " batch"]:
    """Whether the map can be read as a distribution of mass: not constant, nowhere negative."""
    return varies(maps) & (maps.flatten(1).amin(dim=1) >= 0)
