"""What a metric is: a name, one written definition, and how to measure it on a batch of maps.

A definition id (`drop_pct/v1`) never changes its meaning: a change of formula is a new version. Values are per image; NaN stands
for "not defined for this image" inside the engine and becomes null outside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..scorer import Fill


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that a metric may read, for a batch of images whose maps are `ok`."""

    maps: Float[Tensor, "batch height width"]
    order: Int[Tensor, "batch pixel"]
    """Flat pixel indices of every map, most relevant first."""
    truth: Bool[Tensor, "batch height width"] | None
    """Ground truth; None where the data set has none."""
    probes: dict[str, Float[Tensor, "batch variant"]]
    """Psi of the target on every variant of every probe that was asked for."""


@dataclass(frozen=True)
class Probe:
    """Variants of an image, derived from its map, whose scores a faithfulness metric reads."""

    name: str
    count: int
    """Variants per image, each one forward."""
    make: Callable[[Tensor, Tensor, Tensor], Fill]
    """(image `(channel, height, width)`, map `(height, width)`, order `(pixel,)`) -> fill of a scorer's job."""


@dataclass(frozen=True)
class Metric:
    """One metric and its one definition."""

    name: str
    version: int
    measure: Callable[[Evidence], Float[Tensor, " batch"]]
    unit: str
    range: tuple[float, float]
    better: Literal["higher", "lower", "neither"]
    needs: Literal["map", "truth", "model"]
    baseline: str
    """What takes the place of what is removed, or `none`."""
    source: str
    probes: tuple[Probe, ...] = ()

    @property
    def definition(self) -> str:
        """The id written beside the column."""
        return f"{self.name}/v{self.version}"

    @property
    def formula(self) -> str:
        """The definition in words: the first line of the measuring function's docstring."""
        return (self.measure.__doc__ or "").strip().split("\n")[0]

    @property
    def forwards(self) -> int:
        """Forward passes per image when measured alone; probes shared with other metrics are paid once."""
        return sum(probe.count for probe in self.probes)


METRICS: dict[str, Metric] = {}
"""Every metric by name, in the order of registration."""


def metric(
    *,
    version: int,
    unit: str,
    range: tuple[float, float],
    better: Literal["higher", "lower", "neither"],
    needs: Literal["map", "truth", "model"],
    source: str,
    baseline: str = "none",
    probes: tuple[Probe, ...] = (),
) -> Callable[[Callable[[Evidence], Tensor]], Callable[[Evidence], Tensor]]:
    """Register the decorated function under its own name."""

    def register(measure: Callable[[Evidence], Tensor]) -> Callable[[Evidence], Tensor]:
        name = measure.__name__
        METRICS[name] = Metric(name, version, measure, unit, range, better, needs, baseline, source, probes)
        return measure

    return register
