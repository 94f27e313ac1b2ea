"""UCAG, Unfold and Conquer Attribution Guidance (Hong et al., AAAI 2023): any CAM, made of enlarged crops.

Six by six crops are explained one by one for the same class; their raw maps, weighed by exp(probability), are put back into place
and divided by the number of crops over a pixel plus one, as released: a constant map comes out 0.5 in the corners and 0.973 in
the middle. `count_offset=0` is without that bias to the centre.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...errors import SettingsError, did_you_mean
from ..fill import gaussian_blur
from ..scoring.confidence import softmax_probability
from . import grad_cam, grad_cam_pp, layer_cam
from .batch_settings import CamSettings, IntegratedGradientsSettings, UcagSettings
from .cams import Cam, RawMaps
from .integrated_gradients import IntegratedGradients
from .normalise import over_max, spread, upsampled
from .protocol import Cost, MethodMaps, method

GRID = 6
"""Crops along each side."""
CROP = (124, 224)
"""A crop's side over the image's."""
SMOOTH = (3.0, 5)
"""Sigma and side of the blur of the finished map."""


class Base(Protocol):
    """What a method must offer to be explained crop by crop."""

    @property
    def pixelwise(self) -> bool:
        """Whether the raw map is at the input's resolution."""
        ...

    @property
    def raw_cost(self) -> Cost:
        """Passes of `raw`."""
        ...

    def raw(self, images: Tensor, targets: Tensor) -> RawMaps: ...


BASES: dict[str, Callable[[nn.Module], Base]] = {
    "grad_cam": lambda model: Cam(model, CamSettings(), grad_cam.weigh),
    "grad_cam_pp": lambda model: Cam(model, CamSettings(), grad_cam_pp.weigh),
    "layer_cam": lambda model: Cam(model, CamSettings(), layer_cam.weigh),
    "integrated_gradients": lambda model: IntegratedGradients(model, IntegratedGradientsSettings()),
}


@dataclass(frozen=True)
class CropAxis:
    """Where crops lie along one side of the image."""

    side: int
    crop: int
    stride: int

    @classmethod
    def of(cls, side: int) -> CropAxis:
        """crop = floor(side * 124 / 224), stride = floor((side - (crop - 1) + 1) / 5)."""
        crop = max(1, side * CROP[0] // CROP[1])
        return cls(side, crop, (side - (crop - 1) + 1) // (GRID - 1))

    @property
    def canvas(self) -> int:
        """Length of what the crops cover; not always the side's, to which it is then stretched."""
        return (GRID - 1) * self.stride + self.crop

    def shown(self, number: int) -> slice:
        """Pixels of the image in a crop; the last may reach over the edge and is cut there."""
        start = number * self.stride
        return slice(start, min(start + self.crop, self.side))

    def place(self, number: int) -> slice:
        """Where the crop's map goes on the canvas."""
        return slice(number * self.stride, number * self.stride + self.crop)


class Ucag:
    """Explains every image by its crops, the same crop of all images in one pass."""

    def __init__(self, base: Base, settings: UcagSettings):
        self._base = base
        self._settings = settings

    def explain(
        self,
        images: Float[Tensor, "batch channel height width"],
        targets: Int[Tensor, " batch"],
        seeds: Sequence[int],
    ) -> MethodMaps:
        """The map, and the target's probability in every crop; `seeds` are not used."""
        down, across = CropAxis.of(images.shape[2]), CropAxis.of(images.shape[3])
        canvas = images.new_zeros(len(images), down.canvas, across.canvas, dtype=torch.float64)
        counts = torch.zeros_like(canvas[0])
        confidence = images.new_zeros(len(images), GRID, GRID, dtype=torch.float32)
        for row in range(GRID):
            for column in range(GRID):
                crop = images[:, :, down.shown(row), across.shown(column)]
                raw = self._base.raw(self._enlarged(crop, down, across), targets)
                found = softmax_probability(raw.logits, targets)
                confidence[:, row, column] = found
                part = upsampled(raw.maps.double(), (down.crop, across.crop))
                canvas[:, down.place(row), across.place(column)] += found.double().exp()[:, None, None] * part
                counts[down.place(row), across.place(column)] += 1
        maps = conquered(canvas / (counts + self._settings.count_offset).clamp(min=1), images, self._base.pixelwise)
        return MethodMaps(maps, passes(self._base.raw_cost), {"crop_confidence": confidence})

    def extra_shapes(self, image: Float[Tensor, "channel height width"]) -> dict[str, tuple[int, ...]]:
        """One number per crop."""
        return {"crop_confidence": (GRID, GRID)}

    def _enlarged(self, crop: Tensor, down: CropAxis, across: CropAxis) -> Tensor:
        size = [max(1, int(axis.crop * self._settings.magnify)) for axis in (down, across)]
        return F.interpolate(crop, size=size, mode="bicubic", align_corners=False)


def conquered(
    canvas: Float[Tensor, "batch h w"], images: Float[Tensor, "batch channel height width"], pixelwise: bool
) -> Float[Tensor, "batch height width"]:
    """Positive part, stretched to the image's size; of a CAM also min-maxed and smoothed."""
    whole = upsampled(canvas.relu(), (images.shape[2], images.shape[3]))
    if pixelwise:
        return over_max(whole).float()
    return gaussian_blur(spread(whole)[:, None], *SMOOTH)[:, 0].float()


def passes(one: Cost) -> Cost:
    """Of all crops."""
    return Cost(GRID**2 * one.forwards, GRID**2 * one.backwards)


def cost(settings: UcagSettings) -> Cost:
    """Of the base on every crop."""
    if settings.base == "integrated_gradients":
        steps = IntegratedGradientsSettings().steps
        return passes(Cost(steps + 1, steps))
    return passes(Cost(1, 1))


@method(
    name="ucag",
    summary="a CAM of 36 enlarged crops, each counted by the confidence that it leaves; for small objects",
    source="Hong et al., AAAI 2023, as in its released code",
    architecture="cnn",
    settings=UcagSettings,
    cost=cost,
    gradients=True,
    signed=True,
    extras={"crop_confidence": "probability of the target in each of the 6 x 6 crops, by rows"},
)
def build(model: nn.Module, settings: UcagSettings) -> Ucag:
    if settings.base not in BASES:
        raise SettingsError(
            f"base must be one of {', '.join(BASES)}, got {settings.base!r}{did_you_mean(settings.base, BASES)}"
        )
    return Ucag(BASES[settings.base](model), settings)
