"""What a family's image processor does, measured on pictures: the `Preprocess` that equals it, or the one that shares its geometry and
leaves the values to the processor itself.

Colours are measured on pictures of one colour, the geometry on ramps, the resampling filter on noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..images.own_processor import Transform
from ..images.preprocess import Interpolation, Preprocess

SAME_LEVELS = 2.0
"""Grey levels of 255 by which heatlas's input may differ from the processor's."""
SAME_PLACE = 1.0
"""Pixels of the input, on average, by which places may differ where the processor itself makes the values."""
SIDES = ((75, 131), (97, 61), (50, 77), (89, 67), (64, 201))
"""Heights and widths of small pictures: processors round sides and offsets in several ways."""
MOST_CANDIDATES = 6
"""Geometries that are held against the pictures."""
DARKEST, BETWEEN = 20, 215
"""Ends of the ramps in grey levels: the lowest, and from it to the highest."""
LARGEST = 720
"""Pixels of a probe picture's side."""
_COLOURS = ((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255))
_SMALL = 1e-3


@dataclass(frozen=True)
class Colours:
    """Outputs as an affine function of the image's colours: `offset + matrix @ rgb / 255`."""

    matrix: np.ndarray
    """`(channel, 3)`"""
    offset: np.ndarray
    """`(channel,)`"""

    @property
    def scale(self) -> np.ndarray:
        """Of white against black, `(channel,)`."""
        return self.matrix.sum(axis=1)

    def order(self) -> str | None:
        """`rgb`, `bgr` or `grey`; None where channels are mixed in another way."""
        shares = self.matrix / self.scale[:, None]
        known = {"rgb": np.eye(3), "bgr": np.eye(3)[::-1], "grey": np.array([[0.299, 0.587, 0.114]])}
        for name, expected in known.items():
            if shares.shape == expected.shape and np.allclose(shares, expected, atol=0.01):
                return name
        return None


def matched_preprocess(transform: Transform, numbers: Sequence[int], text: str) -> Preprocess:
    """The preprocessing that equals a processor, within `SAME_LEVELS` on pictures wide and tall.

    Args:
        transform: The processor.
        numbers: Pixels that occur in its settings, which may be the sides images are resized to before they are cropped.
        text: Names the processor to workers, for where only its geometry is had (see `own_processor`).

    Raises:
        ValueError: With the reason, for a processor whose input has no fixed size or shows images in places that heatlas cannot compute.
    """
    size = _fixed_size(transform)
    colours = _colours(transform, size)
    candidates = _by_geometry(transform, colours, _candidates(size, numbers, colours), size)
    if colours.order() is not None:
        pictures = [(image, transform(image)) for image in _pictures(size)]
        for candidate in candidates[:MOST_CANDIDATES]:
            for interpolation in get_args(Interpolation):
                same = replace(candidate, interpolation=interpolation)
                if all(_levels(theirs, same.tensor(image), colours) <= SAME_LEVELS for image, theirs in pictures):
                    return same
    return replace(candidates[0], processor=text)


def confirmed_preprocess(computed: Preprocess, transform: Transform, text: str) -> Preprocess:
    """The computed preprocessing where it equals the processor, else the measured one.

    Raises:
        ValueError: As `matched_preprocess`.
    """
    scale = 1 / np.array(computed.std)
    colours = Colours(np.diag(scale), -np.array(computed.mean) * scale)
    if all(
        _levels(transform(image), computed.tensor(image), colours) <= SAME_LEVELS for image in _pictures(computed.size)
    ):
        return computed
    sides = computed.resize_to if isinstance(computed.resize_to, tuple) else (computed.resize_to,)
    return matched_preprocess(transform, [side for side in sides if side], text)


def pixel_numbers(said: Any) -> list[int]:
    """Whole numbers in settings, wherever they stand, of the size of images."""
    if isinstance(said, dict):
        return [number for value in said.values() for number in pixel_numbers(value)]
    if isinstance(said, (list, tuple)):
        return [number for value in said for number in pixel_numbers(value)]
    return [said] if isinstance(said, int) and not isinstance(said, bool) and 8 <= said <= 8192 else []


def _fixed_size(transform: Transform) -> tuple[int, int]:
    wide = _noise(*SIDES[0])
    first, second = transform(wide), transform(wide.transpose(Image.Transpose.TRANSPOSE))
    if first.ndim != 3 or first.shape[0] not in (1, 3):
        raise ValueError(f"it gives an image the shape {tuple(first.shape)}, not (channel, height, width)")
    if first.shape != second.shape:
        raise ValueError(
            f"its input has no fixed size: an image of {wide.height}x{wide.width} pixels becomes {first.shape[1]}x{first.shape[2]}, one of "
            f"{wide.width}x{wide.height} becomes {second.shape[1]}x{second.shape[2]}"
        )
    if not torch.allclose(first, transform(wide)):
        raise ValueError("it gives other values each time for the same image")
    return first.shape[1], first.shape[2]


def _colours(transform: Transform, size: tuple[int, int]) -> Colours:
    """Measured in the middle of the input."""
    row, column = size[0] // 2, size[1] // 2
    centres = [
        transform(Image.new("RGB", (size[1], size[0]), colour))[:, row, column].numpy().astype(float)
        for colour in _COLOURS
    ]
    black, *primaries, white = centres
    matrix = np.stack([centre - black for centre in primaries], axis=1)
    colours = Colours(matrix, black)
    if not np.isfinite(matrix).all() or (colours.scale <= 0).any():
        raise ValueError("its values do not grow with the image's")
    if (np.abs(white - black - colours.scale) > 0.02 * colours.scale).any():
        raise ValueError("its values are no linear function of the image's")
    return colours


