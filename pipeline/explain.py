"""One run from settings to a complete store; the command and `heatlas.explain_dataset` are both this."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa
import torch
from fsspec.implementations.memory import MemoryFileSystem
from torch import nn

from ..engine.errors import DataError, ShardsUndoneError, UsageError
from ..engine.measurement import find_metric
from ..engine.methods.in_sessions import check_fit
from ..engine.metrics import spelt_out
from ..engine.scores import SCORES
from ..engine.scoring import Scoring
from ..engine.statuses import OK
from ..workers.models import LoadedModel, ModelSpec, load_model, remote_file
from ..workers.outcome import RunOutcome
from ..workers.ports import ShardSink
from ..workers.shards import Sample, Shard
from ..workers.targets import TargetRule
from ..workers.worker_spec import WorkerSpec
from .chosen_samples import chosen_samples, shards_of, stored_extra
from .commit import remove
from .dispatch import work_through
from .fingerprint import claim_run
from .identity import run_fingerprint, store_layout
from .location import child, locate
from .method_settings import chosen_settings, without_effect
from .part_names import SUCCESS
from .plan import samples_of
from .resolve import load_settings
from .retry import Retry, RetrySink, plan_retry
from .run_result import RunResult
from .run_status import run_status
from .sampling import chosen_below
from .settings import Settings, describe
from .sources.confinement import check_data_root
from .sources.detection import item_source, place_named
from .sources.labels import ResolvedLabels, resolve_labels
from .sources.place import matches
from .sources.reader import FsspecReader
from .store import ParquetSink, check_complete, done_shards, row_totals, write_success
from .tally import Tally
from .target_rule import resolved_score, target_rule
from .wording import counted, harmless

UNDONE_SHOWN = 5


def explain_dataset(
    *,
    model: str,
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    config: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> RunResult:
    """Explain a data set: maps and metrics of every image into a Parquet store at `out`, as `heatlas explain` does.

    The same call again continues where it stopped. Progress goes to stderr, a closing summary to stdout.

    Args:
        model: `torchvision:NAME[@WEIGHTS]` or `package.module:factory`.
        data: Image folder or manifest; path or fsspec URI.
        out: Directory or URI of the store.
        config: YAML file with settings, or the name of a packaged one.
        **settings: Any other setting of `heatlas explain --help`, nested ones as mappings: `sise={"mu": 0.3}`.

    Returns:
        What the store now holds.

    Raises:
        UsageError: When the request cannot be carried out as written; nothing was begun.
        RunError: When the run failed; what is committed stays, and the same call resumes.
        KeyboardInterrupt: After Ctrl-C, when the workers are gone.
    """
    return explain_settings(load_settings({"model": model, "data": data, "out": out, **settings}, config))


def explain_settings(settings: Settings) -> RunResult:
    """As `explain_dataset`, with resolved settings."""
    begun = time.monotonic()
    run = prepare_run(settings)
    claimed = claim_run(settings.out, run.fingerprint, describe(settings))
    todo = run.undone()
    outcome = RunOutcome()
    if todo:
        say(f"{run.headline(todo)}; writing {settings.out}")
        outcome = run.work(todo)
    refuse_undone(outcome, settings.out)
    again = retried(run, outcome.done) if settings.retry_errors else Retried()
    write_success(settings.out, check_complete(settings.out, run.shards))
    seconds = time.monotonic() - begun
    deaths = outcome.deaths + again.deaths
    result = RunResult(settings.out, run_status(settings.out), claimed == "resumed", len(outcome.done), seconds, deaths,
                       retried=again.rows if settings.retry_errors else None, recovered=again.recovered)  # fmt: skip
    print(harmless(result.summary()))
    return result


@dataclass(frozen=True)
class Retried:
    """What became of error rows."""

    rows: int = 0
    """That were computed again."""
    recovered: int = 0
    """Error rows that are no more."""
    deaths: int = 0


def retried(run: PreparedRun, just_done: Sequence[int]) -> Retried:
    """Compute the error rows of earlier runs once more; while that goes on the store does not say that it is complete."""
    out = run.settings.out
    retry = plan_retry(out, run.shards, run.listing, leave=just_done)
    if not retry.shards:
        return Retried()
    remove(child(out, SUCCESS))
    failed = not_ok(out)
    say(f"{counted(retry.rows, 'error row')} in {counted(len(retry.shards), 'shard')} once more; writing {out}")
    outcome = run.again(retry)
    refuse_undone(outcome, out)
    return Retried(retry.rows, max(0, failed - not_ok(out)), outcome.deaths)


def not_ok(out: str) -> int:
    """Error rows of all kinds in the store."""
    statuses = row_totals(out)["statuses"]
    return sum(statuses.values()) - statuses.get(OK, 0)


@dataclass(frozen=True)
class PreparedRun:
    """A run that is checked and planned; nothing is written yet."""

    settings: Settings
    listing: pa.Table
    shards: list[Shard]
    fingerprint: dict[str, Any]
    spec: WorkerSpec
    reader: FsspecReader
    sink: ParquetSink
    layer_count: int
    labels: ResolvedLabels
    model: LoadedModel
    """Without its module, which belongs to the workers."""

    def undone(self) -> list[Shard]:
        done = done_shards(self.settings.out)
        return [shard for shard in self.shards if shard.index not in done]

    def headline(self, todo: Sequence[Shard]) -> str:
        images = sum(map(len, todo))
        rest = f" of {len(self.listing):,}" if images != len(self.listing) else ""
        return (
            f"{counted(images, 'image')}{rest} in {counted(len(todo), 'shard')}, {self.settings.model} {self._reading}"
        )

    @property
    def _reading(self) -> str:
        method, layers = self.settings.method, self.layer_count
        by = "" if method == "sise" else f"by {method} "
        return f"{by}with {layers} block layers" if layers else by.strip()

    def work(self, todo: Sequence[Shard]) -> RunOutcome:
        """Explain the shards, showing progress."""
        tally = Tally(images=len(self.listing), before=len(self.listing) - sum(map(len, todo)))
        rate = self.settings.max_error_rate
        return self._work(todo, lambda shard: samples_of(self.listing, shard), self.sink, tally, rate)

    def again(self, retry: Retry) -> RunOutcome:
        """Explain error rows once more. Most may fail again, so no share of failures is too large."""
        sink = RetrySink(self.settings.out, self.sink.layout)
        return self._work(retry.shards, lambda shard: retry.samples[shard.index], sink, Tally(images=len(retry)), 1.0)

    def _work(
        self,
        todo: Sequence[Shard],
        samples: Callable[[Shard], Sequence[Sample]],
        sink: ShardSink,
        tally: Tally,
        max_error_rate: float,
    ) -> RunOutcome:
        shared = (self.spec, self.reader, sink, tally)
        return work_through(self.settings, todo, samples, *shared, max_error_rate=max_error_rate)


def prepare_run(settings: Settings) -> PreparedRun:
    """Check everything that can be checked before workers start: data, model, layers, metrics, target.

    Raises:
        UsageError: Naming what is wrong.
    """
    metrics = [find_metric(name).name for name in spelt_out(settings.metrics)]
    refuse_out_among_images(settings)
    refuse_private_memory(settings)
    data_root = check_data_root(settings.data_root)
    found = chosen_samples(settings, data_root)
    model_spec = ModelSpec(spec=settings.model, bank=settings.bank, **settings.preprocess.model_dump())
    model = load_model(model_spec, FsspecReader())
    labels = resolve_labels(found.listing, model.class_names, model.num_classes, found.class_names, found.labels)
    rule = target_rule(settings, labels, model.num_classes)
    score = resolved_score(settings, rule, dense=model.dense)
    chosen = chosen_settings(settings)
    fit = check_fit(
        settings.method,
        model.module,
        chosen,
        torch.zeros(model.preprocess.channels, *model.preprocess.size),
        Scoring(budget=settings.budget, score=SCORES[score]),
    )
    if idle := without_effect(settings):
        say(f"note: {', '.join(idle)} {'has' if len(idle) == 1 else 'have'} no effect with method {settings.method}")
    if warning := labels.warning():
        say(f"note: {warning}")
    shards = shards_of(found, settings.shard_size)
    layout = store_layout(settings, metrics, model, fit, labels.class_names, score, stored_extra(found))
    return PreparedRun(
        settings=settings,
        listing=labels.listing,
        shards=shards,
        fingerprint=run_fingerprint(settings, metrics, model, fit, labels.listing, shards, data_root, score),
        spec=replace(
            worker_spec(settings, model_spec, metrics, labels.listing, rule, score),
            shard_size=max(map(len, shards)),
        ),
        reader=FsspecReader(data_root, named_by_user(settings), item_source(settings.data)),
        sink=ParquetSink(settings.out, layout),
        layer_count=len(fit.blocks or ()),
        labels=labels,
        model=replace(model, module=nn.Identity()),
    )


def named_by_user(settings: Settings) -> tuple[str, ...]:
    """Remote files that are read whatever `data_root` confines."""
    return tuple(one for one in (remote_file(settings.model), settings.bank) if one is not None and "://" in one)


def refuse_out_among_images(settings: Settings) -> None:
    """Pictures that `heatlas show` writes into a store must not turn up among the samples when the run is resumed.

    Raises:
        DataError: If `out` lies in the folder `data`.
    """
    place = place_named(settings.data)
    if place is None:
        return
    (data_fs, data), (out_fs, out) = locate(place), locate(settings.out)
    inside = f"{out.rstrip('/')}/".startswith(f"{data.rstrip('/')}/") or matches(data, f"{out.rstrip('/')}/_show/x.png")
    if inside and data_fs.to_dict() == out_fs.to_dict() and not data_fs.isfile(data):
        raise DataError(
            f"--out {settings.out} lies in the image folder --data {settings.data}; choose a place outside of it"
        )


def refuse_private_memory(settings: Settings) -> None:
    """Worker processes would read and write a `memory://` of their own, which nobody else sees and which is lost with them.

    Raises:
        UsageError: If `data`, `out` or `bank` lies there and there are worker processes.
    """
    for name, place in (("data", place_named(settings.data)), ("out", settings.out), ("bank", settings.bank)):
        if place is not None and settings.workers != 0 and isinstance(locate(place)[0], MemoryFileSystem):
            raise UsageError(f"--{name} {place} lies in the memory of this process, which worker processes cannot see; "
                             "use --workers 0, or another place")  # fmt: skip


def worker_spec(
    settings: Settings, model: ModelSpec, metrics: Sequence[str], listing: pa.Table, rule: TargetRule, score: str
) -> WorkerSpec:
    return WorkerSpec(
        model=model,
        target=rule,
        score=score,
        method=settings.method,
        method_settings=asdict(chosen_settings(settings)),
        budget=settings.budget,
        batch_size=settings.batch_size,
        precision=settings.precision,
        fold_bn=settings.fold_bn,
        compile=settings.compile,
        metrics=tuple(metrics),
        seed=settings.seed,
        floors_below=chosen_below(listing, settings.floors),
        sanity_below=chosen_below(listing, settings.sanity),
        threads=settings.cpus_per_worker,
        device=settings.device,
    )


def refuse_undone(outcome: RunOutcome, out: str) -> None:
    """End the run here if the user interrupted it or shards were given up.

    Raises:
        KeyboardInterrupt: When interrupted.
        ShardsUndoneError: Naming the shards and why.
    """
    if outcome.interrupted:
        raise KeyboardInterrupt
    if outcome.undone:
        shown = "".join(f"\n  shard {index}: {reason}" for index, reason in outcome.undone[:UNDONE_SHOWN])
        more = len(outcome.undone) - UNDONE_SHOWN
        raise ShardsUndoneError(
            f"{counted(len(outcome.undone), 'shard')} of {out} could not be done:{shown}"
            + (f"\n  and {more} more, see {out}/_logs" if more > 0 else "")
            + "\nThe other shards are committed; run the same command again to do the rest"
        )


def say(text: str) -> None:
    print(f"heatlas: {harmless(text)}", file=sys.stderr)
