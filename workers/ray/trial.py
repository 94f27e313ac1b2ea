"""The trial of a run on a worker of the cluster, because the driver's machine may have no GPU or another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...engine.scoring.pace_trial import AskedPace, PaceTrial
from ...errors import HeatlasError, RunError, WorkerStartError
from ..object_names import keep_objects
from ..protocols import SampleReader
from ..samples import Sample
from ..worker.spec import WorkerSpec
from ..worker.trial_device import try_paces
from .actors import python_path, ray_session
from .failure_kinds import death_text


def try_paces_on_cluster(
    spec: WorkerSpec,
    reader: SampleReader,
    samples: Sequence[Sample],
    asked: AskedPace,
    images: float,
    *,
    address: str,
    gpus: float,
    cpus: float,
    timeout: float,
    objects: Mapping[str, Any] | None = None,
) -> PaceTrial | None:
    """As `try_paces`, where a worker will run.

    Args:
        spec: Of the run's workers.
        reader: Travels there.
        samples: A few of the data set.
        asked: What the user decided.
        images: That each worker has before it.
        address: Of a running cluster, or `local`.
        gpus: Of a worker.
        cpus: Of a worker.
        timeout: Seconds that it may take, room in the cluster included.
        objects: By name, what `object:NAME` means in model and data.

    Raises:
        WorkerStartError: When the trial fails, with the cause.
        RunError: When it takes too long.
    """
    import ray
    from ray.exceptions import GetTimeoutError, RayError

    with ray_session(address, cpus=cpus):
        task = ray.remote(max_retries=0, num_gpus=gpus, num_cpus=cpus)(_try_paces).options(
            runtime_env={"env_vars": {"PYTHONPATH": python_path()}}
        )
        running = task.remote(dict(objects or {}), spec, reader, list(samples), asked, images)
        try:
            return ray.get(running, timeout=timeout)
        except GetTimeoutError:
            ray.cancel(running, force=True)
            raise RunError(
                f"the trial that chooses precision, forward and batch size took longer than {timeout:.0f} seconds; name them "
                "(--precision, --forward, --batch-size), or raise --start-timeout"
            ) from None
        except (HeatlasError, RayError) as error:
            raise WorkerStartError(
                f"the trial that chooses precision, forward and batch size failed: {death_text(error)}"
            ) from error


def _try_paces(
    objects: Mapping[str, Any],
    spec: WorkerSpec,
    reader: SampleReader,
    samples: Sequence[Sample],
    asked: AskedPace,
    images: float,
) -> PaceTrial | None:
    keep_objects(objects)
    return try_paces(spec, reader, samples, asked, images)
