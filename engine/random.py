"""Random numbers that belong to a sample: the same on any worker, for any sharding, batch size or order.

Drawn on the CPU whatever the device, because devices disagree about what a seed means.
"""

from __future__ import annotations

import zlib

import numpy as np

from .lazy_torch import torch


def sample_generator(seed: int, sample: int, purpose: str = "") -> torch.Generator:
    """Random numbers of one sample for one purpose.

    Args:
        seed: Of the run, at least 0.
        sample: Stands for the sample, at least 0; a digest of its id, so that it does not depend on the listing.
        purpose: Keeps the draws of one metric apart from those of another.

    Raises:
        ValueError: When `seed` or `sample` is negative.
    """
    if seed < 0 or sample < 0:
        raise ValueError(f"seed and sample must be at least 0, got {seed} and {sample}")
    state = np.random.SeedSequence([seed, sample, zlib.crc32(purpose.encode())]).generate_state(1, np.uint64)[0]
    return torch.Generator("cpu").manual_seed(int(state >> np.uint64(1)))
