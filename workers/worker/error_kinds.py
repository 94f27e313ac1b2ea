"""Classify an exception of the engine: is the device broken, or did this image fail? And describe it in one line."""

from __future__ import annotations

import torch

from ...errors import HeatlasError, shortened

DEVICE_FAULT_EXIT = 86
"""Exit code of a worker that leaves because its accelerator no longer computes."""
_FAULTS = ("CUDA error", "cuDNN error", "CUBLAS_STATUS", "HIP error", "device-side assert")
_ERROR_LENGTH = 500


def may_be_device_fault(error: BaseException) -> bool:
    """Whether the accelerator itself may be in trouble; ask the device before believing it."""
    accelerator_error = getattr(torch, "AcceleratorError", None)
    if accelerator_error is not None and isinstance(error, accelerator_error):
        return True
    return _mentions(error, _FAULTS)


def _mentions(error: BaseException, phrases: tuple[str, ...]) -> bool:
    return isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in phrases)


def describe(error: BaseException) -> str:
    """One line for a row or a report, at most 500 characters; our own errors are written for the user and need no type."""
    text = " ".join(str(error).split())
    if not isinstance(error, HeatlasError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return shortened(text, _ERROR_LENGTH)
