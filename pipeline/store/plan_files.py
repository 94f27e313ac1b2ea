"""The plan of a run beside `_run.json`: the samples as they were listed, and what `explain --append` added since.

out/_plan/listing.parquet                  the samples of the plan in `_run.json`, labels resolved; put once
out/_plan/append-000001.json               a further section of the plan: how many samples in which shards; put once, which is its commit
out/_plan/append-000001-<digest>.parquet   its samples; put before it

Shards of a section follow those before it, so a shard's number never changes, nor does a committed part.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import StorageError
from ...workers.samples import Shard
from ..shards import plan_digest, planned_shards
from ..sources.listing.check import listing_digest
from ..storage.atomic_write import put_if_absent
from ..storage.backoff import with_retries
from ..storage.json_object import read_object
from ..storage.location import bytes_of, child, locate, names_in
from .parquet_bytes import table_to_parquet

PLAN_FOLDER = "_plan"
LISTING_FILE = f"{PLAN_FOLDER}/listing.parquet"
_SECTION = re.compile(r"append-(\d{6})\.json")
_REMEDY = "restore the file, or choose another --out"


@dataclass(frozen=True)
class RunPlan:
    """Which samples are in which shards: what the run began with, and every section added since."""

    facts: Mapping[str, Any]
    """Of the beginning, as in `_run.json`."""
    sections: tuple[Mapping[str, Any], ...] = ()

    @property
    def parts(self) -> tuple[Mapping[str, Any], ...]:
        return (self.facts, *self.sections)

    @property
    def samples(self) -> int:
        return sum(part["samples"] for part in self.parts)

    @property
    def shards(self) -> list[Shard]:
        """All of them, as ranges of the listings one after the other."""
        shards: list[Shard] = []
        for part in self.parts:
            first, start = len(shards), shards[-1].stop if shards else 0
            shards += [
                Shard(first + shard.index, start + shard.start, start + shard.stop) for shard in planned_shards(part)
            ]
        return shards


def read_plan(out: str, run: Mapping[str, Any]) -> RunPlan:
    """The plan of a run, sections added since included.

    Args:
        out: The run's directory.
        run: Content of its `_run.json`.

    Raises:
        StorageError: If a section cannot be read, or one is missing.
    """
    place = child(out, PLAN_FOLDER)
    fs, path = locate(place)
    names = with_retries(lambda: names_in(fs, path), f"list {place}")
    numbers = sorted(int(match[1]) for name in names if (match := _SECTION.fullmatch(name)))
    if numbers != list(range(1, len(numbers) + 1)):
        raise StorageError(f"{place} has sections {numbers} of the plan, not 1 to {len(numbers)}; {_REMEDY}")
    return RunPlan(run["fingerprint"]["plan"], tuple(_section(out, number) for number in numbers))


def _section(out: str, number: int) -> Mapping[str, Any]:
    uri = child(out, section_path(number))
    section = read_object(uri, _REMEDY)
    try:
        whole = section is not None and plan_digest(section["listing"], planned_shards(section)) == section["digest"]
    except (KeyError, TypeError, ValueError):
        whole = False
    if section is None or not whole:
        raise StorageError(f"{uri} is damaged; {_REMEDY}")
    return section


def section_path(number: int) -> str:
    """Where the section of that number, from 1, stands."""
    return f"{PLAN_FOLDER}/append-{number:06d}.json"


def plan_facts(listing_sha256: str, samples: int, shards: Sequence[Shard]) -> dict[str, Any]:
    """What a plan says of one listing: JSON values."""
    return {
        "samples": samples,
        "shards": len(shards),
        "listing": listing_sha256,
        "digest": plan_digest(listing_sha256, shards),
        "sizes": list(map(len, shards)),
    }


def read_listing(out: str, plan: RunPlan) -> pa.Table | None:
    """The samples of the plan in its order, labels resolved; None in runs that did not keep them.

    Raises:
        StorageError: If a file is missing or holds something else than its plan says.
    """
    first = _table(child(out, LISTING_FILE))
    if first is None:
        return None
    tables = [_checked(first, plan.facts, child(out, LISTING_FILE))]
    for section in plan.sections:
        uri = child(out, f"{PLAN_FOLDER}/{section['file']}")
        table = _table(uri)
        if table is None:
            raise StorageError(f"{uri} is missing; {_REMEDY}")
        tables.append(_checked(table, section, uri))
    return pa.concat_tables(tables, promote_options="permissive").combine_chunks()


def _table(uri: str) -> pa.Table | None:
    fs, path = locate(uri)

    def read() -> bytes | None:
        fs.invalidate_cache()
        try:
            return bytes_of(fs, path)
        except FileNotFoundError:
            return None

    data = with_retries(read, f"read {uri}")
    if data is None:
        return None
    try:
        return pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True).read()
    except (OSError, pa.ArrowException) as error:
        raise StorageError(f"{uri} is damaged ({error}); {_REMEDY}") from error


def _checked(table: pa.Table, facts: Mapping[str, Any], uri: str) -> pa.Table:
    if "listing" in facts and listing_digest(table) != facts["listing"]:
        raise StorageError(f"{uri} does not hold the samples of the plan; {_REMEDY}")
    return table.replace_schema_metadata(None)


def put_listing(out: str, listing: pa.Table) -> None:
    """Keep the samples of a new run, unless that was done."""
    put_if_absent(child(out, LISTING_FILE), table_to_parquet(listing.replace_schema_metadata(None)))


def append_section(out: str, plan: RunPlan, new: pa.Table, shards: Sequence[Shard]) -> bool:
    """Add a section to the plan.

    Args:
        out: The run's directory.
        plan: As it stands.
        new: The samples to add, labels resolved.
        shards: Ranges of `new`, from 0.

    Returns:
        False if another command added other samples meanwhile.
    """
    number, digest = len(plan.sections) + 1, listing_digest(new)
    file = f"append-{number:06d}-{digest[:12]}.parquet"
    section = {**plan_facts(digest, len(new), shards), "file": file}
    put_if_absent(child(out, f"{PLAN_FOLDER}/{file}"), table_to_parquet(new.replace_schema_metadata(None)))
    if put_if_absent(child(out, section_path(number)), (json.dumps(section, indent=2) + "\n").encode()):
        return True
    return _section(out, number) == section
