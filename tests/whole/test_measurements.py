"""`python -m bench` lists every measurement by its room and runs one by its name."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ..support.checkout import ROOT, checkout_module


@pytest.fixture(scope="module")
def known() -> dict:
    return checkout_module("bench.__main__").measurements()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "bench", *arguments], cwd=ROOT, capture_output=True, text=True)


def test_every_command_of_every_room_is_listed(known: dict) -> None:
    files = [path for path in (ROOT / "bench").glob("*/*.py") if '__name__ == "__main__"' in path.read_text()]
    assert {command.module for command in known.values()} == {f"bench.{p.parent.name}.{p.stem}" for p in files}
    lines = run().stdout.splitlines()
    for command in known.values():
        assert command.text, f"{command.module} does not say what it measures"
        assert any(f"python -m bench {command.name} " in line and command.text in line for line in lines)


def test_a_measurement_runs_by_its_name_and_an_unknown_one_is_refused() -> None:
    done = run("kill_and_resume", "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: python -m bench kill_and_resume")
    refused = run("kill")
    assert refused.returncode == 1
    assert refused.stderr.startswith("unknown measurement 'kill'; known: ")
    assert "kill_and_resume" in refused.stderr
