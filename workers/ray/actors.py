"""Where the plain class becomes an actor, and where Ray is started and stopped."""

from __future__ import annotations

import logging
import os
import socket
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import Any

from ...errors import RunError, UsageError
from ..worker.shard_worker import ShardWorker

LOCAL_OBJECT_STORE = 256 * 2**20
"""Bytes; rows go straight to storage, so nothing big ever needs the object store."""

KNOCK_SECONDS = 10.0


@contextmanager
def ray_session(address: str = "local", *, cpus: float = 0) -> Iterator[None]:
    """Connect to Ray; use what this process is connected to already, and shut down only what we started.

    Args:
        address: `local` for a private instance on this machine, else that of a running cluster.
        cpus: A local instance offers at least so many CPUs, so that workers asked for by number also start on a small machine.

    Raises:
        UsageError: For Ray Client's addresses.
        RunError: When the cluster cannot be reached.
    """
    if address.startswith("ray://"):
        raise UsageError(
            f"address {address!r} is Ray Client's, which cannot stream from workers; run this command on a node of the cluster "
            "with address 'auto', or submit it: ray job submit -- heatlas explain --address auto ..."
        )
    # `uv run` would otherwise make Ray rebuild the driver's environment for every worker.
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    # Workers without a GPU are told to use the CPU; Ray's warning about hiding GPUs from them is noise.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if ray.is_initialized():
        yield
        return
    refuse_silence(address)
    local: dict[str, Any] = {}
    if address == "local":
        local = {"object_store_memory": LOCAL_OBJECT_STORE, "num_cpus": max(len(os.sched_getaffinity(0)), ceil(cpus))}
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, **local)
    except (OSError, RuntimeError, ValueError) as error:
        if "AF_UNIX" in str(error):
            raise UsageError(
                "the folder for temporary files has too long a path for Ray's sockets, which may have 107 bytes; set RAY_TMPDIR to a "
                f"short one, such as RAY_TMPDIR=/tmp ({error})"
            ) from error
        raise RunError(
            f"cannot connect to Ray at {address!r}: {error}; use address 'local' for a private instance"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def refuse_silence(address: str) -> None:
    """Knock at HOST:PORT; Ray itself would wait for minutes [measured] where nothing listens.

    Raises:
        RunError: When nobody opens.
    """
    host, colon, port = address.rpartition(":")
    if not (colon and port.isdigit()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise RunError(
            f"cannot connect to Ray at {address!r}: {error}; start it there (ray start --head), or use address 'local' for a private instance"
        ) from error


def actor_class(*, gpus: float, cpus: float) -> Any:
    """`ShardWorker` as an actor: never restarted, never retried, because the policy decides that."""
    import ray

    actor: Any = ray.remote(max_restarts=0, max_task_retries=0)(ShardWorker)
    return actor.options(num_gpus=gpus, num_cpus=cpus, runtime_env={"env_vars": {"PYTHONPATH": python_path()}})


def python_path() -> str:
    """The driver's import path without what every interpreter of this environment has anyway.

    With it a worker can import what the driver can, `--model my_module:factory` in the working directory included.
    """
    own = {Path(path).resolve() for name, path in sysconfig.get_paths().items() if name.endswith("lib")}
    folders = [Path(path or os.getcwd()).resolve() for path in sys.path]
    added = [str(path) for path in folders if path.is_dir() and not any(path.is_relative_to(root) for root in own)]
    inherited = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return os.pathsep.join(dict.fromkeys([*added, *inherited]))
