"""The numbers of a run that is not begun yet, from what its probe measured; each says how it was come by."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from statistics import fmean
from typing import Any, Unpack

import pyarrow as pa
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ...engine.methods.registry import find_method
from ...engine.metrics import METRICS
from ...engine.metrics.chance_maps import CHANCE_MAPS, chance_metrics
from ...engine.metrics.protocol import Probe
from ...errors import SettingsError
from ...workers.images.own_processor import processor_name
from ..explain.given import named_objects
from ..explain.prepare import PreparedRun, prepare_run
from ..settings.load import load_settings
from ..settings.options import RunOptions
from ..settings.run import Settings
from ..store.parquet_bytes import table_to_parquet
from ..store.part_summary import with_summary
from ..store.rows_to_table import build_table
from ..train.forecast import untrained_explainer
from .checks import accuracy, findings, seconds_per_row
from .forecast_facts import (
    Forecast,
    ForwardCounts,
    ForwardRate,
    PlannedShards,
    PredictedTime,
    PreprocessValue,
    ProbedAccuracy,
    ProbeFacts,
    StoreSize,
    ValueSpread,
)
from .place import with_place
from .probe import LOOKED_AT, RunProbe, probe_run

PNG_SHARE = 0.2
"""Bytes per pixel of a stored map as PNG, where none was made: 9.7 kB at 224x224 [measured]."""
ROW_BYTES = 400
"""Of everything else in a row."""
COUNTS = (1, 2, 4, 8)
ASSUMED_RATE = 1000.0
"""Forwards a second of a GPU in the line that shows how to reckon where there is none to measure."""


def plan_dataset(
    *,
    model: str | nn.Module,
    data: str | os.PathLike[str] | Dataset[Any] | DataLoader[Any],
    out: str | os.PathLike[str] | None = None,
    config: str | os.PathLike[str] | None = None,
    preprocess: Mapping[str, Any] | Callable[..., Any] | None = None,
    class_names: Sequence[str] | None = None,
    look_at: int = LOOKED_AT,
    **settings: Unpack[RunOptions],
) -> Forecast:
    """Forecast what `explain_dataset` with the same arguments would do and cost, and report what looks wrong; as `heatlas plan`.

    A few images are read, classified and partly explained on this machine. Nothing is written; notes go to the logger `heatlas`.

    Args:
        model: As for `explain_dataset`.
        data: As for `explain_dataset`.
        out: Where the store would be; may be left out.
        config: As for `explain_dataset`.
        preprocess: As for `explain_dataset`.
        class_names: As for `explain_dataset`.
        look_at: Images to read and classify, evenly spread over the listing, at least 1.
        **settings: As for `explain_dataset`.

    Returns:
        The forecast: `images`, `rows_per_image`, `forwards`, `times` (seconds by number of workers), `store` (bytes), `accuracy`,
        `findings` (what looks wrong, with its remedy) and more. `print` shows what the command prints.

    Raises:
        UsageError: If the run cannot be begun as written.
    """
    if look_at < 1:
        raise SettingsError(f"look_at must be at least 1 image, got {look_at}")
    with named_objects(model, data, preprocess, class_names) as named:
        return plan_run(load_settings(with_place({**named, "out": out, **settings}, config), config), look_at)


def plan_run(settings: Settings, images: int = LOOKED_AT) -> Forecast:
    """What `heatlas plan` says.

    Args:
        settings: As for `explain_settings`; nothing is written.
        images: Images to look at, at least 1.

    Raises:
        UsageError: If the run cannot be begun as written.
    """
    if find_method(settings.method).trained and settings.explainer is None:
        with untrained_explainer(settings) as (file, training):
            return replace(plan_run(settings.model_copy(update={"explainer": file}), images), training=training)
    run = prepare_run(settings.model_copy(update={"allow_unlabelled": True}))  # told below, with everything else
    probe = probe_run(run, images)
    usable = [image for image in probe.looked if image.targets]
    rows = fmean(image.targets for image in usable) if usable else 0.0
    share = len(usable) / len(probe.looked) if probe.looked else 0.0
    total_images = len(run.listing)
    total_rows = total_images * share * rows
    parts = forward_counts(run, probe, total_images, total_rows)
    forwards = None if parts is None else sum(parts.values())
    measured = accuracy(probe.looked)
    return Forecast(
        model=settings.model,
        data=settings.data,
        out=settings.out,
        method=settings.method,
        target=settings.target,
        images=total_images,
        rows_per_image=rows,
        classes=run.model.num_classes,
        class_names=run.model.class_names is not None,
        labels=run.labels.how or None,
        shards=PlannedShards(len(run.shards), max(map(len, run.shards))),
        layers=run.sink.layout.metadata["provenance"].get("layers"),
        preprocess=[
            PreprocessValue(name, _shown(name, value), run.model.origins.get(name, ""))
            for name, value in asdict(run.model.preprocess).items()
            if name != "processor" or value
        ],
        probe=ProbeFacts(
            probe.device, settings.cpus_per_worker, len(probe.looked), len(usable), len(probe.masks), len(probe.rows)
        ),
        masks=spread_of(probe.masks),
        forwards=ForwardCounts(None if forwards is None else forwards / total_images, forwards, parts),
        rate=ForwardRate(
            probe.rate,
            probe.batch_size,
            probe.device,
            run.settings.precision,
            run.settings.forward,
            run.trial is not None,
        ),
        seconds_per_row=seconds_per_row(probe) if probe.forwards else None,
        times=times(run, probe, forwards, total_rows),
        map_shift=probe.shift,
        correct_shift=run.spec.correct_shift if any(run.spec.correct_shift) else None,
        store=store_bytes(run, probe, total_images, total_rows),
        accuracy=None if measured is None else ProbedAccuracy(measured[0], measured[1]),
        findings=findings(probe, run.labels, run.model),
    )


def _shown(name: str, value: Any) -> Any:
    return processor_name(value) if name == "processor" else value


def spread_of(values: Sequence[float]) -> ValueSpread | None:
    return ValueSpread(fmean(values), min(values), max(values), len(values)) if values else None


def forward_counts(run: PreparedRun, probe: RunProbe, images: int, rows: float) -> dict[str, float] | None:
    """Forward passes of the run by what they are for, a backward pass counted as two; None where the probe could not tell."""
    if not probe.forwards:
        return None
    each = fmean(probe.forwards)
    settings = run.settings
    asked = images if run.spec.target.asks_model else 0
    own = {name: probed for name, probed in probes_of(run).items() if probed.of_map}
    of_chance_maps = {
        probed.name: probed
        for metric in chance_metrics(METRICS[name] for name in run.spec.metrics)
        for probed in metric.probes
        if probed.of_map
    }
    chance_rows = min(settings.chance_maps, images) * (rows / images if images else 0)
    of_chance = chance_rows * len(CHANCE_MAPS) * sum(probed.count for probed in of_chance_maps.values())
    sanity = (
        min(settings.sanity, images)
        * (rows / images if images else 0)
        * max(0.0, each - sum(probed.count for probed in own.values()))
    )
    metrics = min(each, sum(probed.count for probed in probes_of(run).values()))
    return {
        "maps": rows * (each - metrics), "metrics": rows * metrics, "target choice": asked, "chance maps": of_chance, "sanity check": sanity,
    }  # fmt: skip


def probes_of(run: PreparedRun) -> dict[str, Probe]:
    """The masked inputs that the run's metrics score for each map, by name."""
    return {probe.name: probe for name in run.spec.metrics for probe in METRICS[name].probes}


