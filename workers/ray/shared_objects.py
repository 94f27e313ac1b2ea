"""Objects of the driver in its workers: pickled once, stored once per node, unpickled once per worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import UsageError
from ..object_names import keep_objects
from ..protocols import SampleReader
from ..worker.engine_protocol import Build, Engine
from ..worker.spec import WorkerSpec


@dataclass(frozen=True)
class SharedBuild:
    """Builds a worker's engine after the objects of the driver are there."""

    pickled: Any
    """Reference to their bytes in Ray's object store."""
    build: Build | None

    def __call__(self, spec: WorkerSpec, reader: SampleReader) -> Engine:
        import ray
        from ray import cloudpickle

        keep_objects(cloudpickle.loads(ray.get(self.pickled)))
        build = self.build
        if build is None:
            from ..worker.build import build_engine as build
        return build(spec, reader)


def share_objects(objects: Mapping[str, Any], build: Build | None) -> SharedBuild:
    """Put the objects where every node of the connected cluster finds them.

    Raises:
        UsageError: If one of them cannot be pickled.
    """
    import ray
    from ray import cloudpickle

    try:
        pickled = cloudpickle.dumps(dict(objects))  # pyright: ignore[reportPrivateImportUsage]
    except Exception as error:
        raise UsageError(
            f"cannot send {', '.join(objects)} to worker processes: {type(error).__name__}: {error}; use workers=0"
        ) from error
    return SharedBuild(ray.put(pickled), build)
