"""UCAG, Unfold and Conquer Attribution Guidance (Hong et al., AAAI 2023): any CAM, made of enlarged crops.

Six by six crops are explained one by one for the same class; their raw maps, weighed by exp(probability), are put back into place
and divided by the number of crops over a pixel plus one, as released: a constant map comes out 0.5 in the corners and 0.973 in
the middle. `count_offset=0` is without that bias to the centre.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jaxtyping import Float, Int

from ...errors import did_you_mean
from ..fill import gaussian_blur
from ..lazy_torch import F, torch
from ..scoring.confidence import softmax_probability
from .batch_method import BatchMethod, MethodMaps
from .cams import CAMS, Cam
from .integrated_gradients import IntegratedGradients
from .normalise import over_max, spread, upsampled
from .protocol import METHODS, Cost, method, require, setting

GRID = 6
"""Crops along each side."""
CROP = (124, 224)
"""A crop's side over the image's."""
SMOOTH = (3.0, 5)
"""Sigma and side of the blur of the finished map."""
BASES: dict[str, type[Cam | IntegratedGradients]] = {**CAMS, "integrated_gradients": IntegratedGradients}
"""Methods that can be asked for raw maps of a crop."""


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


def conquered(
    canvas: Float[torch.Tensor, "batch h w"], images: Float[torch.Tensor, "batch channel height width"], pixelwise: bool
) -> Float[torch.Tensor, "batch height width"]:
    """Positive part, stretched to the image's size; of a CAM also min-maxed and smoothed."""
    whole = upsampled(canvas.relu(), (images.shape[2], images.shape[3]))
    if pixelwise:
        return over_max(whole).float()
    return gaussian_blur(spread(whole)[:, None], *SMOOTH)[:, 0].float()


def passes(cost: Cost) -> Cost:
    """Of all crops."""
    return Cost(GRID**2 * cost.forwards, GRID**2 * cost.backwards)


def cost(settings: Any) -> Cost:
    """Of the base on every crop."""
    if settings.base == "integrated_gradients":
        steps = METHODS["integrated_gradients"].settings().steps
        return passes(Cost(steps + 1, steps))
    return passes(Cost(1, 1))


@method(
    name="ucag",
    summary="a CAM of 36 enlarged crops, each counted by the confidence that it leaves; for small objects",
    source="Hong et al., AAAI 2023, as in its released code",
    status="code",
    completed="count_offset, and sides other than 224 without stretching by hand",
    architecture="cnn",
    cost=cost,
    gradients=True,
    signed=True,
    extras={"crop_confidence": "probability of the target in each of the 6 x 6 crops, by rows"},
)
class UCAG(BatchMethod):
    """Explains every image by its crops, the same crop of all images in one pass."""

    base: str = setting(default="grad_cam", text="the method that explains each crop")
    magnify: float = setting(
        default=2.6, text="factor by which a crop is enlarged, above 0: of a crop of 124, 2.6 makes 322"
    )
    count_offset: int = setting(
        default=1, text="added to the number of crops over a pixel; 1 as released, 0 for no bias to the centre"
    )

    def check(self) -> None:
        require(
            self.base in BASES,
            f"base must be one of {', '.join(BASES)}, got {self.base!r}{did_you_mean(self.base, BASES)}",
        )
        require(self.magnify > 0, f"magnify must be above 0, got {self.magnify}")
        require(self.count_offset in (0, 1), f"count_offset must be 0 or 1, got {self.count_offset}")

    @cached_property
    def source(self) -> Cam | IntegratedGradients:
        """Explains a crop."""
        return BASES[self.base](self.model)

    def maps(
        self,
        images: Float[torch.Tensor, "batch channel height width"],
        targets: Int[torch.Tensor, " batch"],
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
                raw = self.source.raw(self._enlarged(crop, down, across), targets)
                confidences = softmax_probability(raw.logits, targets)
                confidence[:, row, column] = confidences
                part = upsampled(raw.maps.double(), (down.crop, across.crop))
                canvas[:, down.place(row), across.place(column)] += confidences.double().exp()[:, None, None] * part
                counts[down.place(row), across.place(column)] += 1
        maps = conquered(canvas / (counts + self.count_offset).clamp(min=1), images, self.source.pixelwise)
        return MethodMaps(maps, passes(self.source.raw_cost), {"crop_confidence": confidence})

    def extra_shapes(self, image: Float[torch.Tensor, "channel height width"]) -> dict[str, tuple[int, ...]]:
        """One number per crop."""
        return {"crop_confidence": (GRID, GRID)}

    def _enlarged(self, crop: torch.Tensor, down: CropAxis, across: CropAxis) -> torch.Tensor:
        size = [max(1, int(axis.crop * self.magnify)) for axis in (down, across)]
        return F.interpolate(crop, size=size, mode="bicubic", align_corners=False)
