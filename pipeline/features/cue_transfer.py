"""Give images of other classes what some images of a class have: pixels, frequencies, colours, or a patch from wherever it is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

FLOOR = 1e-3
"""Added to spreads, in units of the network's input."""
PATCH_SHARE = 4
"""The image's shorter side over that of a patch."""
PATCH_RECEIVERS = 8
Predict = Callable[[Tensor], Float[np.ndarray, "image class"]]


def given_cue(
    receivers: Float[Tensor, "image channel height width"],
    carriers: Float[Tensor, "row channel height width"],
    rest: Float[Tensor, "row2 channel height width"],
) -> dict[str, Float[Tensor, "image channel height width"]]:
    """Images changed as the rest of a class would have to be changed to look like the carriers.

    `pixels`: every pixel gets the carriers' mean and, where it is smaller, their spread. An opaque mark, whose spread is 0, is thereby pasted; a
    translucent one is blended in. `spectrum`: every frequency gets what the carriers' mean amplitude has more or less, phases stay, so
    that a texture at any place is added. `colour`: every channel gets the carriers' mean and contrast, as a colour cast would give it.
    """
    spread = ((carriers.std(dim=0) + FLOOR) / (rest.std(dim=0) + FLOOR)).clamp(max=1)
    pixels = carriers.mean(dim=0) + spread * (receivers - rest.mean(dim=0))
    (mean, contrast), (other_mean, other_contrast) = _colour(carriers), _colour(rest)
    colour = mean + (receivers - other_mean) * (contrast + FLOOR) / (other_contrast + FLOOR)
    centre = receivers.mean(dim=(2, 3), keepdim=True)
    waves = torch.fft.rfft2(receivers - centre)
    amplitudes = waves.abs()
    wanted = (amplitudes + _amplitude(carriers) - _amplitude(rest)).clamp(min=0)
    size = (receivers.shape[-2], receivers.shape[-1])
    spectrum = torch.fft.irfft2(waves / amplitudes.clamp(min=1e-6) * wanted, s=size) + centre
    return {"pixels": pixels, "spectrum": spectrum, "colour": colour}


def patch_transfers(
    images: Float[Tensor, "row channel height width"],
    receivers: Float[Tensor, "image channel height width"],
    predict: Predict,
    label: int,
    random: np.random.Generator,
) -> Float[np.ndarray, " row"]:
    """What the patch that a class's image hangs on does in images of other classes, by image.

    The patch is the one whose loss (filled with the image's mean) costs the class most confidence, searched on a grid of half a patch and
    then between; it is pasted at its place into `PATCH_RECEIVERS` of the receivers.

    Returns:
        Mean rise of the class's confidence, in [-1, 1].
    """
    rises = np.empty(len(images))
    for row, image in enumerate(images):
        top, left, side = most_needed_patch(image, predict, label)
        chosen = torch.from_numpy(random.choice(len(receivers), min(PATCH_RECEIVERS, len(receivers)), replace=False))
        before = receivers[chosen]
        after = before.clone()
        after[:, :, top : top + side, left : left + side] = image[:, top : top + side, left : left + side]
        rises[row] = float((predict(after)[:, label] - predict(before)[:, label]).mean())
    return rises


def most_needed_patch(
    image: Float[Tensor, "channel height width"], predict: Predict, label: int
) -> tuple[int, int, int]:
    """Top, left and side in pixels of the square without which the class has least confidence.

    Its side is the image's shorter one over `PATCH_SHARE`; searched on a grid of half a patch and then between.
    """
    height, width = (int(side) for side in image.shape[-2:])
    side = max(2, min(height, width) // PATCH_SHARE)
    step = max(1, side // 2)
    grid = np.array([(top, left) for top in _places(height, side, step) for left in _places(width, side, step)])
    top, left = _needed(image, grid, side, predict, label)
    fine = max(1, side // 4)
    near = np.array([(top + down * fine, left + right * fine) for down in (-1, 0, 1) for right in (-1, 0, 1)])
    return *_needed(image, near.clip(0, [height - side, width - side]), side, predict, label), side


def _needed(
    image: Tensor, places: Int[np.ndarray, "place 2"], side: int, predict: Predict, label: int
) -> tuple[int, int]:
    """The place of the patch without which the class has least confidence."""
    filled = image.expand(len(places), *image.shape).clone()
    for number, (top, left) in enumerate(places):
        filled[number, :, top : top + side, left : left + side] = image.mean(dim=(1, 2))[:, None, None]
    top, left = places[int(predict(filled)[:, label].argmin())]
    return int(top), int(left)


def _places(length: int, side: int, step: int) -> list[int]:
    return sorted({*range(0, length - side + 1, step), length - side})


def _colour(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and mean contrast of each channel."""
    return images.mean(dim=(0, 2, 3))[:, None, None], images.std(dim=(2, 3)).mean(dim=0)[:, None, None]


def _amplitude(images: Tensor) -> Tensor:
    return torch.fft.rfft2(images - images.mean(dim=(2, 3), keepdim=True)).abs().mean(dim=0)
