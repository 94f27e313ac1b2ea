"""The one way by which numbers leave the device while an image is worked on: every call waits for the device once.

What a row says of itself (finiteness, extremes, classes, metric values) is gathered on the device and read in one piece; a test
counts the calls per image. Maps and other tensors leave with the image, in the session.
"""

from __future__ import annotations

from typing import Any

from .lazy_torch import torch


def to_host(values: torch.Tensor) -> list[Any]:
    """A tensor's numbers as nested lists."""
    return values.tolist()
