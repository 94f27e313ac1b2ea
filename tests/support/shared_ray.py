"""One private Ray per process of the suite: tests that need the same one share it, a test that needs another one replaces it.

`supervise` and the commands use what is connected already, and leave it running.
"""

from __future__ import annotations

import os

_offered: dict[str, int] | None = None
"""CPUs and GPUs of the Ray that this module started; None while it runs none."""


def connect(**offered: int) -> None:
    """A Ray that offers exactly these, such as `num_cpus=4, num_gpus=2` with GPUs that do not exist."""
    global _offered
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    import ray

    if offered == _offered and ray.is_initialized():
        return
    disconnect()
    ray.init(
        address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR",
        object_store_memory=100 * 2**20, **offered,
    )  # fmt: skip
    _offered = offered


def disconnect() -> None:
    """Ends what `connect` started, if anything."""
    global _offered
    if _offered is not None:
        import ray

        ray.shutdown()
        _offered = None
