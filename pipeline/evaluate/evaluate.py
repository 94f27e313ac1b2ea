"""Metrics added to a store after its run: the stored maps are measured, not made again."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Unpack

from ...errors import DataError, RunMismatchError, StorageError
from ...statuses import OK, RETRYABLE
from ...workers.run_totals import RunTotals
from ...workers.samples import Sample, Shard
from ...workers.targets import PREDICTED
from ...workers.worker.build import build_engine
from ..explain.changed_inputs import check_inputs, refuse_changed_inputs
from ..explain.dispatch import work_through
from ..explain.explain import refuse_undone
from ..explain.prepare import PreparedRun, prepare_run, refuse_chosen_by
from ..settings.imported_runs import IMPORTED
from ..settings.options import ExecutionOptions
from ..settings.run import Settings
from ..shards import samples_of
from ..storage.atomic_write import remove, sweep_temporaries
from ..storage.location import child
from ..store.committed_shards import done_shards, read_part, row_totals
from ..store.evaluation_status import status_of_evaluation
from ..store.evaluations import Evaluation, claim_evaluation, list_evaluations
from ..store.footer_reader import part_summaries
from ..store.identity import differences
from ..store.part_names import SUCCESS
from ..store.plan_files import read_plan
from ..store.require_full_maps import refuse_missing_maps
from ..store.run_file import read_run
from ..store.status_facts import ShardCounts
from ..store.success_file import read_success, write_success
from ..terminal_log import say
from ..text import counted
from .reduced_maps import facts_of, low_resolution, metric_of
from .request import Wanted, notes, wanted_metrics
from .result import EvaluationResult
from .settings import evaluation_settings
from .sink import MetricsSink
from .stored_maps import StoredMaps

BELONGS = ("model", "preprocess")
"""Parts of a run's fingerprint that are computed anew, besides its plan."""


def evaluate_store(
    out: str | os.PathLike[str], *, metrics: str | Sequence[str] = ("standard",), **how: Unpack[ExecutionOptions]
) -> EvaluationResult:
    """Add metrics to the store `out` without making its maps again, as `heatlas evaluate` does.

    The same call again resumes. Progress goes to the logger `heatlas`; nothing is printed.

    Args:
        out: Directory or URI of a run's store. Where its maps are stored at less than network-input resolution, only metrics that read
            the map alone can be added, in columns of their own such as `ebpg@map56`.
        metrics: Names and presets; what the store has already is not computed again.
        **how: Settings of `heatlas evaluate --help`, such as `workers=4`.

    Raises:
        UsageError: When the request cannot be carried out as written; nothing was begun.
        RunError: When it failed; what is committed stays, and the same call resumes.
        KeyboardInterrupt: After Ctrl-C, when the workers are gone.
    """
    begun = time.monotonic()
    out = os.fspath(out)
    run = read_run(out)
    asked = [metrics] if isinstance(metrics, str) else list(metrics)
    wanted = wanted_metrics(
        asked,
        run["fingerprint"]["metrics"],
        list_evaluations(out),
        imported=IMPORTED in run["settings"],
        resolution=low_resolution(run),
    )
    settings = evaluation_settings(out, run, dict(how))
    refuse_chosen_by(settings, wanted.new)
    for names, why in notes(wanted).items():
        say(f"note: {names}: {why}")
    outcomes = carry_out(run, wanted, settings)
    planned = len(read_plan(out, run).shards)
    return EvaluationResult(
        out=out,
        evaluations=[status_of_evaluation(out, evaluation, planned) for evaluation in outcomes],
        shards=ShardCounts(planned, len(done_shards(out))),
        shards_done=sum(len(totals.done) for totals in outcomes.values()),
        seconds=time.monotonic() - begun,
        deaths=sum(totals.deaths for totals in outcomes.values()),
    )


