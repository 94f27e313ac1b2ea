"""One run from settings to a complete store; the command and `heatlas.explain_dataset` are both this."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

from torch import nn
from torch.utils.data import DataLoader, Dataset

from ...errors import RunMismatchError, ShardsUndoneError
from ...statuses import OK
from ...workers.run_totals import RunTotals
from ..settings.load import load_settings
from ..settings.options import RunOptions
from ..settings.run import Settings
from ..storage.atomic_write import remove
from ..storage.location import child
from ..store.committed_shards import row_totals
from ..store.completeness import check_complete
from ..store.part_names import SUCCESS
from ..store.plan_files import read_listing, read_plan
from ..store.run_file import read_run
from ..store.status import run_status
from ..store.success_file import write_success
from ..terminal_log import say
from ..text import counted
from .given import named_objects
from .prepare import PreparedRun, prepare_run
from .result import RunResult
from .retry_errors import plan_retry

UNDONE_SHOWN = 5


def explain_dataset(
    *,
    model: str | nn.Module,
    data: str | os.PathLike[str] | Dataset[Any] | DataLoader[Any],
    out: str | os.PathLike[str],
    config: str | os.PathLike[str] | None = None,
    preprocess: Mapping[str, Any] | Callable[..., Any] | None = None,
    class_names: Sequence[str] | None = None,
    **settings: Unpack[RunOptions],
) -> RunResult:
    """Explain a data set: maps and metrics of every image into a Parquet store at `out`, as `heatlas explain` does.

    The same call again resumes. Progress goes to the logger `heatlas`; nothing is printed.

    Args:
        model: `torchvision:NAME[@WEIGHTS]` and the like (docs/models.md), or a classifier as an object: it stays as it is, workers get
            copies, and the run is known by its weights and its `repr`.
        data: Image folder, manifest or another source (docs/data.md), path or fsspec URI; or a map-style data set, or the `DataLoader`
            of one, whose items are images or (image, label): unnormalised, in [0, 1] or uint8.
        out: Directory or URI of the store.
        config: YAML file with settings, or the name of a packaged one.
        preprocess: Settings of the group `preprocess` (`{"size": 224, "mean": ..., "std": ...}`); with a model object also torchvision's
            preset (`weights.transforms()`), an image processor of transformers, or a function from an image to the input. Otherwise what the
            model's attribute `preprocess` or timm's data config says, else ImageNet's usual values.
        class_names: Of a model object, one per class.
        **settings: Any other setting of `heatlas explain --help`, nested ones as mappings: `sise={"mu": 0.3}`.

    Returns:
        What the store now holds.

    Raises:
        UsageError: When the request cannot be carried out as written; nothing was begun.
        RunError: When the run failed; what is committed stays, and the same call resumes.
        KeyboardInterrupt: After Ctrl-C, when the workers are gone.
    """
    with named_objects(model, data, preprocess, class_names) as named:
        return explain_settings(load_settings({**named, "out": out, **settings}, config))


def explain_settings(settings: Settings) -> RunResult:
    """As `explain_dataset`, with resolved settings."""
    run = prepare_run(settings)
    try:
        return carry_out(run)
    except RunMismatchError:
        if run.trial is None:
            raise
    return carry_out(
        prepare_run(settings)
    )  # another command may have begun the same run meanwhile, and its trial counts


def carry_out(run: PreparedRun) -> RunResult:
    """Claim the store for a run that is checked and planned, do what is not done, conclude."""
    begun, settings = time.monotonic(), run.settings
    run = run.claimed()
    todo = run.undone()
    outcome = RunTotals()
    if todo:
        say(f"{run.headline(todo)}; writing {settings.out}")
        outcome = run.work(todo)
    refuse_undone(outcome, settings.out)
    again = retried(run, outcome.done) if settings.retry_errors else Retried()
    concluded(settings.out)
    seconds = time.monotonic() - begun
    deaths = outcome.deaths + again.deaths
    return RunResult(settings.out, run_status(settings.out), len(outcome.done), seconds, deaths,
                       retried=again.rows if settings.retry_errors else None, recovered=again.recovered,
                       stages=dict(outcome.stages), worked=outcome.seconds, padded=outcome.padded)  # fmt: skip


def concluded(out: str) -> None:
    """Hold the store against its plan, sections that another command appended meanwhile included, and say that it is complete.

    Raises:
        ShardsUndoneError: If shards are missing.
        StorageError: If the store does not hold exactly its plan.
    """
    run = read_run(out)
    plan = read_plan(out, run)
    while True:
        write_success(out, check_complete(out, plan.shards, read_listing(out, plan)))
        now = read_plan(out, run)
        if now == plan:
            return
        plan = now  # another command appended while the totals were made
        remove(child(out, SUCCESS))


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


def refuse_undone(outcome: RunTotals, out: str) -> None:
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
