"""Precision, forward and batch size of a run where the settings say `auto`: as the stored run has them, on a CPU the plain ones, on an
accelerator by a short trial, once per run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ...engine.scoring.budget import EXACT
from ...engine.scoring.pace_trial import AskedPace, PaceTrial
from ...workers.object_names import objects_named
from ...workers.protocols import SampleReader
from ...workers.worker.spec import WorkerSpec
from ..settings.renamed import forward_of
from ..settings.run import Settings
from ..shards import some_samples
from ..terminal_log import say
from .device import accelerators, local_run

PLAIN: dict[str, Any] = {"precision": "fp32", "forward": "eager", "batch_size": 64}
"""What `auto` means on a CPU."""
LOOKED_AT = 8
SHARD_SECONDS = 60.0
"""Of one worker, that a shard should take at least."""
SHARDS_PER_WORKER = 20
"""At least, so that the last shards do not leave workers idle."""


@dataclass(frozen=True)
class SettledPace:
    """How the run computes."""

    settings: Settings
    """With nothing left open."""
    trial: PaceTrial | None = None
    """By which it was chosen, now or when the run began."""
    shard_least: int = 1
    """Images of an automatic shard, at least, as far as the trial tells."""


def settle_pace(
    asked: Settings,
    stored: Mapping[str, Any] | None,
    listing: pa.Table,
    reader: SampleReader,
    spec_of: Callable[[Settings], WorkerSpec],
) -> SettledPace:
    """Settle what the settings leave open; a trial is made only for a new run on an accelerator.

    Args:
        asked: Settings as the user gave them.
        stored: `_run.json`, where the directory has one.
        listing: Labels resolved.
        reader: Bytes of the images.
        spec_of: What workers would be told with settled settings.
    """
    known = None if stored is None or "trial" not in stored else PaceTrial.of_record(stored["trial"])
    if (settled := settled_pace(asked, stored)) is not None:
        return SettledPace(settled, known)
    plain = with_pace(asked, PLAIN)
    trial = tried_pace(asked, spec_of(plain), reader, listing)
    if trial is None:
        return SettledPace(plain)
    say_choice(trial)
    least = images_of_a_minute(trial, len(listing), worker_count(asked))
    settings = with_pace(asked, trial.record())
    return SettledPace(
        settings.model_copy(update={"budget": trial.budget}) if wants_speed(asked) else settings, trial, least
    )


def is_open(settings: Settings) -> bool:
    """Whether anything is left to choose."""
    return any(getattr(settings, name) == "auto" for name in PLAIN) or wants_speed(settings)


def wants_speed(settings: Settings) -> bool:
    """Whether the budget is a preset, which is there to be faster than scoring every mask; a number or a share is meant as it stands."""
    return isinstance(settings.budget, str) and settings.budget != EXACT


def with_pace(settings: Settings, pace: Mapping[str, Any]) -> Settings:
    """The settings with what they leave open as `pace` says."""
    update = {name: pace[name] for name in PLAIN if getattr(settings, name) == "auto"}
    return settings.model_copy(update=update) if update else settings


def settled_pace(settings: Settings, stored: Mapping[str, Any] | None) -> Settings | None:
    """The settings with nothing left open, where no trial is needed; else None.

    Args:
        settings: Of the run.
        stored: `_run.json`, where the directory has one: its run goes on as it began, wherever that was.
    """
    if not is_open(settings):
        return settings
    if stored is not None:
        facts = stored["fingerprint"]
        if wants_speed(settings) and stored.get("settings", {}).get("budget") == settings.budget:
            settings = settings.model_copy(update={"budget": facts.get("budget", settings.budget)})
        known = {name: facts[name] for name in ("precision", "batch_size") if facts.get(name) not in (None, "auto")}
        return with_pace(settings, {**PLAIN, **known, "forward": forward_of(facts)})
    return None if accelerators(settings) else with_pace(settings, PLAIN)


def tried_pace(settings: Settings, spec: WorkerSpec, reader: SampleReader, listing: pa.Table) -> PaceTrial | None:
    """Carry the trial out where a worker will run.

    Args:
        settings: Of the run, with something left open.
        spec: Of its workers, plain where that is open.
        reader: Bytes of the images.
        listing: Labels resolved.

    Returns:
        None where no image of those looked at can be read.
    """
    open_or_named = {name: None if (value := getattr(settings, name)) == "auto" else value for name in PLAIN}
    asked = AskedPace(**open_or_named, budget=settings.budget if wants_speed(settings) else EXACT)
    workers = worker_count(settings)
    samples, images = some_samples(listing, LOOKED_AT), len(listing) / workers
    if local_run(settings):
        from ...workers.worker.trial_device import try_paces

        return try_paces(spec, reader, samples, asked, images)
    from ...workers.ray.trial import try_paces_on_cluster

    return try_paces_on_cluster(
        spec, reader, samples, asked, images, address=str(settings.address), gpus=settings.gpus_per_worker, cpus=settings.cpus_per_worker,
        timeout=settings.start_timeout, objects=objects_named(settings.model, settings.data),
    )  # fmt: skip


def worker_count(settings: Settings) -> int:
    """Workers that the run will have on accelerators, at least 1."""
    if settings.workers == "auto":
        return max(1, int(accelerators(settings) / settings.gpus_per_worker))
    return max(1, settings.workers)


def images_of_a_minute(trial: PaceTrial, images: int, workers: int) -> int:
    """Images that a worker does in `SHARD_SECONDS`, at least 1, and few enough for `SHARDS_PER_WORKER`; 1 where nothing was measured."""
    if not trial.image_seconds:
        return 1
    return max(1, min(int(SHARD_SECONDS / trial.image_seconds), images // (SHARDS_PER_WORKER * workers)))


def say_choice(trial: PaceTrial) -> None:
    """Tell the user what was chosen, and by what."""
    agreed = trial.agreement.get(trial.precision)
    why = (
        ""
        if agreed is None
        else f", whose maps agree with fp32's by {agreed:.3f} (weighted Jaccard, {trial.images} images)"
    )
    say(
        f"note: chosen on {trial.device}: --precision {trial.precision}{why}, --forward {trial.forward}, --batch-size {trial.batch_size}: "
        f"{trial.rate:,.0f} forwards a second"
    )
    for budget, seconds in trial.budget_seconds.items():
        if budget != EXACT and trial.budget == EXACT:
            exact = trial.budget_seconds[EXACT]
            say(
                f"note: --budget exact, which is faster here than {budget}: {exact:.3f} s an image beside {seconds:.3f} s"
            )