def times(run: PreparedRun, probe: RunProbe, forwards: float | None, rows: float) -> list[PredictedTime]:
    """Predicted seconds by device and number of workers: work divided by workers, whole shards at a time."""
    if forwards is None or not rows:
        return []
    if probe.seconds is not None:
        work, how = rows * probe.seconds, "from images explained here"
    else:
        work, how = forwards / probe.rate + rows * probe.alone, "from the forward rate measured here"
    records = [PredictedTime(probe.device, count, divided(work, count, len(run.shards)), how) for count in counts(run)]
    if not probe.device.startswith("cuda") and probe.rate < ASSUMED_RATE / 2:
        records += [
            PredictedTime(
                "gpu",
                count,
                divided(forwards / ASSUMED_RATE, count, len(run.shards)),
                f"assuming {ASSUMED_RATE:,.0f} forwards a second on each, which was not measured: run this on a machine with one",
            )
            for count in (1, 8)
        ]
    return records


def counts(run: PreparedRun) -> list[int]:
    """Numbers of workers to predict for: the usual ones, and those that this command would start here."""
    workers = run.settings.workers
    if workers == "auto":
        here = torch.cuda.device_count() or max(1, (os.cpu_count() or 1) // run.settings.cpus_per_worker)
    else:
        here = max(1, workers)
    return sorted({*COUNTS, here})


def divided(work: float, workers: int, shards: int) -> float:
    """Seconds of the busiest worker, shards being of like size."""
    return work * math.ceil(shards / min(workers, shards)) / shards


def store_bytes(run: PreparedRun, probe: RunProbe, images: int, rows: float) -> StoreSize:
    """Bytes of the store, from rows made here or by rule of thumb."""
    layout = run.sink.layout
    if probe.rows:
        table = build_table(probe.rows, layout)
        each = ROW_BYTES + sum(bytes_of_maps(table)) / len(table)
        frame = max(0, len(table_to_parquet(with_summary(table))) - each * len(table))
        return StoreSize(round(rows * each + len(run.shards) * frame), round(each), "from rows made here")
    height, width = layout.map_shape
    pixels = layout.input_size[0] * layout.input_size[1]
    each = ROW_BYTES + (2 * height * width if layout.with_map else 0) + (PNG_SHARE * pixels if layout.with_png else 0)
    return StoreSize(round(rows * each), round(each), "by rule of thumb")


def bytes_of_maps(table: pa.Table) -> list[int]:
    """Of every row, as numbers and as a picture."""
    kind = table.schema.field("map").type if "map" in table.column_names else None
    numbers = 0 if kind is None else 2 * kind.list_size
    pictures = table["map_png"].to_pylist() if "map_png" in table.column_names else [None] * len(table)
    return [numbers + len(picture["bytes"]) if picture else numbers for picture in pictures]
