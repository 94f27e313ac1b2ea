"""The masks of one layer for one image, made just in time, and the map that they add up to."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float, Int

from ..lazy_torch import torch
from ..requests import Fill, Job
from ..transfer import to_host
from .masks import (
    Beta,
    above_otsu_share,
    above_share,
    coarse,
    extremes,
    min_max,
    on_grid,
    upsample,
    upsampled_sums,
    varying,
)

CHUNK = 64
"""Masks upsampled at once where no batch says how many."""


class LayerMasks:
    """The kept maps of one layer, which make masks just in time and never hold more than a batch's worth upsampled.

    Args:
        image: Network input.
        maps: The layer's.
        alphas: Average gradient of each map.
        mu: Share of the largest that an alpha must exceed; None for Ada-SISE's threshold.
        target: The class.
        behind: What is seen where a mask is 0; None for zeros.
        beta: Which maps decide what `mu` is a share of.
        facts: The layer's row of `layer_facts`, where it is on the host already.
    """

    def __init__(
        self,
        image: torch.Tensor,
        maps: torch.Tensor,
        alphas: torch.Tensor,
        mu: float | None,
        target: int | None,
        behind: torch.Tensor | None = None,
        *,
        beta: Beta = "kept",
        facts: Sequence[float] | None = None,
    ):
        self.image = image
        self.behind = behind
        self.size = (image.shape[1], image.shape[2])
        finite, *rest = to_host(layer_facts(maps, alphas)) if facts is None else facts
        self.finite = bool(finite)
        kept = selected(rest, mu, beta, alphas.dtype) if self.finite else torch.zeros(0, dtype=torch.long)
        kept = kept.to(maps.device, non_blocking=True)
        self.maps = maps.index_select(0, kept).contiguous()
        self.alphas = alphas.index_select(0, kept)
        """Of the kept maps."""
        self.low = self.maps.new_empty(len(self.maps))
        self.job = Job(count=len(self.maps), target=-1 if target is None else target, fill=self.fill)

    def fill(self, start: int, out: torch.Tensor) -> None:
        """`I * m` for the masks from `start` on: a plain product in network-input space; plus `behind * (1 - m)`."""
        full = upsample(self.maps[start : start + len(out)], self.size)
        low, high = extremes(full)
        self.low[start : start + len(out)] = low
        self._mask(min_max(full, low, high)[:, None], out)

    def fill_some(self, places: torch.Tensor) -> Fill:
        """As `fill`, for the masks at these places only; their extremes must be known."""

        def fill(start: int, out: torch.Tensor) -> None:
            some = places[start : start + len(out)]
            full = upsample(self.maps[some], self.size)
            self._mask(min_max(full, *extremes(full))[:, None], out)

        return fill

    def survey(self) -> tuple[Float[torch.Tensor, "mask pixel"], Float[torch.Tensor, " mask"]]:
        """Every mask on the coarse grid, and its sum over pixels, without a forward; takes note of what `weighted_sum` needs."""
        high = torch.empty_like(self.low)
        for start in range(0, len(self.maps), CHUNK):
            part = slice(start, start + CHUNK)
            self.low[part], high[part] = extremes(upsample(self.maps[part], self.size))
        return coarse(self.maps, self.low, high), self._mass() / (high - self.low).double().clamp(min=1e-300)

    def evidence(self) -> Float[torch.Tensor, " pixel"]:
        """Where the kept maps speak for the class, on the coarse grid: this layer's Grad-CAM, at least 0, float64."""
        evidence = torch.einsum("k,khw->hw", self.alphas.double(), self.maps.double())
        return on_grid(evidence[None])[0].clamp(min=0)

    def areas(self) -> Float[torch.Tensor, " mask"]:
        """Mean of every mask over the pixels, in (0, 1); without a forward."""
        return self.survey()[1] / (self.size[0] * self.size[1])

    def weighted_sum(
        self, baseline: float | torch.Tensor = 0.0, scores: Float[torch.Tensor, " mask"] | None = None
    ) -> Float[torch.Tensor, "height width"]:
        """V_l of eq. 12, of other scores than the masks' own where some are given, the baseline taken from every one, up to a positive factor and a constant, both of which min-max removes; float64.

        With m = (U - low) / (high - low), U the upsampled map, m / sum(m) = (U - low) / (sum(U) - pixels * low); and as upsampling
        is linear, the weighted maps are summed at the layer's own resolution and upsampled once.
        """
        mass = self._mass()
        values = self.job.scores if scores is None else scores
        weights = torch.where(mass > 0, (values.double() - baseline) / mass, 0)
        total = torch.einsum("k,khw->hw", weights, self.maps.double())
        return upsample(total[None], self.size)[0]

    def _mask(self, masks: torch.Tensor, out: torch.Tensor) -> None:
        if self.behind is None:
            torch.mul(self.image, masks, out=out)
        else:
            torch.addcmul(self.behind, self.image - self.behind, masks, out=out)

    def _mass(self) -> Float[torch.Tensor, " mask"]:
        return upsampled_sums(self.maps, self.size) - self.low.double() * (self.size[0] * self.size[1])


def layer_facts(
    maps: Float[torch.Tensor, "*batch channel h w"], alphas: Float[torch.Tensor, "*batch channel"]
) -> Float[torch.Tensor, "*batch fact"]:
    """What the selection of masks reads, on the device, float64: whether all is finite, which maps vary, and the alphas."""
    finite = maps.flatten(-3).isfinite().all(dim=-1) & alphas.isfinite().all(dim=-1)
    return torch.cat([finite[..., None].double(), varying(maps).double(), alphas.double()], dim=-1)


def selected(facts: Sequence[float], mu: float | None, beta: Beta, dtype: torch.dtype) -> Int[torch.Tensor, " kept"]:
    """Channels that become masks, ascending; `mu` None for Ada-SISE's threshold. On the host: the alphas are a few thousand numbers,
    and their choice on a device would wait for it once per layer."""
    varies, alphas = torch.tensor(facts, dtype=torch.float64).chunk(2)
    alphas = alphas.to(dtype)
    chosen = above_otsu_share(varies > 0, alphas) if mu is None else above_share(varies > 0, alphas, mu, beta)
    return chosen.nonzero()[:, 0]
