"""In which number format the masked forwards run, and what float32 means on an accelerator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..lazy_torch import torch

PRECISIONS = ("auto", "fp32", "tf32", "bf16", "fp16")
"""`tf32`: float32 whose products are rounded to 10 bits of mantissa on an NVIDIA GPU of 2020 or later; float32 elsewhere."""


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The autocast dtype of a precision on a device; None means no autocast (the model's own dtype).

    `auto` is bf16 on an accelerator that computes in it, else fp32; runs choose by a trial (`pace_trial`).
    """
    if precision == "auto":
        return torch.bfloat16 if device.type != "cpu" and has_bf16(device) else None
    return {"fp32": None, "tf32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def resolved_precision(precision: str, device: torch.device) -> str:
    """What a precision of `PRECISIONS` comes to on a device: `auto` is bf16 or fp32 (on a CPU fp32), and tf32 is fp32 where there is no TF32."""
    if precision == "auto":
        return "fp32" if autocast_dtype(precision, device) is None else "bf16"
    return "fp32" if precision == "tf32" and device.type != "cuda" else precision


def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware, where emulation would be slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@contextmanager
def float32_products(device: torch.device, *, tf32: bool = False) -> Iterator[None]:
    """Let products of float32 matrices and convolutions be what they say; put the process's own choice back on the way out.

    Torch lets convolutions on a GPU run in TF32 unless told otherwise, and rounding then moves a gradient across SISE's threshold:
    maps of "fp32" would differ from one card to the next.

    Args:
        device: Nothing is to be done on a CPU.
        tf32: Allow TF32 instead.
    """
    if device.type != "cuda":
        yield
        return
    switches: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [switch.allow_tf32 for switch in switches]
    try:
        for switch in switches:
            switch.allow_tf32 = tf32
        yield
    finally:
        for switch, allowed in zip(switches, before, strict=True):
            switch.allow_tf32 = allowed


@contextmanager
def pass_precision(precision: str, device: torch.device) -> Iterator[None]:
    """Run passes of a model in a precision of `PRECISIONS`."""
    dtype = autocast_dtype(precision, device)
    with (
        float32_products(device, tf32=precision == "tf32"),
        torch.autocast(device.type, dtype=dtype, enabled=dtype is not None),
    ):
        yield


@contextmanager
def gradient_precision(device: torch.device) -> Iterator[None]:
    """Run passes whose gradients decide something in float32, whatever the masked forwards run in."""
    with float32_products(device), torch.autocast(device.type, enabled=False):
        yield
