"""How many channels a model takes, held against what images give: 3 (RGB) or 1 (grey), and nothing else."""

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
        ModelError: With the settings that help, or that nothing does.
    """
    takes = first_conv_channels(module)
    if takes is None or takes == preprocess.channels:
        return
    if takes == 1:
        raise ModelError(
            f"{spec} takes grey images (its first layer has 1 input channel): set --preprocess.mean and --preprocess.std to one number "
            "each, as it was trained"
        )
    if takes not in (1, 3):
        raise ModelError(
            f"{spec} takes {takes} channels; heatlas reads images of 3 channels (RGB) or 1 (grey), not of several bands. Explain it "
            "through a factory whose model makes its channels from 3"
        )