def carry_out(run: Mapping[str, Any], wanted: Wanted, settings: Settings) -> dict[Evaluation, RunTotals]:
    """Complete what was begun and add what is new.

    Returns:
        What this call did for each evaluation, by evaluation.
    """
    todo = [
        evaluation
        for evaluation in wanted.begun
        if not complete(settings, evaluation, len(read_plan(settings.out, run).shards))
    ]
    outcomes = {evaluation: RunTotals() for evaluation in wanted.begun if evaluation not in todo}
    if not todo and not wanted.new:
        return outcomes
    refuse_missing_maps(settings.out, run)
    prepared = prepared_as(run, settings)
    sets = [list(evaluation.metrics) for evaluation in todo] + ([wanted.new] if wanted.new else [])
    for names in sets:
        evaluation = claimed(run, names, prepared.settings)
        outcomes[evaluation] = evaluate_with(prepared, evaluation)
    return outcomes


def complete(settings: Settings, evaluation: Evaluation, planned: int) -> bool:
    """Whether nothing is left to do for it, without a look at model or images."""
    out = settings.out
    if read_success(child(out, evaluation.folder)) is None:
        return False
    standing = Standing.of(out, evaluation.folder, again=settings.retry_errors)
    return not standing.undone and len(standing.there) == planned


def prepared_as(run: Mapping[str, Any], settings: Settings) -> PreparedRun:
    """The run prepared anew, with nothing to explain.

    Raises:
        UsageError: If model or images are not there any more.
        RunMismatchError: If they are not those of the run.
    """
    try:
        prepared = prepare_run(settings)
    except DataError as error:
        raise DataError(
            f"{error}; metrics need the images of the run, so call from the folder where it was started"
        ) from None
    stored, ours = essence(run["fingerprint"]), essence(prepared.fingerprint)
    ours["model"] = {
        name: value for name, value in ours["model"].items() if name in stored["model"]
    }  # older runs say less
    if lines := differences(stored, ours):
        raise RunMismatchError(
            f"the maps of {settings.out} were made from something else than there is now:\n"
            + "\n".join(lines)
            + "\nrestore the "
            "weights or the data set; metrics of others would not belong to the stored maps. Nothing was changed"
        )
    refuse_changed_inputs(settings.out, check_inputs(settings.out, run, prepared.reader))
    method = run["fingerprint"].get("method", settings.method)  # another one where the maps were imported
    return replace(prepared, sink=replace(prepared.sink, layout=replace(prepared.sink.layout, method=method)))


