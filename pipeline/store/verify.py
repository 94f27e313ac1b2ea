"""Is the store what the plan says? Every file is read as a whole; what is wrong is named, with the command that repairs it."""

from __future__ import annotations

import itertools
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pyarrow as pa

from ...errors import StorageError
from ..settings.as_command import explain_command
from ..shards import plan_digest, planned_shards
from ..storage.atomic_write import remove
from ..storage.location import child
from ..text import counted
from .committed_shards import done_shards
from .completeness import planned_ids, repeated_ids
from .identity import SCHEMA_FACT, schema_digest
from .part_check import PartCheck, check_part
from .part_files import DoneShards, PartFile
from .part_names import MAPS, SUCCESS
from .part_origin import expected_run
from .part_summary import added_up, without_summary
from .plan_files import read_listing, read_plan
from .run_file import read_run
from .status_facts import ShardCounts
from .success_file import read_success

READERS = 4
"""Files in memory at the same time."""
NAMED = 20
REPEATED = 1000
"""Undone shards that are named, and repeated ids that are looked at."""
Repair = Literal["resume", "delete", "compact", "look"]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong."""

    where: str
    """File or folder, relative to the run's directory."""
    text: str
    repair: Repair
    """`resume`: the run's own command; `delete`: that file goes first; `compact`: `heatlas compact`; `look`: nothing that a command
    could do."""


@dataclass(frozen=True)
class Verification:
    """What a look at every file of a store came to."""

    out: str
    ok: bool
    """Whether nothing is wrong."""
    shards: ShardCounts
    samples: int
    """Planned."""
    totals: dict[str, Any]
    """Of all rows, as `_SUCCESS` holds them."""
    problems: list[Problem]
    repair: list[str]
    """Commands that repair what is wrong, in order."""
    deleted: list[str]
    """Files that were deleted."""

    def as_json(self) -> dict[str, Any]:
        """Plain values, as `heatlas verify --json` prints them."""
        return asdict(self)


def verify_run(
    out: str,
    *,
    delete_damaged: bool = False,
    check_inputs: Callable[[Mapping[str, Any]], Iterable[Problem]] | None = None,
) -> Verification:
    """Check a run from end to end.

    Args:
        out: The run's directory.
        delete_damaged: Delete the files whose content is wrong, and `_SUCCESS` with them, so that the run's own command
            recomputes them. Files that cannot be read at the moment are left alone.
        check_inputs: Gets the content of `_run.json` and gives problems that the store itself does not show, such as changed images.

    Raises:
        NoRunError: If `out` is not a store.
        StorageError: If it cannot be listed, or its `_run.json` is damaged.
    """
    run = read_run(out)
    facts, added = run["fingerprint"]["plan"], read_plan(out, run)
    plan = {shard.index: len(shard) for shard in added.shards}
    listing = read_listing(out, added)
    ids = None if listing is None else planned_ids(listing, added.shards)
    done = done_shards(out)
    with ThreadPoolExecutor(READERS, thread_name_prefix="verify") as pool:
        parts = list(
            pool.map(
                lambda file: check_part(out, file, plan, expected_run(run), ids),
                (file for file in done.files if in_plan(file, plan)),
            )
        )
    totals = {**added_up(summary for part in parts for summary in part.summaries), "bytes": sum(done.values())}
    schema = run["fingerprint"].get(SCHEMA_FACT)
    problems = [
        *_plan_problems(facts),
        *_missing(plan, done),
        *_part_problems(out, plan, done, parts, schema, stamped=expected_run(run) is not None),
    ]
    problems += _success_problems(out, totals, whole=all(problem.repair == "compact" for problem in problems))
    problems += check_inputs(run) if check_inputs else ()
    deleted = _delete(out, problems) if delete_damaged else []
    return Verification(
        out=out,
        ok=not problems,
        shards=ShardCounts(len(plan), len(plan.keys() & done.keys())),
        samples=added.samples,
        totals=totals,
        problems=problems,
        repair=repair_lines(out, run["settings"], problems, deleted),
        deleted=deleted,
    )


def in_plan(file: PartFile, plan: Mapping[int, int]) -> bool:
    """Whether the plan has every shard of a file."""
    return all(index in plan for index in file.shards)


def _plan_problems(facts: Mapping[str, Any]) -> Iterator[Problem]:
    shards = planned_shards(facts)
    if "listing" in facts and plan_digest(facts["listing"], shards) != facts["digest"]:
        yield Problem("_run.json", "its plan does not agree with the plan's digest, so somebody changed it", "look")


def _missing(plan: Mapping[int, int], done: Mapping[int, int]) -> Iterator[Problem]:
    undone = sorted(plan.keys() - done.keys())
    if undone:
        named = ", ".join(map(str, undone[:NAMED])) + (" ..." if len(undone) > NAMED else "")
        yield Problem("maps", f"{counted(len(undone), 'shard')} of {len(plan)} not done: {named}", "resume")


