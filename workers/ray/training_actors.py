"""A training on several actors: each a rank of torch.distributed, all started again from the last checkpoint when one is lost."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import timedelta
from typing import Any

from ...errors import HeatlasError, RunError
from ..protocols import SampleReader
from ..training.training_spec import CheckpointMade, TrainingDone, TrainingEvent, TrainingSpec
from .actors import python_path, ray_session
from .cluster import Cluster

JOIN_SECONDS = 300
"""How long ranks wait for each other."""


class TrainingActor:
    """One rank; a plain class, which becomes an actor in `train_on_actors`."""

    def __init__(self, spec: TrainingSpec, reader: SampleReader, rank: int, world: int):
        self._arguments = (spec, reader, rank, world)

    def address(self) -> str:
        """Where the other ranks find this one: its host and a port that is free."""
        import ray

        with closing(socket.socket()) as probe:
            probe.bind(("", 0))
            return f"{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"

    def pid(self) -> int:
        return os.getpid()

    def train(self, address: str, checkpoint: bytes | None) -> Iterator[TrainingEvent]:
        """Join the others and train; of every rank but the first only the end is of interest."""
        import torch.distributed as dist

        from ..training.train_rank import RankTraining

        spec, reader, rank, world = self._arguments
        if world > 1:
            dist.init_process_group(
                "gloo", init_method=f"tcp://{address}", rank=rank, world_size=world, timeout=timedelta(seconds=JOIN_SECONDS)
            )  # fmt: skip
        yield from RankTraining(spec, reader, rank, world).run(checkpoint)

    def follow(self, address: str, checkpoint: bytes | None) -> None:
        """As `train`, saying nothing."""
        for _ in self.train(address, checkpoint):
            pass


def train_on_actors(
    spec: TrainingSpec,
    reader: SampleReader,
    *,
    workers: int | str,
    gpus: float,
    cpus: int,
    address: str | None = None,
    checkpoint: bytes | None = None,
    retries: int = 3,
    note: Callable[[str], None] = lambda text: None,
) -> Iterator[TrainingEvent]:
    """Train on Ray actors and give the first rank's events.

    Args:
        spec: What is trained.
        reader: Bytes of images.
        workers: Ranks, or `auto` for what the cluster offers.
        gpus: GPUs per rank, if the cluster has any.
        cpus: CPUs per rank.
        address: Of a running cluster; None for a private instance.
        checkpoint: To begin from.
        retries: How often all ranks are started again when one is lost without a new checkpoint between.
        note: Told when that happens.

    Raises:
        HeatlasError: What a rank raised on purpose.
        RunError: When ranks are lost again and again.
    """
    with ray_session(address or "local", cpus=cpus * (workers if isinstance(workers, int) else 1)):
        cluster = Cluster(workers, gpus=gpus, cpus=cpus, device=spec.device)  # type: ignore[arg-type]
        world, lost = min(cluster.capacity(), spec.settings.batch_size // 2), 0
        while True:
            try:
                for event in attempt(spec, reader, world, cluster.gpus, cpus, checkpoint):
                    if isinstance(event, CheckpointMade):
                        checkpoint, lost = event.data, 0
                    yield event
                    if isinstance(event, TrainingDone):
                        return
            except HeatlasError:
                raise
            except Exception as error:
                cause = getattr(error, "cause", None)
                if isinstance(cause, HeatlasError):
                    raise cause from error
                lost += 1
                reason = str(error).strip().splitlines()[-1][:200]
                if lost > retries:
                    raise RunError(f"a training worker was lost {lost} times without progress: {reason}") from error
                note(f"a training worker was lost ({reason}); starting again from the last checkpoint")


def attempt(
    spec: TrainingSpec, reader: SampleReader, world: int, gpus: float, cpus: int, checkpoint: bytes | None
) -> Iterator[TrainingEvent]:
    """One life of all ranks; none of them outlives it."""
    import ray

    actor: Any = ray.remote(max_restarts=0, max_task_retries=0)(TrainingActor)
    options = {"num_gpus": gpus, "num_cpus": cpus, "runtime_env": {"env_vars": {"PYTHONPATH": python_path()}}}
    ranks = [actor.options(**options).remote(spec, reader, rank, world) for rank in range(world)]
    try:
        meeting = ray.get(ranks[0].address.remote())
        others = [rank.follow.remote(meeting, checkpoint) for rank in ranks[1:]]
        stream = (
            ranks[0]
            .train.options(num_returns="streaming", _generator_backpressure_num_objects=1)
            .remote(meeting, checkpoint)
        )
        for reference in stream:
            failed, _ = ray.wait(others, timeout=0) if others else ([], [])
            event: Any = ray.get(reference)
            if failed and not isinstance(event, TrainingDone):
                ray.get(failed)  # raises what it died of
            yield event
    finally:
        for rank in ranks:
            with suppress(Exception):
                ray.kill(rank, no_restart=True)
