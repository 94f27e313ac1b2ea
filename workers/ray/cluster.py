"""What the cluster offers: how many workers fit, whether they get GPUs, and how many machines there are."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Literal

from ...errors import UsageError
from ..worker.spec import DECODE_THREADS, MOST_DECODE_THREADS
from .control_store import ControlStore

REFRESH_SECONDS = 5.0
"""How old the numbers may be."""


class Cluster:
    """Looks at the connected Ray cluster now and then.

    Args:
        workers: Number of workers the user wants, or `auto`.
        gpus: GPUs per worker, if there are any.
        cpus: CPUs per worker.
        device: `cpu` leaves the GPUs alone, `cuda` insists on them.

    Raises:
        UsageError: When `device` is `cuda` and the cluster has no GPU.
        ControlStoreLostError: From every method that looks, when Ray's control store is gone for good.
    """

    def __init__(
        self, workers: int | Literal["auto"], *, gpus: float, cpus: float, device: Literal["auto", "cpu", "cuda"]
    ):
        self._workers = workers
        self._cpus = cpus
        self._resources: dict[str, float] = {}
        self._machines = 0
        self._nodes: list[Mapping[str, float]] = []
        self._looked = float("-inf")
        self._control_store = ControlStore.connected()
        self._look()
        seen = self._resources.get("GPU", 0.0)
        if device == "cuda" and not seen:
            raise UsageError("device is 'cuda' but the cluster has no GPU; use device 'auto' or 'cpu'")
        self.gpus = gpus if seen and device != "cpu" else 0.0
        """GPUs of each worker; 0 on a cluster without."""
        self.device: Literal["cpu", "cuda"] = "cuda" if self.gpus else "cpu"

    @property
    def decode_threads(self) -> int:
        """Threads with which each worker decodes: beside a GPU those of its node's CPUs that fall to it, where CPUs are all there is 2."""
        if not self.gpus:
            return DECODE_THREADS
        shares = [node.get("CPU", 0.0) * self.gpus / node["GPU"] for node in self._nodes if node.get("GPU", 0.0)]
        return max(DECODE_THREADS, min(int(min(shares, default=0.0) + 1e-9), MOST_DECODE_THREADS))

    def capacity(self) -> int:
        """How many workers there should be now."""
        if isinstance(self._workers, int):
            return self._workers
        self._look()
        by_cpus = self._resources.get("CPU", 0.0) / self._cpus if self._cpus else float("inf")
        by_gpus = self._resources.get("GPU", 0.0) / self.gpus if self.gpus else float("inf")
        return max(1, int(min(by_cpus, by_gpus, 2**20) + 1e-9))

    def refuse_several_nodes(self, local_paths: Sequence[str]) -> None:
        """Local paths mean another disk on every node.

        Raises:
            UsageError: When there are local paths and more than one node can run workers.
        """
        self._look()
        if local_paths and self._machines > 1:
            raise UsageError(
                f"the cluster has {self._machines} nodes but {', '.join(map(repr, local_paths))} is local to one; use a "
                "shared location such as s3://..., or set shared_fs (--shared-fs) if the path is the same file system on every node"
            )

    def _look(self) -> None:
        if time.monotonic() - self._looked < REFRESH_SECONDS:
            return
        import ray

        self._looked = time.monotonic()
        if not self._control_store.answers():
            return  # what was seen last stays true until it is back, or gone for good
        self._resources = {name: float(amount) for name, amount in ray.cluster_resources().items()}
        self._nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        self._machines = sum(1 for resources in self._nodes if resources.get("CPU", 0) or resources.get("GPU", 0))


def cluster_gpus(address: str) -> float:
    """How many GPUs the nodes of a running cluster have together.

    Raises:
        UsageError: When it cannot be reached.
    """
    import ray

    from .actors import ray_session

    with ray_session(address):
        return float(ray.cluster_resources().get("GPU", 0.0))