def essence(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """Whose maps these are: which samples in which shards, through which model."""
    plan = {key: fingerprint["plan"][key] for key in ("samples", "shards", "digest")}
    return {"plan": plan, **{key: fingerprint[key] for key in BELONGS}}


def claimed(run: Mapping[str, Any], names: Sequence[str], settings: Settings) -> Evaluation:
    """The evaluation of these metrics, begun now or before."""
    depends = {"precision": settings.precision, "batch_size": settings.batch_size, "threads": settings.cpus_per_worker, "seed": settings.seed}  # fmt: skip
    return claim_evaluation(settings.out, run, {name: facts_of(name) for name in names}, depends)


def evaluate_with(prepared: PreparedRun, evaluation: Evaluation) -> RunTotals:
    """Measure every stored map that is not measured yet.

    Raises:
        ShardsUndoneError: If shards could not be done.
        KeyboardInterrupt: After Ctrl-C, when the workers are gone.
    """
    settings, out = prepared.settings, prepared.settings.out
    standing = Standing.of(out, evaluation.folder, again=settings.retry_errors)
    todo = [shard for shard in prepared.shards if shard.index in standing.undone]
    outcome = RunTotals()
    if todo:
        remove(child(out, f"{evaluation.folder}/{SUCCESS}"))
        say(standing.headline(out, list(evaluation.metrics)))
        outcome = work_through(
            settings, todo, lambda shard: samples_to_measure(prepared, shard),
            replace(prepared.spec, metrics=tuple(map(metric_of, evaluation.metrics)), target=PREDICTED, chance_below=0, sanity_below=0),
            prepared.reader, sink_of(prepared, evaluation, standing), standing.totals,
            max_error_rate=settings.max_error_rate, build=partial(build_engine, stored=StoredMaps(out, prepared.sink.layout.input_size)),
        )  # fmt: skip
    refuse_undone(outcome, out)
    conclude(out, evaluation, len(prepared.shards))
    return outcome


def samples_to_measure(prepared: PreparedRun, shard: Shard) -> list[Sample]:
    """The samples of a shard that have a map; the others have no metrics and are not touched."""
    samples = [replace(sample, explained_in=shard.index) for sample in samples_of(prepared.listing, shard)]
    try:
        rows = read_part(prepared.settings.out, shard.index, ["id", "status"]).to_pylist()
    except StorageError:
        return samples  # the worker meets the same error, and fails this shard only
    ok = {row["id"] for row in rows if row["status"] == OK}
    return [sample for sample in samples if sample.id in ok]


def sink_of(prepared: PreparedRun, evaluation: Evaluation, standing: Standing) -> MetricsSink:
    layout = replace(
        prepared.sink.layout, metrics=tuple(evaluation.metrics), extra=(), method_columns=(), chance_metrics=(), with_map=False, with_png=False,
        metadata={"metrics": dict(evaluation.metrics), "evaluation": {"created": evaluation.created, **evaluation.fingerprint}},
    )  # fmt: skip
    return MetricsSink(prepared.settings.out, evaluation.folder, layout, standing.renewed)


def conclude(out: str, evaluation: Evaluation, planned: int) -> None:
    """Mark the evaluation complete if every shard of the run is measured."""
    standing = Standing.of(out, evaluation.folder)
    if not standing.undone and len(standing.there) == planned:
        write_success(child(out, evaluation.folder), row_totals(out, folder=evaluation.folder))
        sweep_temporaries(child(out, evaluation.folder))


@dataclass(frozen=True)
class Standing:
    """How far an evaluation is, from the footers of both kinds of part."""

    with_map: dict[int, int]
    """Rows that have a map, by stored shard."""
    images: dict[int, int]
    """Images that have one, at most."""
    there: frozenset[int]
    """Shards that have a file."""
    undone: frozenset[int]
    """Stored shards without a file, or with one that is to be replaced."""

    @classmethod
    def of(cls, out: str, folder: str, *, again: bool = False) -> Standing:
        """Look.

        Args:
            out: Directory or URI of the store.
            folder: Of the evaluation.
            again: Whether files with rows that may come out otherwise another time are to be replaced. Files that lack rows
                always are: error rows of the run may have become `ok` since.
        """
        stored = part_summaries(out, done_shards(out))
        with_map = {index: summary.statuses.get(OK, 0) for index, summary in stored.items()}
        images = {index: min(with_map[index], summary.samples) for index, summary in stored.items()}
        parts = part_summaries(out, done_shards(out, folder), folder)
        whole = {
            index for index, summary in parts.items()
            if summary.rows == with_map.get(index, summary.rows) and not (again and RETRYABLE & summary.statuses.keys())
        }  # fmt: skip
        return cls(with_map, images, frozenset(parts), frozenset(with_map.keys() - whole))

    @property
    def renewed(self) -> frozenset[int]:
        """Shards whose file is to be replaced."""
        return self.there & self.undone

    @property
    def totals(self) -> RunTotals:
        images = sum(self.images.values())
        return RunTotals(images=images, before=images - sum(self.images[index] for index in self.undone))

    def headline(self, out: str, names: Sequence[str]) -> str:
        images = sum(self.with_map[index] for index in self.undone)
        return f"{', '.join(names)} of {counted(images, 'map')} in {counted(len(self.undone), 'shard')}; writing {out}"
