"""Where the plain class becomes an actor, and where Ray is started and stopped."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import ceil
from pathlib import Path
from typing import Any

from ...errors import RunError, UsageError
from ..worker.shard_worker import ShardWorker
from .auth_token import TokenRefusedError, may_show_token, refused_token, token_in_place
from .native_messages import NativeMessages, kept_native_messages

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
        UsageError: For Ray Client's addresses, or an interpreter with which Ray starts no workers.
        RunError: When the cluster cannot be reached; TokenRefusedError when it wants another token.
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
    if address == "local":
        refuse_spaces(sys.executable, *ray.__path__)
    with ExitStack() as session:
        try:
            session.enter_context(_started(address, cpus, show_token=False))
        except TokenRefusedError:
            if not may_show_token(address):
                raise
            session.enter_context(_started(address, cpus, show_token=True))
        yield


@contextmanager
def _started(address: str, cpus: float, *, show_token: bool) -> Iterator[None]:
    import ray

    with token_in_place(address, show=show_token):
        _connect(address, cpus)
        try:
            yield
        finally:
            ray.shutdown()


def _connect(address: str, cpus: float) -> None:
    import ray
    from ray.exceptions import RayError

    local: dict[str, Any] = {}
    if address == "local":
        local = {"object_store_memory": LOCAL_OBJECT_STORE, "num_cpus": max(len(os.sched_getaffinity(0)), ceil(cpus))}
    messages = NativeMessages()
    try:
        with _own_sigterm(), kept_native_messages() as messages:
            ray.init(
                address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, **local
            )
    except (OSError, RuntimeError, ValueError, RayError) as error:
        if "AF_UNIX" in str(error):
            raise UsageError(
                "the folder for temporary files has too long a path for Ray's sockets, which may have 107 bytes; set RAY_TMPDIR to a "
                f"short one, such as RAY_TMPDIR=/tmp ({error})"
            ) from error
        if (remedy := refused_token(error)) is not None:
            raise TokenRefusedError(f"cannot connect to Ray at {address!r}: {remedy}{messages}") from error
        raise RunError(
            f"cannot connect to Ray at {address!r}: {error}; use address 'local' for a private instance{messages}"
        ) from error


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Ray takes SIGTERM over when it starts, and ends the process with a code of its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as error:
        raise SystemExit(128 + signal.SIGTERM) from error
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def refuse_spaces(executable: str, *folders: str) -> None:
    """Ray splits the command that starts a worker at spaces, and waits for ever for workers that do not start.

    Args:
        executable: The interpreter.
        folders: Where Ray itself is installed.

    Raises:
        UsageError: Naming the interpreter, or the folder.
    """
    for path in (executable, *folders):
        if any(character.isspace() for character in path):
            what = f"with {path!r}" if path == executable else f"from {path!r}, as {executable!r} finds it"
            raise UsageError(
                f"Ray cannot start workers {what}: the path has a space; install heatlas into a virtual environment in a path without one, "
                "or use --workers 0, which needs no Ray"
            )


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
