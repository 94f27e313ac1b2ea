"""A Ray cluster of several nodes on this machine, whose nodes can be lost or frozen from under their workers."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import Any, Self

from .processes import BUSY, descendants, kill, title


class FaultCluster:
    """A head without CPUs and two nodes with one each; each node that goes is replaced.

    Args:
        environment: For the workers, who inherit it from their nodes.
    """

    def __init__(self, environment: Mapping[str, str]):
        self._environment = dict(environment)
        self._frozen: list[int] = []

    def __enter__(self) -> Self:
        os.environ.update(self._environment)
        os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.address = self._cluster.address
        for _ in range(2):
            self._cluster.add_node(num_cpus=1, wait=False)
        return self

    def __exit__(self, *exception: object) -> None:
        for pid in self._frozen:
            kill(pid)
        self._cluster.shutdown()
        for name in self._environment:
            os.environ.pop(name, None)

    def lose_node(self) -> None:
        """Kill the node that has a worker at work, and the worker, at once and for good."""
        node, raylet, worker = self._at_work()
        kill(raylet)
        kill(worker)
        self._cluster.remove_node(node, allow_graceful=False)
        self._cluster.add_node(num_cpus=1, wait=False)

    def freeze_node(self) -> None:
        """Stop that node and its worker: they hold everything and answer nothing."""
        _, raylet, worker = self._at_work()
        self._frozen += [raylet, worker]
        for pid in (raylet, worker):
            kill(pid, signal.SIGSTOP)

    def _at_work(self) -> tuple[Any, int, int]:
        """The node, its raylet's and its worker's process ids."""
        for node in self._cluster.worker_nodes:
            [raylet] = node.all_processes["raylet"]
            for pid in descendants(raylet.process.pid):
                if title(pid).startswith(BUSY):
                    return node, raylet.process.pid, pid
        raise RuntimeError("no worker is at work")
