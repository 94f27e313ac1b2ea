"""From an upright RGB image to the network's input, as torchvision's `ImageClassification` transforms do it on PIL images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float
from PIL import Image

from ...engine.lazy_torch import torch
from ...errors import SampleError, SettingsError, did_you_mean
from ...statuses import DECODE_ERROR
from .geometry import Geometry, centre_offset
from .own_processor import processor_of

Resize = Literal["shorter_side_crop", "squash", "pad"]
ChannelOrder = Literal["rgb", "bgr"]
LevelKind = Literal["", "integer", "float"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]

MOST_CHANNELS = 1024
LARGEST_SHARE = 20.0
"""Of a mean or std of values in [0, 1], beyond which it was meant for values in [0, 255]."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes the network's input. The defaults are those of ImageNet classifiers.

    Raises:
        SettingsError: If a value is out of its range.
    """

    size: tuple[int, int] = (224, 224)
    """`(height, width)` of the network's input, pixels."""
    resize: Resize = "shorter_side_crop"
    """`shorter_side_crop`: scale, keeping the shape, and cut out the centre. `squash`: scale each side on its own. `pad`:
    scale until the whole image fits, and fill the rest with the mean colour (0 after normalising: nothing to see)."""
    resize_to: int | tuple[int, int] | None = None
    """What images are resized to before the centre is cut out. None: to the input size. One number: the shorter side, of `squash` both
    sides. `(height, width)`: covered by the image, of `squash` filled, of `pad` fitted into. Where the result is smaller than the input, the
    rest is black, as in torchvision (of `pad` the mean colour)."""
    interpolation: Interpolation = "bilinear"
    """Resampling filter, always antialiased as Pillow does it (except `nearest`)."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    """Subtracted from each channel of the image in [0, 1]."""
    std: tuple[float, ...] = IMAGENET_STD
    """Each channel is divided by it afterwards."""
    channels: int = 3
    """3: RGB. 1: grey (ITU-R 601 luma). Others: the file's bands."""
    channel_order: ChannelOrder = "rgb"
    """`bgr`: blue first, as OpenCV reads images; `mean` and `std` are in this order too."""
    levels: tuple[float, float] | None = None
    """Numbers of the file that become black and white, where it has more than 8 bits. None: as the file's type has it."""
    clip_levels: bool = True
    """Whether numbers beyond the levels are cut off; else such an image is an error. False without levels: nobody said what is black and
    white, so deep images are errors, but those that fill 16 bits."""
    level_kind: LevelKind = ""
    """Kind of numbers from which black and white were taken: deep images of the other kind are errors. Empty: of any kind."""
    bands: tuple[int, ...] | None = None
    """Bands of the file that become the channels, counted from 1. None: red, green and blue, or all."""
    processor: str = ""
    """Names the image processor of the model's family that makes the values where the settings above give others (see
    `own_processor`); they say where pixels go then. Empty: heatlas makes them."""

    def __post_init__(self) -> None:
        _check(self)

    def geometry(self, height: int, width: int) -> Geometry:
        """Where the pixels of an upright image of `height` x `width` go."""
        wanted = self.resize_to or self.size
        if self.resize == "shorter_side_crop" and isinstance(wanted, int):
            resized = _scaled(height, width, by_height=height <= width, size=(wanted, wanted))
        else:
            target = (wanted, wanted) if isinstance(wanted, int) else wanted
            if self.resize == "squash":
                resized = target
            elif self.resize == "pad":
                resized = _scaled(height, width, by_height=target[0] * width <= target[1] * height, size=target)
            else:
                resized = _scaled(height, width, by_height=target[0] * width >= target[1] * height, size=target)
        top, left = (centre_offset(full, window) for full, window in zip(resized, self.size, strict=True))
        return Geometry((height, width), resized, self.size, top, left)

    def view(self, image: Image.Image) -> Image.Image:
        """What the network sees, for human eyes: RGB at input size, not normalised."""
        if self.channels in (1, 3):
            return self._fitted(image).convert("RGB")
        resample = Image.Resampling[self.interpolation.upper()]
        return self.geometry(image.height, image.width).image(image.convert("RGB"), resample, (0, 0, 0))

    def tensor(self, image: Image.Image | np.ndarray) -> Float[torch.Tensor, "channel height width"]:
        """The network's input, float32, normalised by mean and std.

        Args:
            image: RGB, or for networks of other than 1 or 3 channels an array `(height, width, channel)` in [0, 1].
        """
        if not isinstance(image, Image.Image):
            values = torch.from_numpy(self._fitted_bands(image))
            return values.sub_(_per_channel(self.mean)).div_(_per_channel(self.std))
        if self.processor:
            return self._processed(image)
        pixels = np.array(self._fitted(image)).reshape(*self.size, self.channels)
        if self.channel_order == "bgr":
            pixels = np.ascontiguousarray(pixels[..., ::-1])
        values = torch.from_numpy(pixels).permute(2, 0, 1).contiguous().float().div_(255)
        return values.sub_(_per_channel(self.mean)).div_(_per_channel(self.std))

    def _processed(self, image: Image.Image) -> torch.Tensor:
        """By the processor of the model's family."""
        try:
            values = processor_of(self.processor)(image.convert("RGB"))
        except Exception as error:  # processors of others raise nearly anything on odd images
            raise SampleError(
                DECODE_ERROR, f"the model's own image processor fails: {' '.join(str(error).split())[:200]}"
            ) from error
        if values.shape != (self.channels, *self.size):
            raise SampleError(
                DECODE_ERROR,
                f"the model's own image processor gives {tuple(values.shape)}, expected {(self.channels, *self.size)}",
            )
        return values

    def _fitted(self, image: Image.Image) -> Image.Image:
        image = image.convert("RGB" if self.channels == 3 else "L")
        resample = Image.Resampling[self.interpolation.upper()]
        return self.geometry(image.height, image.width).image(image, resample, self._fill())

    def _fitted_bands(self, bands: np.ndarray) -> np.ndarray:
        """`(channel, height, width)` float32 in [0, 1]."""
        geometry = self.geometry(*bands.shape[:2])
        resample = Image.Resampling[self.interpolation.upper()]
        fills = self.mean if self.resize == "pad" else (0.0,) * self.channels
        fitted = []
        for band, fill in zip(np.moveaxis(bands, 2, 0), fills, strict=True):
            image = Image.fromarray(np.ascontiguousarray(band, dtype=np.float32))
            fitted.append(np.asarray(geometry.image(image, resample, (fill,)), dtype=np.float32))
        return np.stack(fitted)

    def _fill(self) -> tuple[int, ...]:
        if self.resize != "pad":
            return (0,) * self.channels
        rgb = self.mean[::-1] if self.channel_order == "bgr" else self.mean
        return tuple(min(max(round(255 * value), 0), 255) for value in rgb)


