"""From a map as another tool wrote it to one in [0, 1] at the network input's size."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

from ...errors import DataError
from ...workers.images.preprocess import Preprocess
from .choices import MapChoices, Sign

CHANNEL_COUNTS = (1, 3)


def flat_map(raw: np.ndarray, choices: MapChoices) -> Float[np.ndarray, "height width"]:
    """One number per pixel, float32, still signed.

    Args:
        raw: `(height, width)`, with channels of 1 or 3 before or behind, perhaps in a batch of one.
        choices: How channels become one.

    Raises:
        DataError: For another shape, or values that are no numbers.
    """
    if raw.dtype.kind not in "fiub":
        raise DataError(f"a map must be numbers, got {raw.dtype}")
    values = raw.astype(np.float32)
    if values.ndim == 4 and len(values) == 1:
        values = values[0]
    if values.ndim == 3:
        values = without_channels(values, choices)
    if values.ndim != 2 or 0 in values.shape:
        raise DataError(
            f"a map must be (height, width) or (channel, height, width) with 1 or 3 channels, got {raw.shape}"
        )
    return values


def without_channels(values: np.ndarray, choices: MapChoices) -> np.ndarray:
    first, last = values.shape[0] in CHANNEL_COUNTS, values.shape[-1] in CHANNEL_COUNTS
    if first == last:
        which = (
            "either side may be the channels"
            if first
            else "neither side is 1 or 3 channels; of several methods --method-index says which"
        )
        raise DataError(f"a map of shape {values.shape}: {which}; save it as (height, width)")
    channels = values if first else np.moveaxis(values, -1, 0)
    if choices.channels == "sum":
        return channels.sum(axis=0)
    return np.take_along_axis(channels, np.abs(channels).argmax(axis=0)[None], axis=0)[0]


def unsigned(values: np.ndarray, sign: Sign) -> np.ndarray:
    """The map without values below 0; NaN stays NaN."""
    match sign:
        case "positive":
            return np.maximum(values, 0)
        case "negative":
            return np.maximum(-values, 0)
        case "absolute":
            return np.abs(values)
        case _:
            return values - values.min()


def covers_input(shape: tuple[int, ...], choices: MapChoices, preprocess: Preprocess) -> bool:
    """Whether a map of that shape covers the network's input, and not the whole image.

    Raises:
        DataError: If that cannot be told.
    """
    if choices.covers is not None:
        return choices.covers == "input"
    if shape == preprocess.size:
        return True
    (height, width), (wanted_height, wanted_width) = shape, preprocess.size
    raise DataError(
        f"a map has {height} x {width} values, the network's input {wanted_height} x {wanted_width}: say --covers input where the map covers "
        "what the network saw (cells of a layer, say), or --covers image where it covers the whole image before it was resized and cropped"
    )


def unit_map(raw: np.ndarray, choices: MapChoices, preprocess: Preprocess) -> Float[torch.Tensor, "height width"]:
    """Float32 in [0, 1] at the network input's size, over its own maximum; zeros stay zeros, and what is not finite stays so.

    Raises:
        DataError: As `flat_map` and `covers_input`.
    """
    signed = flat_map(raw, choices)
    values = unsigned(signed, choices.sign)
    if covers_input(values.shape, choices, preprocess):
        fitted = torch.from_numpy(values)
        if values.shape != preprocess.size:
            fitted = torch.nn.functional.interpolate(
                fitted[None, None], preprocess.size, mode="bilinear", align_corners=False, antialias=True
            )[0, 0]
    else:
        geometry = preprocess.geometry(*values.shape)
        fitted = torch.from_numpy(np.array(geometry.image(Image.fromarray(values), Image.Resampling.BILINEAR, (0,))))
    high = float(fitted.max())
    return fitted / high if high > 0 and np.isfinite(high) else fitted
