"""docs/guarantees.md: every row of the failure table names tests that exist, and measurements that came out as they must."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest
from heatlas.errors import RunError, UsageError
from heatlas.pipeline.cli.app import INTERRUPTED
from heatlas.pipeline.cli.termination import TERMINATED

from ..support.checkout import ROOT

PAGE = (ROOT / "docs" / "guarantees.md").read_text()
SPECIFICATION = ROOT.parent / "shared" / "spec" / "runtime.md"


def table(text: str, header: str) -> list[list[str]]:
    """Cells of the table whose header begins so, without header and rule."""
    lines = text[text.index(header) :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def part(name: str) -> str:
    """What a harness wrote between its markers."""
    return re.split(rf"<!-- {name}: (?:begin.*|end) -->", PAGE)[1]


@cache
def functions_in(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


ROWS = table(PAGE, "| event | what happens | what you can rely on | proved by |")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:40])
def test_every_guarantee_names_tests_that_exist(row):
    event, what, promise, proofs = row
    assert event
    assert what
    assert promise
    named = re.findall(r"`(tests/\S+\.py)::(test_\w+)`", proofs)
    assert named, f"no test is named for: {event}"
    assert re.sub(r"`[^`]*`", "", proofs).strip() == "", "something else than tests stands there"
    for path, name in named:
        assert name in functions_in(path), f"{path} has no {name}"


@pytest.mark.outside_files("shared/spec/runtime.md")
def test_every_row_of_the_failure_table_is_there():
    wanted = [row[0] for row in table(SPECIFICATION.read_text(), "| event | what happens | guarantee |")]
    assert [row[0] for row in ROWS if row[0] in wanted] == wanted


def test_exit_codes():
    codes = [int(row[0]) for row in table(PAGE, "| exit code | |")]
    assert codes == [0, RunError.exit_code, UsageError.exit_code, INTERRUPTED, TERMINATED]


def test_chaos_came_out_as_it_must():
    rows = table(part("chaos"), "| store | seed |")
    assert {row[0] for row in rows} == {"local", "s3"}
    for store in ("local", "s3"):
        assert len({row[1] for row in rows if row[0] == store}) >= 5
    for _, _, workers, drivers, missing, twice, wrong, content, *_ in rows:
        assert (missing, twice, wrong, content) == ("0", "0", "0", "equal")
        assert int(workers) >= 1
        assert drivers == "3"
    assert "the same content in all stores" in part("chaos")


def test_no_fault_costs_more_than_its_shard_at_a_time():
    """Quarantine takes three deaths, so it may cost three shards; any other fault costs one at most."""
    rows = table(part("faults"), "| fault |")
    size = int(re.search(r"Shards of (\d+) images", part("faults"))[1])
    redone = {row[0]: int(row[-1]) for row in rows}
    assert redone.pop("none") == 0
    assert len(redone) == 10
    for fault, images in redone.items():
        deaths = 3 if fault.startswith("an image") and fault != "an image raises" else 1
        assert images <= deaths * size, fault
