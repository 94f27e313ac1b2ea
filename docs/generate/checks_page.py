"""Writes docs/checks.md: what heatlas does not leave to chance, case by case, from the tests that hold it to that.

    python -m docs.generate checks

A test says what it shows with `@pytest.mark.check(paragraph, case, answer)`; the page lists them all, and how many configurations each
is run with stands in the tests themselves.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "checks.md"
PARAGRAPHS = {
    "labels": "Which index is which class",
    "weights": "Which weights",
    "model": "What the model is",
    "input": "What the model sees",
    "file": "What the file says",
}
ANSWERS = {
    "known": "taken from the source of truth: the file, the family's own code, or what a probe of the model shows",
    "said": "taken by custom, and said before the run, in `plan` and in the run's provenance",
    "asked": "refused with the choices named (exit 2), where nothing tells",
    "refused": "refused with the cause and what to do (exit 2, or an error row where one image is concerned)",
}
HEADER = """<!-- Made by `python -m docs.generate checks`; do not edit, run it again. -->
# Checks: what is known, said, asked and refused

A map for the wrong class, or of a picture in the wrong colours, is worse than none. So heatlas leaves none of the following to chance;
each line is held by a test, whose name stands beside it.

{answers}

`heatlas plan` with the arguments of `heatlas explain` does all of it without a run.
"""


@dataclass(frozen=True)
class Check:
    """One marked test."""

    paragraph: str
    case: str
    answer: str
    test: str


def checks() -> Iterator[Check]:
    """Every marked test, by file and line.

    Raises:
        ValueError: If a mark has other than three texts, or an unknown paragraph or answer.
    """
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                for decorator in node.decorator_list:
                    if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.check":
                        paragraph, case, answer = (ast.literal_eval(text) for text in decorator.args)
                        if paragraph not in PARAGRAPHS or answer not in ANSWERS:
                            raise ValueError(f"{path}:{node.lineno}: no check is called {paragraph!r} or {answer!r}")
                        yield Check(paragraph, case, answer, f"{path.stem}.{node.name}")


def page() -> str:
    """The whole page."""
    found = list(checks())
    text = HEADER.format(answers="\n".join(f"- **{answer}**: {what}." for answer, what in ANSWERS.items()))
    for paragraph, title in PARAGRAPHS.items():
        rows = [check for check in found if check.paragraph == paragraph]
        rows.sort(key=lambda check: (list(ANSWERS).index(check.answer), check.case))
        lines = "".join(f"| {check.case} | {check.answer} | `{check.test}` |\n" for check in rows)
        text += f"\n## {title}\n\n| case | answer | test |\n|---|---|---|\n{lines}"
    return text


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}: {len(list(checks()))} checks")