def preprocess_from_preset(preset: Any) -> Preprocess:
    """The `Preprocess` that equals a torchvision `ImageClassification` preset (`Weights.transforms()`).

    Of a `SemanticSegmentation` preset the centre square, because every input of a run has one size (see `segmentation_note`).
    """
    # segmentation presets keep the whole image, whatever its shape
    crop = _sides(getattr(preset, "crop_size", preset.resize_size))
    resized = _sides(preset.resize_size)
    return Preprocess(
        size=(crop[0], crop[-1]),
        resize="squash" if len(resized) == 2 else "shorter_side_crop",
        resize_to=(resized[0], resized[1]) if len(resized) == 2 else resized[0],
        interpolation=preset.interpolation.value,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        channels=len(preset.mean),
    )


def _sides(size: Any) -> list[int]:
    return [int(side) for side in size] if isinstance(size, (list, tuple)) else [int(size)]


def segmentation_note(preset: Any) -> tuple[str, ...]:
    """What to say of a preset that keeps the whole image, as those of segmentation models do."""
    if hasattr(preset, "crop_size"):
        return ()
    side = preset.resize_size[0] if isinstance(preset.resize_size, (list, tuple)) else preset.resize_size
    return (
        f"torchvision's transform brings the shorter side to {side} pixels and keeps the whole image; every input of a run has one size, so of "
        f"images that are not square the middle {side}x{side} is taken (--preprocess.resize squash or pad shows all of them)",
    )


def with_overrides(own: Preprocess, overrides: Mapping[str, Any]) -> Preprocess:
    """`found` with the user's settings on top, each overriding one value; None overrides nothing.

    `size` may be one number for a square. Without a `resize_to` of the user's own, another `size` scales the one found
    in proportion (232 for 224 becomes 464 for 448), and another `resize` forgets it. One-valued `mean` means grey input. Any setting
    of the user's replaces the processor of the model's family by heatlas's own steps.

    Raises:
        SettingsError: For an unknown setting or a value out of its range.
    """
    given = {name: _plain(name, value) for name, value in overrides.items() if value is not None}
    known = [field.name for field in fields(Preprocess)]
    for name in given:
        if name not in known:
            raise SettingsError(
                f"unknown preprocess setting {name!r}, there are {', '.join(known)}{did_you_mean(name, known)}"
            )
    if set(given) - {"levels", "clip_levels", "level_kind", "bands"}:
        given.setdefault("processor", "")
    if "resize_to" not in given:
        given["resize_to"] = _scaled_resize_to(own, given)
    if "channels" not in given and "mean" in given:
        given["channels"] = len(given["mean"])
    if given.get("channels", own.channels) != 3 and "channel_order" not in given:
        given["channel_order"] = "rgb"
    _refuse_unclear_order(own, given)
    return replace(own, **given)


