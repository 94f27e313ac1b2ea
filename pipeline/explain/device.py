"""The GPU that a run insists on: looked for before anything is written."""

from __future__ import annotations

import torch

from ...errors import UsageError
from ..settings.run import Settings


def local_run(settings: Settings) -> bool:
    """Whether the workers will run on this machine."""
    return settings.workers == 0 or settings.address in (None, "local")


def accelerators(settings: Settings) -> float:
    """GPUs that the workers will find; 0 where the model runs on CPUs.

    Raises:
        UsageError: When the cluster of `address` cannot be reached.
    """
    if settings.device == "cpu":
        return 0.0
    if local_run(settings):
        return float(torch.cuda.device_count()) if torch.cuda.is_available() else 0.0
    from ...workers.ray.cluster import cluster_gpus

    return cluster_gpus(str(settings.address))


def refuse_missing_gpu(settings: Settings) -> None:
    """Look for a GPU where the workers will run: in this process, on this machine, or on the cluster of `address`.

    Raises:
        UsageError: If `device` is `cuda` and there is none.
    """
    if settings.device != "cuda" or torch.cuda.is_available():
        return
    if local_run(settings):
        raise UsageError(
            "--device cuda: torch sees no GPU on this machine; use --device cpu or auto, or --address of a cluster with GPUs"
        )
    from ...workers.ray.cluster import cluster_gpus

    if not cluster_gpus(str(settings.address)):
        raise UsageError(
            f"--device cuda: the cluster at {settings.address} has no GPU, nor has this machine; use --device cpu or auto"
        )