def _part_problems(
    out: str,
    plan: Mapping[int, int],
    done: DoneShards,
    parts: Sequence[PartCheck],
    schema: str | None,
    *,
    stamped: bool,
) -> Iterator[Problem]:
    for file in done.files:
        if not in_plan(file, plan):
            yield Problem(file.path, f"does not belong to the plan, which has {len(plan)} shards", "delete")
    for file in done.superseded:
        yield Problem(file.path, "is superseded: its shard is in a merged file, so readers of all files see its rows twice", "compact")  # fmt: skip
    usual = _usual_schema(parts) if schema is None else None
    for part in parts:
        for text in part.problems:
            yield Problem(part.file.path, text, "delete")
        if part.unreadable:
            yield Problem(part.file.path, part.unreadable, "look")
        if not stamped and any(summary.origin is not None for summary in part.summaries):
            yield Problem(
                part.file.path, "says that it belongs to a run of a later store version than this store's", "delete"
            )
        if part.schema is not None and not _as_planned(part.schema, schema, usual):
            yield Problem(part.file.path, "has other columns or another origin than the rest of the run", "delete")
    yield from _repeated(out, [part for part in parts if part.summaries])


def _as_planned(schema: pa.Schema, digest: str | None, usual: pa.Schema | None) -> bool:
    """Whether a part has the columns and metadata that the run's identity says; what most parts have where it says nothing."""
    if digest is not None:
        return schema_digest(schema) == digest
    return without_summary(schema).equals(usual, check_metadata=True)


def _usual_schema(parts: Sequence[PartCheck]) -> Any:
    """What most of the parts have."""
    schemas = [without_summary(part.schema) for part in parts if part.schema is not None]
    texts = [schema.to_string(show_schema_metadata=True, truncate_metadata=False) for schema in schemas]
    common = Counter(texts).most_common(1)
    return schemas[texts.index(common[0][0])] if common else None


def _repeated(out: str, parts: Sequence[PartCheck]) -> Iterator[Problem]:
    """Parts of a sorted listing hold ids that ascend from part to part; only where they do not, all ids are compared."""
    ranges = [part.ids for part in parts if part.ids]
    if all(before[1] < after[0] for before, after in itertools.pairwise(ranges)):
        return
    try:
        repeated = repeated_ids(out, [part.file for part in parts], at_most=REPEATED)
    except StorageError as error:
        yield Problem("maps", f"the ids cannot be compared: {error}", "look")
        return
    shared: dict[str, dict[str, list[str]]] = {}
    for identity, _, names in repeated:
        for name in names if len(names) > 1 else []:
            others = ", ".join(other.rsplit("/", 1)[-1] for other in names if other != name)
            shared.setdefault(name, {}).setdefault(others, []).append(identity)
    for name, by_others in sorted(shared.items()):
        for others, ids in by_others.items():
            yield Problem(
                f"{MAPS}/{name.rsplit('/', 1)[-1]}", f"holds ids that {others} holds too, such as {ids[0]!r}", "delete"
            )


def _success_problems(out: str, totals: Mapping[str, Any], whole: bool) -> list[Problem]:
    try:
        says = read_success(out)
    except StorageError as error:
        return [Problem(SUCCESS, str(error), "delete")]
    if says is None:
        return (
            [Problem(SUCCESS, "is missing: every shard is done, but the run was not concluded", "resume")]
            if whole
            else []
        )
    if not whole:
        return [Problem(SUCCESS, "says that the run is complete, which it is not", "resume")]
    logical = [
        name for name in says if name in totals and name != "bytes"
    ]  # a compact that was cut short changed the bytes
    wrong = [name for name in logical if says[name] is not None and says[name] != totals[name]]
    if wrong:
        shown = ", ".join(f"{name} {says[name]!r} instead of {totals[name]!r}" for name in wrong[:3])
        return [Problem(SUCCESS, f"says {shown}", "resume")]
    return []


def _delete(out: str, problems: Sequence[Problem]) -> list[str]:
    damaged = sorted({problem.where for problem in problems if problem.repair == "delete"})
    for name in [SUCCESS, *damaged] if damaged else []:
        remove(child(out, name))
    return damaged


def repair_lines(
    out: str, settings: Mapping[str, Any], problems: Sequence[Problem], deleted: Sequence[str] = ()
) -> list[str]:
    """The commands that repair what is wrong, in order; none if nothing is, or nothing that a command could do."""
    repairs = {problem.repair for problem in problems}
    lines = [f"heatlas verify {shlex.quote(out)} --delete-damaged"] if "delete" in repairs and not deleted else []
    lines += [explain_command({**settings, "out": out})] if repairs & {"resume", "delete"} else []
    return [*lines, f"heatlas compact {shlex.quote(out)}"] if "compact" in repairs else lines


def verify_text(report: Verification) -> str:
    """The outcome for people, ready to print."""
    shards, totals = report.shards, report.totals
    what = f"{report.out}: {counted(shards.done, 'shard')} of {shards.planned}, {counted(totals['rows'], 'row')} read"
    if report.ok:
        return f"{what}; nothing is wrong\n  digest    {totals['digest']}"
    lines = [f"{what}; {counted(len(report.problems), 'problem')}"]
    lines += [f"  {problem.where}: {problem.text}" for problem in report.problems]
    lines += [f"  deleted   {name}" for name in report.deleted]
    if report.repair:
        lines += ["repair with", *(f"  {line}" for line in report.repair)]
    return "\n".join(lines)
