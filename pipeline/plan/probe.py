"""A short look at a prepared run: a few images read and classified, the forward rate timed, some masks counted. Writes nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import cast

import torch

from ...engine.map_shift import MapShift, measure_map_shift
from ...engine.methods.registry import find_method
from ...engine.methods.sise import SISE
from ...engine.scoring.budget import masks_allowed
from ...errors import SampleError
from ...workers.images.decode import Prepared
from ...workers.object_targets import image_objects
from ...workers.samples import Row, Sample
from ...workers.targets import targets_of
from ...workers.worker.build import ModelEngine, build_engine
from ...workers.worker.process_state import restore_process_state
from ...workers.worker.shard_attempt import ShardAttempt, seed_of
from ..explain.prepare import PreparedRun
from ..shards import some_samples

LOOKED_AT = 32
"""Images that are read and classified."""
COUNTED = 4
"""Images whose masks are counted."""
EXPLAINED = 2
"""Images that are explained from end to end, where that is quick."""
TURNED = 3
"""Explanations of an image by which the shift of maps is measured."""
MOST_TURNED = 6
"""Images that are explained so."""
QUICK = 5.0
"""Seconds that this may take for one image."""
BATCH_ON_CPU = 16
"""Forwards in the timed batch without an accelerator, where larger batches are hardly faster."""
FILLED = 4
"""Batches that a row must fill for its time to say what a row takes."""
TIMED = 2.0
"""Seconds of forwards that are timed at least, or one batch."""


@dataclass(frozen=True)
class Looked:
    """What was seen of one image."""

    sample: Sample
    prediction: int | None = None
    targets: int = 0
    """Rows that it will have."""
    height: int | None = None
    width: int | None = None
    seconds: float = 0.0
    """To read, decode and preprocess it."""
    status: str | None = None
    """Why it cannot be used; None where it can."""
    error: str | None = None


@dataclass(frozen=True)
class RunProbe:
    """What was found out."""

    device: str
    looked: list[Looked]
    batch_size: int
    """Of the timed forwards."""
    rate: float
    """Forwards a second of one worker."""
    masks: list[int] = field(default_factory=list)
    """Masks that each counted image has, before any budget; empty where the method has no masks of that kind."""
    forwards: list[float] = field(default_factory=list)
    """Forward passes of one row, metrics included, as counted or explained; a backward pass counts as two."""
    alone: float = 0.0
    """Seconds of a row outside the shared batches: the gradient pass."""
    rows: list[Row] = field(default_factory=list)
    """Of the images that were explained from end to end."""
    shift: MapShift | None = None
    """How far maps lie off; None where explaining the mirrored images was not quick."""
    seconds: float | None = None
    """That one row then took; None where none was explained, or so few forwards that their batches were mostly padding."""


def probe_run(run: PreparedRun, images: int = LOOKED_AT) -> RunProbe:
    """Look at some images, evenly spread over the listing.

    Raises:
        UsageError: If the model does not fit its own settings.
    """
    spec = replace(run.spec, chance_below=0, sanity_below=0)
    if not torch.cuda.is_available() or spec.device == "cpu":
        scoring = replace(spec.scoring, batch_size=min(spec.scoring.batch_size, BATCH_ON_CPU))
        spec = replace(spec, scoring=scoring)
    with restore_process_state():
        engine = cast(ModelEngine, build_engine(spec, run.reader))
        return _probed(run, engine, some_samples(run.listing, images))


def _probed(run: PreparedRun, engine: ModelEngine, samples: Sequence[Sample]) -> RunProbe:
    seen: list[tuple[Looked, Prepared]] = []
    looked = []
    for sample in samples:
        image, prepared = _look(run, engine, sample)
        looked.append(image)
        if prepared is not None and image.targets:
            seen.append((image, prepared))
    example = seen[0][1].image if seen else torch.zeros(run.model.preprocess.channels, *run.model.preprocess.size)
    tried = run.trial is not None and run.trial.rate > 0
    rate, batch = (run.trial.rate, run.trial.batch_size) if run.trial is not None and tried else _rate(engine, example)
    probe = RunProbe(engine.device, looked, batch, rate)
    if not seen:
        return probe
    masks, forwards, alone = _counted(run, engine, seen[:COUNTED])
    probe = replace(probe, masks=masks, forwards=forwards, alone=alone)
    per_row = (max(forwards) if forwards else 0) / rate + alone
    if forwards and per_row * max(image.targets for image, _ in seen) > QUICK:
        return probe
    turned = min(MOST_TURNED, int(QUICK / (TURNED * per_row))) if per_row else 0
    if forwards and not run.model.dense and turned:
        probe = replace(probe, shift=_shift(engine, [it for it in seen if it[0].prediction is not None][:turned]))
    return _explained(run, engine, probe, [image.sample for image, _ in seen[:EXPLAINED]])


def _look(run: PreparedRun, engine: ModelEngine, sample: Sample) -> tuple[Looked, Prepared | None]:
    begun = time.perf_counter()
    try:
        prepared = engine.prepare(sample, run.reader)
    except SampleError as error:
        return Looked(sample, status=error.status, error=error.text), None
    seconds = time.perf_counter() - begun
    overview = engine.overview(prepared.image, sample.label)
    ranking = overview.ranking.cpu()
    facts = {"height": prepared.height, "width": prepared.width, "seconds": seconds}
    prediction = int(ranking.argmax()) if bool(ranking.isfinite().any()) else None
    try:
        targets: Sequence[int | None] = targets_of(run.spec.target, sample, ranking, engine.num_classes)
        if run.spec.target.kind == "components" and overview.scene is not None:
            targets = image_objects(overview.scene, run.spec.target.classes[0], run.spec.target.count).explained
    except SampleError as error:
        return Looked(sample, prediction, status=error.status, error=error.text, **facts), prepared
    return Looked(sample, prediction, len(targets), **facts), prepared


def _rate(engine: ModelEngine, example: torch.Tensor) -> tuple[float, int]:
    """Forwards a second in full batches, after one that does not count."""
    scorer, image = engine.session.explainer.scorer, engine.on_device(example)
    scorer.warm_up(image)
    count, begun = 0, _clock()
    while count == 0 or _clock() - begun < TIMED:
        count += scorer.warm_up(image, full=True)
    return count / (_clock() - begun), scorer.micro_batch


def _counted(
    run: PreparedRun, engine: ModelEngine, seen: Sequence[tuple[Looked, Prepared]]
) -> tuple[list[int], list[float], float]:
    """Masks and forwards of a row, and the time of its gradient pass."""
    explainer, measured = engine.session.explainer, engine.session.metrics
    probes = sum(probe.count for probe in measured.probes)
    times = 1 + sum(image.count for image in measured.explains)
    if not isinstance(explainer, SISE):
        declared = find_method(run.settings.method)
        cost = declared.cost(declared.settings(**run.spec.method_settings))
        return [], [] if cost is None else [times * (cost.forwards + 2 * cost.backwards) + probes], 0.0
    masks, begun = [], _clock()
    for image, prepared in seen:
        _, layers = explainer.layer_masks(engine.on_device(prepared.image), image.prediction)
        masks.append(sum(layer.job.count for layer in layers))
    alone = (_clock() - begun) / len(seen)
    return masks, [times * (1 + masks_allowed(explainer.budget, count)) + probes for count in masks], alone


def _shift(engine: ModelEngine, seen: Sequence[tuple[Looked, Prepared]]) -> MapShift | None:
    images = [engine.on_device(prepared.image) for _, prepared in seen]
    targets = [image.prediction or 0 for image, _ in seen]
    return measure_map_shift(engine.session.explainer, images, targets, [seed_of(image.sample.id) for image, _ in seen])


def _explained(run: PreparedRun, engine: ModelEngine, probe: RunProbe, samples: Sequence[Sample]) -> RunProbe:
    begun = _clock()
    attempt = ShardAttempt(engine, run.reader, samples, target=run.spec.target)
    for _ in attempt.work(0):
        if _clock() - begun > 4 * QUICK:
            return probe
    rows = attempt.rows
    forwards = probe.forwards or [row.n_forwards + 2 * row.n_backwards for row in rows]
    seconds = (_clock() - begun) / len(rows)
    telling = fmean(forwards) >= FILLED * probe.batch_size
    return replace(probe, rows=rows, seconds=seconds if telling else None, forwards=forwards)


def _clock() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
