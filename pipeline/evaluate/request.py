"""Which of the metrics that the user asks for are to be added to a store, and why the others are not. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ...engine.metrics import METRIC_PRESETS, METRICS, spelt_out
from ...engine.metrics.evaluate import find_metric
from ...errors import RunMismatchError, SettingsError, UsageError
from ..store.evaluations import Evaluation, column_owners
from .reduced_maps import SEPARATOR, column_of, definition_of, reads_the_map_alone


@dataclass
class Wanted:
    """What is to be done about a request."""

    new: list[str] = field(default_factory=list)
    """Metrics that nobody has added yet."""
    begun: list[Evaluation] = field(default_factory=list)
    """Evaluations that hold others of the metrics: to be completed, where they are not complete."""
    stored: list[str] = field(default_factory=list)
    """Metrics that the run itself stored."""
    left_out: list[str] = field(default_factory=list)
    """Metrics of a preset that a stored map is not enough for."""
    need_method: list[str] = field(default_factory=list)
    """Metrics of a preset that the method of imported maps would be needed for."""
    need_whole_map: list[str] = field(default_factory=list)
    """Metrics of a preset that rank the pixels of the whole map, which the store does not have."""


def wanted_metrics(
    asked: Sequence[str],
    own: Iterable[str],
    evaluations: Sequence[Evaluation],
    *,
    imported: bool = False,
    resolution: str | None = None,
) -> Wanted:
    """Sort a request.

    A metric is stored once: by the run, or else by the evaluation that claimed it first, which is completed and not repeated.

    Args:
        asked: Names of metrics and presets.
        own: Definition ids of the metrics that the run itself stored.
        evaluations: What was added to the store, the oldest first.
        imported: Whether another tool made the maps, so that nothing can be explained further.
        resolution: Of the stored maps where they are not whole, see `low_resolution`; then only what reads the map alone is computed,
            in columns of its own.

    Raises:
        SettingsError: For an unknown name, or none at all.
        UsageError: For a metric, asked for by its own name, that needs more than the stored map.
        RunMismatchError: For a metric that the store has by another definition.
    """
    if list(asked) == ["none"]:
        raise SettingsError("--metrics none would add nothing; name presets or metrics, or see `heatlas metrics`")
    names = list(dict.fromkeys(find_metric(_metric_name(name, resolution)).name for name in spelt_out(asked)))
    if not names:
        raise SettingsError(
            f"no metric is asked for; give presets ({', '.join(METRIC_PRESETS)}) or names out of {', '.join(METRICS)}"
        )
    owners = column_owners(evaluations)
    stored = {definition.rpartition("/")[0]: definition for definition in own}
    wanted = Wanted()
    for metric in names:
        name = metric if metric in stored else column_of(metric, resolution)
        there = stored.get(name) or (owners[name].metrics[name]["definition"] if name in owners else None)
        if there is not None:
            refuse_other_definition(name, there)
        if name in stored:
            wanted.stored.append(name)
        elif resolution is not None and not reads_the_map_alone(METRICS[metric]):
            if metric in asked:
                raise UsageError(f"{metric} needs the whole map, and the stored ones are reduced ({resolution}); explain the data anew with "
                                 "--store.map-size input into another --out, there with the metrics at once or evaluated later")  # fmt: skip
            wanted.need_whole_map.append(metric)
        elif name in owners:
            if owners[name] not in wanted.begun:
                wanted.begun.append(owners[name])
        elif not METRICS[metric].layers and not (imported and METRICS[metric].explains):
            wanted.new.append(name)
        elif name in asked and not METRICS[name].layers:
            raise UsageError(
                f"{name} explains changed images again, which the method of imported maps cannot do here; leave it out"
            )
        elif name in asked:
            raise UsageError(f"{name} compares the maps of the block layers, which a store does not hold; "
                             f"explain the data anew with --metrics {name}, into another --out")  # fmt: skip
        else:
            (wanted.left_out if METRICS[name].layers else wanted.need_method).append(name)
    for definition in wanted.begun:
        for name, facts in definition.metrics.items():
            refuse_other_definition(name, facts["definition"])
    if resolution is not None and not (wanted.new or wanted.begun or wanted.stored):
        raise UsageError(f"none of the metrics asked for can be computed of reduced maps ({resolution}); explain the data anew with "
                         "--store.map-size input into another --out")  # fmt: skip
    return wanted


def _metric_name(name: str, resolution: str | None) -> str:
    """Without the resolution, which must be that of the store.

    Raises:
        UsageError: If it is another one.
    """
    metric, separator, of = name.partition(SEPARATOR)
    if separator and of != resolution:
        there = "whole" if resolution is None else f"{resolution}'s"
        raise UsageError(
            f"{name} is a metric of maps of another size, and the stored ones are {there}; ask for {metric}"
        )
    return metric


def refuse_other_definition(name: str, there: str) -> None:
    """A column has one meaning in a store.

    Raises:
        RunMismatchError: If this program means something else by it.
    """
    ours = definition_of(name)
    if there != ours:
        raise RunMismatchError(f"the store holds {there}, this heatlas computes {ours}; a column has one meaning, so leave "
                               f"{name} out, or explain the data anew into another --out")  # fmt: skip


def notes(wanted: Wanted) -> Mapping[str, str]:
    """Why metrics are not computed, by their names joined; for the user."""
    reasons = {}
    if wanted.stored:
        reasons[", ".join(wanted.stored)] = "stored by the run itself"
    if wanted.left_out:
        reasons[", ".join(wanted.left_out)] = "left out, because a store does not hold the maps of the block layers"
    if wanted.need_whole_map:
        reasons[", ".join(wanted.need_whole_map)] = "left out, because the stored maps are reduced"
    if wanted.need_method:
        reasons[", ".join(wanted.need_method)] = (
            "left out, because the method of imported maps would have to explain changed images"
        )
    return reasons