def _candidates(size: tuple[int, int], numbers: Sequence[int], colours: Colours) -> Iterator[Preprocess]:
    order = colours.order()
    channels = len(colours.offset)
    own = Preprocess(
        size=size,
        resize="squash",
        mean=tuple(_rounded(value) for value in -colours.offset / colours.scale),
        std=tuple(_rounded(value) for value in 1 / colours.scale),
        channels=channels,
        channel_order="bgr" if order == "bgr" else "rgb",
    )
    shares = {256 / 224}
    sides = sorted({*numbers, *(int(number * share) for number in numbers for share in shares)})
    yield own
    yield replace(own, resize="shorter_side_crop")
    yield replace(own, resize="pad")
    for side in sides:
        yield replace(own, resize="shorter_side_crop", resize_to=side)
        yield replace(own, resize="squash", resize_to=side)
    if size[0] != size[1]:
        for side in sides:
            both = (side, side * size[1] // size[0])
            yield from (replace(own, resize=way, resize_to=both) for way in ("shorter_side_crop", "squash", "pad"))


def _rounded(value: float) -> float:
    """To six digits: single precision holds no more."""
    return 0.0 if abs(value) < 1e-6 else float(f"{value:.6g}")


def _by_geometry(
    transform: Transform, colours: Colours, candidates: Iterator[Preprocess], size: tuple[int, int]
) -> list[Preprocess]:
    """Candidates that show ramps where the processor shows them, the nearest first."""
    shapes = [(image.height, image.width) for image in _pictures(size)[:3]]
    seen = [transform(_ramps(*shape)).numpy() for shape in shapes]
    near = []
    for candidate in candidates:
        apart = [_apart(values, candidate, *shape, colours) for values, shape in zip(seen, shapes, strict=True)]
        if max(apart) <= 1:
            near.append((sum(apart), len(near), candidate))
    if not near:
        raise ValueError(
            "it brings images to their size in another way than by resizing and cutting out or padding around the centre"
        )
    return [candidate for _, _, candidate in sorted(near, key=lambda entry: entry[:2])]


def _apart(values: np.ndarray, candidate: Preprocess, height: int, width: int, colours: Colours) -> float:
    """Mean distance between ramps as they are and as the candidate would show them, in units of what counts as the same."""
    geometry = candidate.geometry(height, width)
    rows, inside_rows = _places(geometry.size[0], geometry.top, geometry.resized[0], height)
    columns, inside_columns = _places(geometry.size[1], geometry.left, geometry.resized[1], width)
    if not inside_rows.any() or not inside_columns.any():
        return float("inf")
    rgb = np.empty((len(rows), len(columns), 3))
    rgb[..., 0], rgb[..., 1], rgb[..., 2] = _ramp(columns, width)[None, :], _ramp(rows, height)[:, None], 128
    expected = np.einsum("ck,hwk->chw", colours.matrix, rgb / 255) + colours.offset[:, None, None]
    shown = values[:, :: _step(geometry.size[0]), :: _step(geometry.size[1])]
    levels = np.abs(shown - expected) / colours.scale[:, None, None] * 255
    mean = levels[:, inside_rows][:, :, inside_columns].mean()
    return float(mean / (SAME_PLACE * BETWEEN * max(1 / side for side in geometry.resized)))


def _places(count: int, offset: int, resized: int, source: int) -> tuple[np.ndarray, np.ndarray]:
    """Where in the source some positions of the window are, in pixels, and whether they show it."""
    positions = np.arange(0, count, _step(count)) + offset
    places = ((positions + 0.5) * source / resized - 0.5).clip(0, source - 1)
    return places, (positions >= 0) & (positions < resized)


def _step(count: int) -> int:
    return max(1, count // 128)


def _levels(theirs: Tensor, ours: Tensor, colours: Colours) -> float:
    scale = torch.as_tensor(colours.scale, dtype=torch.float32).view(-1, 1, 1)
    return float(((theirs - ours).abs() / scale).max() * 255) if theirs.shape == ours.shape else float("inf")


def _ramps(height: int, width: int) -> Image.Image:
    """Red grows to the right, green downwards."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0] = _ramp(np.arange(width), width)[None, :].round()
    picture[..., 1] = _ramp(np.arange(height), height)[:, None].round()
    picture[..., 2] = 128
    return Image.fromarray(picture)


def _ramp(places: np.ndarray, side: int) -> np.ndarray:
    return DARKEST + BETWEEN * places / (side - 1)


def _pictures(size: tuple[int, int]) -> list[Image.Image]:
    """Small ones of several shapes, and one that is larger than the input where that is not large itself."""
    larger = min(size[0] * 7 // 5 + 7, LARGEST), min(size[1] * 11 // 10 + 4, LARGEST * 3 // 5)
    return [_noise(*shape) for shape in (SIDES[0], larger, *SIDES[1:])]


def _noise(height: int, width: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height // 2 + 1, width // 2 + 1, 3), dtype=np.uint8)
    return Image.fromarray(np.kron(pixels, np.ones((2, 2, 1), np.uint8))[:height, :width])
