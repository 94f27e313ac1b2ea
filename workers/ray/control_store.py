"""Is Ray's control store there? Every process of a cluster ends a minute after it is gone, without a word about what to do."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module

from ...errors import RunError

KNOCK_SECONDS = 5.0
PATIENCE_SECONDS = 40.0
"""How long the store of a cluster may be away, which some set-ups start again; Ray itself gives up after 60."""


class ControlStoreLostError(RunError):
    """The process that keeps Ray's state is gone, and with it every further call."""


@dataclass
class ControlStore:
    """The process `gcs_server` of the cluster to which this one is connected."""

    address: str
    """HOST:PORT."""
    private: bool
    """Whether it was started for this process, so that nobody starts it again."""
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    _silent_since: float | None = None

    @classmethod
    def connected(cls) -> ControlStore:
        """That of the session of this process."""
        import ray

        return cls(ray.get_runtime_context().gcs_address, is_private())

    def answers(self) -> bool:
        """Whether it accepts connections. Where it does not, no call of Ray's that asks it would return.

        Raises:
            ControlStoreLostError: If it is gone for good.
        """
        host, _, port = self.address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()
        except OSError as error:
            now = self.clock()
            self._silent_since = now if self._silent_since is None else self._silent_since
            if (
                self.private and isinstance(error, ConnectionRefusedError)
            ) or now - self._silent_since > PATIENCE_SECONDS:
                raise ControlStoreLostError(self._text(error)) from error
            return False
        self._silent_since = None
        return True

    def _text(self, error: OSError) -> str:
        whose = "this machine's own" if self.private else "the cluster's"
        again = (
            "run the same command again"
            if self.private
            else "start the cluster again (ray start --head), then run the same command again"
        )
        return (
            f"{whose} gcs_server, Ray's control store at {self.address}, is gone ({error}): it was killed, or the machine ran out of memory "
            f"(`dmesg` says so); what is committed stays: {again}"
        )


def is_private() -> bool:
    """Whether the cluster of this session was started by it."""
    node = getattr(import_module("ray._private.worker"), "_global_node", None)  # Ray has no public way to ask
    return bool(node is not None and node.is_head())
