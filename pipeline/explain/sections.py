"""The samples of a run in the order of its plan: a new run's as listed, a stored run's as they were, `--append`'s behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from ...errors import RunMismatchError
from ...workers.samples import Shard
from ..run_samples import shards_of
from ..settings.run import Settings
from ..shards import plan_shards, planned_shards
from ..sources.listing.options import Listed
from ..storage.atomic_write import remove
from ..storage.location import child
from ..store.compare_listings import as_spelt, change_texts, listing_changes
from ..store.part_names import SUCCESS
from ..store.plan_files import RunPlan, append_section, put_listing, read_listing, read_plan
from ..store.run_file import find_run
from ..terminal_log import say
from ..text import counted


@dataclass(frozen=True)
class PlannedSamples:
    """What is to be explained, and how it stands to what the directory has."""

    listing: pa.Table
    """Every sample of the plan in its order, sections appended now or before included."""
    shards: Sequence[Shard]
    """Ranges of it."""
    first_listing: pa.Table
    """What the run began with, by which it is identified."""
    first_shards: Sequence[Shard]
    plan: RunPlan | None = None
    """As stored; None where the directory holds no run, or one that did not keep its listing."""
    new: pa.Table | None = None
    """Samples to append, with their shards counted from 0."""
    new_shards: Sequence[Shard] = ()
    gone: Sequence[str] = ()
    """Ids of the plan that are listed no more."""
    mismatch: str = ""
    """How the listing differs from the plan, where that refuses the run."""

    def write(self, out: str) -> None:
        """Keep the listing of a new run and the section of an append; to be called once the directory is ours.

        Raises:
            RunMismatchError: If another command appended other samples meanwhile.
        """
        if self.plan is None:
            put_listing(out, self.first_listing)
            return
        if self.gone:
            say(
                f"note: {counted(len(self.gone), 'sample')} of the run listed no more, such as {self.gone[0]!r}; their rows stay"
            )
        if self.new is None:
            return
        remove(child(out, SUCCESS))
        added = append_section(out, self.plan, self.new, self.new_shards)
        remove(child(out, SUCCESS))  # a command that read the plan before may have said meanwhile that it is complete
        if not added:
            raise RunMismatchError(
                f"another command appended other samples to {out} meanwhile; run the same command again"
            )
        say(
            f"note: {counted(len(self.new), 'new sample')} in {counted(len(self.new_shards), 'shard')} appended to the plan of {out}"
        )


def planned_samples(settings: Settings, listing: pa.Table, listed: Listed, least: int) -> PlannedSamples:
    """Hold a listing against the plan of the directory, where it has one.

    Args:
        settings: Says `out`, `append` and the shard size.
        listing: Labels resolved.
        listed: Where it came from.
        least: See `shards_of`.
    """
    fresh = shards_of(listed, settings.shard_size, least)
    run = find_run(settings.out)
    if run is None or "plan" not in run["fingerprint"]:
        return PlannedSamples(listing, fresh, listing, fresh)
    plan = read_plan(settings.out, run)
    if settings.shard_size == "auto" and plan.facts["samples"] == len(listing):
        fresh = planned_shards(plan.facts)  # what a shard takes may have been measured when the run began
    stored = read_listing(settings.out, plan)
    if stored is None:
        return PlannedSamples(listing, fresh, listing, fresh)
    listing = as_spelt(stored, listing)
    changes = listing_changes(stored, listing)
    if texts := change_texts(changes, append=settings.append):
        return PlannedSamples(listing, fresh, listing, fresh, plan, mismatch="; ".join(texts))
    first, first_shards = stored.slice(0, plan.facts["samples"]), planned_shards(plan.facts)
    if not changes.any and not plan.sections:
        return PlannedSamples(listing, fresh, listing, fresh, plan)
    known = PlannedSamples(stored, plan.shards, first, first_shards, plan, gone=changes.gone)
    return with_new(known, changes.new, settings.shard_size) if len(changes.new) else known


def with_new(known: PlannedSamples, new: pa.Table, shard_size: int | str) -> PlannedSamples:
    """The plan with a further section; its shards are as large as those of the beginning where nobody asks for a size."""
    size = max(map(len, known.first_shards)) if shard_size == "auto" else int(shard_size)
    added = plan_shards(len(new), size)
    first, start = len(known.shards), len(known.listing)
    shifted = [Shard(first + shard.index, start + shard.start, start + shard.stop) for shard in added]
    listing = pa.concat_tables([known.listing, new], promote_options="permissive").combine_chunks()
    return replace(known, listing=listing, shards=[*known.shards, *shifted], new=new.combine_chunks(), new_shards=added)
