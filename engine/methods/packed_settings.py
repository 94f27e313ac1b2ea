"""Settings of the methods on the packed scorer. No torch here: a command line reads them, too."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..fill_kinds import BASELINES
from .batch_settings import option, require, require_one_of

GATES = ("otsu", "soft")
LAYERS_TEXT = "layers to use instead of the block ends found by themselves, low to high; see `heatlas layers`"
BASELINE_TEXT = (
    "take the score of the fully masked input from every mask's, so that masks that show nothing do not count"
)
FILL_TEXT = "what is seen where a mask is 0: zero (in network-input space), the image's mean colour, or its blur"
GATE_TEXT = "otsu for steps, soft for steep sigmoids at the same thresholds"


@dataclass(frozen=True)
class SiseSettings:
    """Of SISE."""

    mu: float = field(
        default=0.0,
        metadata={
            "help": "keep feature maps whose gradient exceeds mu times the layer's largest; higher is faster", "ge": 0, "lt": 1,
        },
    )  # fmt: skip
    layers: tuple[str, ...] | None = option(None, LAYERS_TEXT)
    baseline: bool = option(False, BASELINE_TEXT)
    fill: Literal["zero", "mean", "blur"] = option("zero", FILL_TEXT)
    gate: Literal["otsu", "soft"] = option("otsu", GATE_TEXT)

    def __post_init__(self) -> None:
        require(0 <= self.mu < 1, f"mu must be in [0, 1), got {self.mu}: at 1 no map exceeds the largest")
        check_options(self)


@dataclass(frozen=True)
class AdaSiseSettings:
    """Of Ada-SISE."""

    layers: tuple[str, ...] | None = option(None, LAYERS_TEXT)
    baseline: bool = option(False, BASELINE_TEXT)
    fill: Literal["zero", "mean", "blur"] = option("zero", FILL_TEXT)
    gate: Literal["otsu", "soft"] = option("otsu", GATE_TEXT)

    def __post_init__(self) -> None:
        check_options(self)


def check_options(one: SiseSettings | AdaSiseSettings) -> None:
    """Refuse what is none of the names.

    Raises:
        SettingsError: Naming the value and what it may be.
    """
    require_one_of("fill", one.fill, BASELINES)
    require_one_of("gate", one.gate, GATES)


@dataclass(frozen=True)
class RiseSettings:
    """Of RISE."""

    masks: int = option(4000, "random masks per image, at least 1: forwards")
    grid: int = option(7, "cells of a mask along each side, at least 2")
    p: float = option(0.5, "probability that a cell is shown, in (0, 1)")
    seed: int = option(0, "of the masks, at least 0; each image has its own")

    def __post_init__(self) -> None:
        require(self.masks >= 1, f"masks must be at least 1, got {self.masks}")
        require(self.grid >= 2, f"grid must be at least 2, got {self.grid}")
        require(0 < self.p < 1, f"p must be in (0, 1), got {self.p}")
        require(self.seed >= 0, f"seed must be at least 0, got {self.seed}")


@dataclass(frozen=True)
class ScoreCamSettings:
    """Of Score-CAM."""

    layer: str | None = option(None, "layer to read; the last block layer of SISE's plan unless named")
    weights: Literal["softmax", "probability"] = option(
        "softmax",
        "of maps: softmax of their logits, as in the paper's algorithm, or probability, as in the authors' code",
    )

    def __post_init__(self) -> None:
        require_one_of("weights", self.weights, ("softmax", "probability"))
