"""Shards to workers, in this process or on Ray, with progress shown and logged meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...workers.object_names import objects_named
from ...workers.protocols import SampleReader, ShardSink
from ...workers.run_totals import RunTotals
from ...workers.samples import Sample, Shard
from ...workers.worker.engine_protocol import Build
from ...workers.worker.spec import WorkerSpec
from ..settings.run import Settings
from ..sources.listing.detection import place_named
from ..storage.location import is_local, locate
from .event_log import EventLog
from .progress import RunProgress


def work_through(
    settings: Settings,
    todo: Sequence[Shard],
    samples: Callable[[Shard], Sequence[Sample]],
    spec: WorkerSpec,
    reader: SampleReader,
    sink: ShardSink,
    totals: RunTotals,
    *,
    max_error_rate: float,
    build: Build | None = None,
) -> RunTotals:
    """Have the shards done, as many workers at once as the settings say.

    Args:
        settings: How to run; the events are logged in its `out`.
        todo: What is to be done.
        samples: The samples of a shard, in order.
        spec: Model and method.
        reader: Bytes of images and masks.
        sink: Takes finished shards.
        totals: Counts what happens, for the display.
        max_error_rate: Share of failed images above which the run stops.
        build: Makes a worker's engine; None for the engine of the spec's method.
    """
    with RunProgress(totals, EventLog(settings.out)) as progress:
        shared = (todo, samples, spec, reader, sink)
        limits = {
            "max_error_rate": max_error_rate,
            "shard_retries": settings.shard_retries,
            "wait_for_space": settings.wait_for_space,
        }
        if settings.workers == 0:
            from ...workers.in_process import explain_in_process

            return explain_in_process(*shared, **limits, on_event=progress, build=build)
        from ...workers.ray.supervisor import supervise

        return supervise(
            *shared,
            **limits,
            workers=settings.workers,
            gpus_per_worker=settings.gpus_per_worker,
            cpus_per_worker=settings.cpus_per_worker,
            address=settings.address,
            image_timeout=settings.image_timeout,
            start_timeout=settings.start_timeout,
            local_paths=[
                place
                for place in (place_named(settings.data), settings.out, settings.bank)
                if place and is_local(locate(place)[0])
            ],
            shared_fs=settings.shared_fs,
            on_event=progress,
            build=build,
            objects=objects_named(settings.model, settings.data),
        )
