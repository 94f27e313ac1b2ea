"""docs/checks.md lists what the marked tests show."""

from __future__ import annotations

from pathlib import Path

from ..support.checkout import checkout_module

PAGE = Path(__file__).parents[2] / "docs" / "checks.md"


def test_the_page_lists_every_marked_test() -> None:
    made = checkout_module("docs.generate.checks_page")
    result = list(made.checks())
    assert len(result) >= 50
    assert {check.paragraph for check in result} == set(made.PARAGRAPHS)
    assert {check.answer for check in result} == set(made.ANSWERS)
    assert PAGE.read_text() == made.page(), "docs/checks.md is out of date: run python -m docs.generate checks"
