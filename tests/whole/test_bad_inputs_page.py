"""docs/bad-inputs.md: what wrong command lines are told is what the page says."""

from __future__ import annotations

from pathlib import Path

from heatlas.pipeline.cli.app import COMMANDS

from ..support.checkout import checkout_module

OF_RELEASE = {*["explain", "plan", "bank", "train", "import", "evaluate", "choose", "curate", "cluster", "decide", "annotate", "narrate", "report", "compare", "view", "export", "compact"],
              *["layers", "methods", "metrics", "show", "status", "summary", "verify", "demo", "edge", "migrate"]}  # fmt: skip
PAGE = Path(__file__).parents[2] / "docs" / "bad-inputs.md"


def test_the_page_says_what_the_commands_say():
    made = checkout_module("docs.generate.bad_inputs_page")
    commands = {command.split()[0] for command in (*made.INPUTS, *made.ON_STORES)}
    assert commands >= OF_RELEASE, "a command without a bad input"
    assert COMMANDS.keys() >= OF_RELEASE
    told = made.messages()
    assert len(told) >= 150
    assert {code for _, code, _ in told} == {2}
    assert all(message and "Traceback" not in message and "heatlas_" not in message for _, _, message in told)
    text = PAGE.read_text()
    for command, code, message in told:
        line = f"| `heatlas {command}` | {code} | {made.cell(message)} |"
        assert line in text, (
            f"docs/bad-inputs.md is out of date for {command!r}: run python -m docs.generate bad_inputs"
        )