def _refuse_unclear_order(own: Preprocess, given: Mapping[str, Any]) -> None:
    """Another order of channels leaves open whether the mean that was said before is meant in the old or the new one."""
    order = given.get("channel_order", own.channel_order)
    if order == own.channel_order or order not in get_args(ChannelOrder) or given.get("channels", own.channels) != 3:
        return
    for name in ("mean", "std"):
        values = getattr(own, name)
        if name not in given and values != values[::-1]:
            said, turned = (" ".join(f"{value:g}" for value in numbers) for numbers in (values, values[::-1]))
            raise SettingsError(
                f"preprocess.channel_order {order} needs preprocess.{name} in that order, as it was in training: "
                f"{turned} if each colour keeps its own, {said} if the numbers keep their places"
            )


def _scaled_resize_to(own: Preprocess, given: Mapping[str, Any]) -> int | tuple[int, int] | None:
    if own.resize_to is None or given.get("resize", own.resize) != own.resize:
        return None
    size = given.get("size", own.size)
    if not (isinstance(size, tuple) and size and isinstance(size[0], int)):
        return own.resize_to  # what is wrong with the size is said when it is checked
    if isinstance(own.resize_to, tuple):
        height, width = (
            max(1, round(side * new / old)) for side, new, old in zip(own.resize_to, size, own.size, strict=True)
        )
        return height, width
    return max(1, round(own.resize_to * min(size) / min(own.size)))


def _plain(name: str, value: Any) -> Any:
    if name == "size" and isinstance(value, int):
        return (value, value)
    if name in ("mean", "std") and isinstance(value, (list, tuple)):
        return tuple(float(number) if isinstance(number, int) else number for number in value)
    return tuple(value) if isinstance(value, (list, tuple)) else value


def _scaled(height: int, width: int, *, by_height: bool, size: tuple[int, int]) -> tuple[int, int]:
    """The shape kept, height (or width) equal to that of `size`; the other side rounded down, as torchvision does."""
    if by_height:
        return size[0], max(1, size[0] * width // height)
    return max(1, size[1] * height // width), size[1]


def _per_channel(values: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)


def _check(preprocess: Preprocess) -> None:
    size, channels = preprocess.size, preprocess.channels
    if not (isinstance(size, tuple) and len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size)):
        raise SettingsError(f"preprocess.size must be a positive height and width in pixels, got {size!r}")
    for name, value, allowed in (
        ("resize", preprocess.resize, get_args(Resize)),
        ("interpolation", preprocess.interpolation, get_args(Interpolation)),
    ):
        if value not in allowed:
            hint = did_you_mean(str(value), allowed)
            raise SettingsError(f"preprocess.{name} must be one of {', '.join(allowed)}, got {value!r}{hint}")
    if not isinstance(channels, int) or not 1 <= channels <= MOST_CHANNELS:
        raise SettingsError(
            f"preprocess.channels must be 3 (RGB), 1 (grey) or the number of the file's bands, got {channels!r}"
        )
    if (wanted := preprocess.resize_to) is not None:
        sides = wanted if isinstance(wanted, tuple) and len(wanted) == 2 else (wanted,)
        if not all(isinstance(side, int) and side > 0 for side in sides):
            raise SettingsError(
                f"preprocess.resize_to must be a positive number of pixels, or height and width, got {wanted!r}"
            )
    if preprocess.channel_order not in get_args(ChannelOrder) or (channels != 3 and preprocess.channel_order != "rgb"):
        raise SettingsError(
            f"preprocess.channel_order must be rgb or, with 3 channels, bgr, got {preprocess.channel_order!r}"
        )
    for name, values in (("mean", preprocess.mean), ("std", preprocess.std)):
        if not isinstance(values, tuple) or len(values) != channels or not all(map(_is_finite, values)):
            raise SettingsError(f"preprocess.{name} must be {channels} finite numbers, one per channel, got {values!r}")
        if max(map(abs, values)) > LARGEST_SHARE:
            said = " ".join(f"{value / 255:.4g}" for value in values)
            raise SettingsError(
                f"preprocess.{name} is of values in [0, 1], got {values!r}, which look like those of values in [0, 255]: divide mean and std by "
                f"255 ({name} {said}); a network without std has std {1 / 255:.6f}"
            )
    if min(preprocess.std) <= 0:
        raise SettingsError(f"preprocess.std must be above 0 in every channel, got {preprocess.std!r}")


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
