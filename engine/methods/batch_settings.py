"""Settings of the methods that explain a batch of images at once. No torch here: a command line reads them, too."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ...errors import SettingsError
from ..fill_kinds import BASELINES

SIGNS = ("positive", "absolute")
BASELINE_TEXT = "what stands for absence: zero (in network-input space), mean (of the image) or blur (of the image)"


def option(default: Any, text: str) -> Any:
    """A setting with its explanation."""
    return field(default=default, metadata={"help": text})


def require(holds: bool, text: str) -> None:
    """Refuse a value.

    Raises:
        SettingsError: With the text, unless the condition holds.
    """
    if not holds:
        raise SettingsError(text)


def require_one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse a value that is not one of these.

    Raises:
        SettingsError: Naming the value and what it may be.
    """
    require(value in known, f"{name} must be one of {', '.join(known)}, got {value!r}")


@dataclass(frozen=True)
class CamSettings:
    """Of Grad-CAM, Grad-CAM++ and LayerCAM."""

    layer: str | None = option(None, "layer to read; the last block layer of SISE's plan unless named")


@dataclass(frozen=True)
class RefineCamSettings:
    """Of RefineCAM."""

    layers: tuple[str, ...] | None = option(None, "layers to multiply; the last `depth` block layers unless named")
    depth: int = option(4, "how many of the last block layers, at least 1, where `layers` names none")
    base: Literal["grad_cam", "grad_cam_pp", "layer_cam"] = option(
        "grad_cam_pp", "CAM of each layer: grad_cam, grad_cam_pp or layer_cam"
    )

    def __post_init__(self) -> None:
        require(self.depth >= 1, f"depth must be at least 1, got {self.depth}")
        require(self.layers is None or len(self.layers) > 0, "layers must name at least one layer, or be left out")
        require_one_of("base", self.base, ("grad_cam", "grad_cam_pp", "layer_cam"))


@dataclass(frozen=True)
class IntegratedGradientsSettings:
    """Of Integrated Gradients."""

    steps: int = option(32, "points of the path, at least 1: forwards and backwards per image")
    baseline: Literal["zero", "mean", "blur"] = option("zero", BASELINE_TEXT)
    sign: Literal["positive", "absolute"] = option(
        "positive", "what of the signed map is kept: positive (evidence for) or absolute"
    )

    def __post_init__(self) -> None:
        require(self.steps >= 1, f"steps must be at least 1, got {self.steps}")
        require_one_of("baseline", self.baseline, BASELINES)
        require_one_of("sign", self.sign, SIGNS)


@dataclass(frozen=True)
class OcclusionSettings:
    """Of occlusion."""

    positions: int = option(
        13, "places of the occluder along each side, at least 2: its square is the number of forwards"
    )
    window: float = option(1 / 7, "side of the occluder as a share of the image's side, in (0, 1)")
    baseline: Literal["zero", "mean", "blur"] = option("zero", BASELINE_TEXT)
    output: Literal["probability", "logit"] = option("probability", "whose fall is measured: probability or logit")

    def __post_init__(self) -> None:
        require(self.positions >= 2, f"positions must be at least 2, got {self.positions}")
        require(0 < self.window < 1, f"window must be in (0, 1), got {self.window}")
        require_one_of("baseline", self.baseline, BASELINES)
        require_one_of("output", self.output, ("probability", "logit"))


@dataclass(frozen=True)
class DaamSettings:
    """Of DAAM."""

    norm_per_block: bool = option(False, "divide every block's map by its maximum before they are added up")
    rendering: bool = option(False, "pass the map through sigmoid(5 x) - 0.5 as the authors' pictures do")


@dataclass(frozen=True)
class UcagSettings:
    """Of UCAG."""

    base: str = option("grad_cam", "the method that explains each crop")
    magnify: float = option(2.6, "factor by which a crop is enlarged, above 0: of a crop of 124, 2.6 makes 322")
    count_offset: int = option(
        1, "added to the number of crops over a pixel; 1 as released, 0 for no bias to the centre"
    )

    def __post_init__(self) -> None:
        require(self.magnify > 0, f"magnify must be above 0, got {self.magnify}")
        require(self.count_offset in (0, 1), f"count_offset must be 0 or 1, got {self.count_offset}")


@dataclass(frozen=True)
class FovexSettings:
    """Of FovEx."""

    fixations: int = option(10, "fixations, at least 1")
    steps: int = option(20, "gradient steps for each fixation, at least 1: forwards and backwards")
    step_size: float = option(0.1, "of a gradient step, in half image sides, above 0")
    fovea: float = option(0.15, "spread s of the fovea exp(-distance^2 / s), above 0, in half image sides squared")
    memory: float = option(0.1, "share of what was seen that is still seen at the next fixation, in [0, 1]")
    random_restart: bool = option(True, "draw the position anew where a step did not improve")
    best_after_step: bool = option(
        False, "keep the position after the best step, as the released code, not the one that was measured"
    )
    seed: int = option(0, "of the random positions, at least 0")

    def __post_init__(self) -> None:
        require(self.fixations >= 1, f"fixations must be at least 1, got {self.fixations}")
        require(self.steps >= 1, f"steps must be at least 1, got {self.steps}")
        require(self.step_size > 0, f"step_size must be above 0, got {self.step_size}")
        require(self.fovea > 0, f"fovea must be above 0, got {self.fovea}")
        require(0 <= self.memory <= 1, f"memory must be in [0, 1], got {self.memory}")
        require(self.seed >= 0, f"seed must be at least 0, got {self.seed}")


@dataclass(frozen=True)
class ConsensusSettings:
    """Of consensus."""

    of: tuple[str, ...] = option(
        ("grad_cam", "grad_cam_pp", "layer_cam", "integrated_gradients"), "methods that are averaged, two or more"
    )

    def __post_init__(self) -> None:
        require(len(set(self.of)) >= 2, f"of must name two methods or more, got {', '.join(self.of) or 'none'}")
        require(len(set(self.of)) == len(self.of), f"of names a method twice: {', '.join(self.of)}")
        require("consensus" not in self.of, "of must not name consensus itself")
