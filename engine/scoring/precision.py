"""In which number format the masked forwards run."""

from __future__ import annotations

from ..lazy_torch import torch

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The autocast dtype of a precision on a device; None means no autocast (the model's own dtype).

    `auto` is bf16 where the hardware computes in it, else fp32.
    """
    if precision == "auto":
        return torch.bfloat16 if has_bf16(device) else None
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware, where emulation would be slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
