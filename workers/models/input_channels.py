"""How many channels a model takes, held against what its preprocessing gives."""

from __future__ import annotations

from torch import nn

from ...errors import ModelError
from ..images.preprocess import Preprocess


def first_conv_channels(module: nn.Module) -> int | None:
    """Input channels of the first convolution that is registered; None where there is none."""
    convolutions = (layer for layer in module.modules() if isinstance(layer, nn.Conv2d))
    first = next(convolutions, None)
    return None if first is None else first.in_channels


def check_channels(module: nn.Module, preprocess: Preprocess, spec: str) -> None:
    """Say what to do where a model does not take as many channels as its images will have.

    Raises:
        ModelError: With the settings that help.
    """
    takes = first_conv_channels(module)
    if takes is not None:
        refuse_other_channels(takes, preprocess, spec, "its first layer")


def refuse_other_channels(takes: int, preprocess: Preprocess, spec: str, origin: str) -> None:
    """As `check_channels`, of a model that takes so many channels, as `origin` says."""
    if takes == preprocess.channels:
        return
    if takes == 1:
        raise ModelError(
            f"{spec} takes grey images ({origin} has 1 channel): set --preprocess.mean and --preprocess.std to one number "
            "each, as it was trained"
        )
    raise ModelError(
        f"{spec} takes {takes} channels ({origin} says so) and its preprocessing gives {preprocess.channels}: set --preprocess.channels "
        f"{takes} with {takes} numbers each in --preprocess.mean and --preprocess.std, and where the images have other bands choose them with "
        "--decode.bands"
    )
