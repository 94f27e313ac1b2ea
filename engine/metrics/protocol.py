"""What a metric is: a name, one written definition, and how to measure it on a batch of maps.

A definition id (`drop_pct/v1`) never changes its meaning: a change of formula is a new version. Values are per image; NaN stands
for "not defined for this image" inside the engine and becomes null outside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..random import sample_generator
from ..requests import Fill

Direction = Literal["higher", "lower", "neither"]
Need = Literal["map", "truth", "model"]
Reads = Literal["confidence", "logit", "truth"]


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that a metric may read, for a batch of images whose maps are `ok`."""

    maps: Float[Tensor, "batch height width"]
    order: Int[Tensor, "batch pixel"]
    """Flat pixel indices of every map, most relevant first."""
    truth: Bool[Tensor, "batch height width"] | None = None
    """Ground truth; None where the data set has none."""
    probes: dict[str, Float[Tensor, "batch _variant"]] = field(default_factory=dict)
    """Psi of the target on every variant of every probe that was asked for."""
    notes: dict[str, Float[Tensor, "batch _variant"]] = field(default_factory=dict)
    """What a probe noted about each of its variants when it made them."""
    explained: dict[str, Float[Tensor, "batch _variant height width"]] = field(default_factory=dict)
    """The maps of every further explanation that was asked for; NaN where one has no map."""
    layer_maps: Float[Tensor, "batch layer height width"] | None = None
    """The block maps V_l; None unless a metric asks for them."""
    targets: Int[Tensor, " batch"] | None = None
    """The classes that are explained; None unless a metric asks for scenes."""
    scenes: Int[Tensor, "batch height width"] | None = None
    """Of dense models the class of every pixel; None unless a metric asks for them."""


@dataclass(frozen=True, eq=False)
class Subject:
    """One explained image: what probes and further explanations are made from."""

    image: Float[Tensor, "channel height width"]
    """In network-input space."""
    map: Float[Tensor, "height width"]
    order: Int[Tensor, " pixel"]
    target: int
    prediction: int
    label: int | None = None
    """The class that the data set gives the image; None where it gives none."""
    seed: int = 0
    sample: int = 0
    truth: Bool[Tensor, "height width"] | None = None
    """Ground truth; None where the data set has none."""

    def generator(self, purpose: str) -> torch.Generator:
        """This image's own random numbers for one purpose."""
        return sample_generator(self.seed, self.sample, purpose)


@dataclass(frozen=True, eq=False)
class Variants:
    """What a probe makes of one image."""

    fill: Fill
    notes: Float[Tensor, " variant"] | None = None
    """One number beside each variant, for the metric to read."""


@dataclass(frozen=True)
class Probe:
    """Variants of an image, derived from its map, whose scores a metric reads."""

    name: str
    count: int
    """Variants per image, each one forward."""
    make: Callable[[Subject], Variants]
    of_map: bool = True
    """Whether the variants depend on the map; those that do not serve every map of the image."""
    reads: Reads = "confidence"
    """What its scores are: Psi; the target's logit (of dense models Psi, too); of dense models the IoU of the pixels that get the target with
    the ground truth, -1 where there is none or the model is not dense."""
    together: Callable[[Sequence[Subject]], list[Variants]] | None = None
    """As `make` for several images at once, where that is worth more than one after the other."""


@dataclass(frozen=True)
class ExtraExplanations:
    """Further explanations that a metric compares with the image's own."""

    name: str
    count: int
    """Explanations per image at most, each as dear as the image's own."""
    make: Callable[[Subject], list[tuple[Tensor, int]]]
    """(image, target) pairs; the subject's own image and target cost nothing, and fewer pairs than `count` are filled with NaN."""


@dataclass(frozen=True)
class Metric:
    """One metric and its one definition."""

    name: str
    version: int
    measure: Callable[[Evidence], Float[Tensor, " batch"]]
    unit: str
    range: tuple[float, float]
    better: Direction
    needs: Need
    baseline: str
    """What takes the place of what is removed, or `none`."""
    source: str
    probes: tuple[Probe, ...] = ()
    explains: tuple[ExtraExplanations, ...] = ()
    layers: bool = False
    """Whether it reads the block maps, which are kept only then."""
    dense: bool = False
    """Whether it is defined for dense models only, and may read scenes."""

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
        """Forward passes per image when measured alone, explanations apart; probes shared with other metrics are paid once."""
        return sum(probe.count for probe in self.probes)

    @property
    def explanations(self) -> int:
        """Further explanations per image, at most; shared ones are paid once."""
        return sum(further.count for further in self.explains)


METRICS: dict[str, Metric] = {}
"""Every metric by name, in the order of registration."""


def metric(
    *,
    version: int,
    unit: str,
    range: tuple[float, float],
    better: Direction,
    needs: Need,
    source: str,
    baseline: str = "none",
    probes: tuple[Probe, ...] = (),
    explains: tuple[ExtraExplanations, ...] = (),
    layers: bool = False,
    dense: bool = False,
) -> Callable[[Callable[[Evidence], Tensor]], Callable[[Evidence], Tensor]]:
    """Register the decorated function under its own name."""

    def register(measure: Callable[[Evidence], Tensor]) -> Callable[[Evidence], Tensor]:
        name = measure.__name__
        METRICS[name] = Metric(
            name, version, measure, unit, range, better, needs, baseline, source, probes, explains, layers, dense
        )  # fmt: skip
        return measure

    return register


def only_where(defined: Bool[Tensor, " batch"], values: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """The values where the metric is defined and finite, NaN elsewhere: what becomes null is never a number."""
    return torch.where(defined & values.isfinite(), values, torch.nan)


def varies(maps: Float[Tensor, "batch height width"]) -> Bool[Tensor, " batch"]:
    """Whether a map ranks any pixel above another: a constant, an all-zero and a one-pixel map do not."""
    flat = maps.flatten(1)
    return flat.amax(dim=1) > flat.amin(dim=1)
