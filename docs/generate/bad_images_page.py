"""Writes docs/bad-images.md: what becomes of every bad and odd image in the tests' corpus.

    python -m docs.generate bad_images

The corpus (`tests/support/corpus.py`) says what each case is and what must become of it; `tests/whole/test_bad_images.py` runs it
all through a real run and holds every row to that, so the page says what the tests have seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from heatlas.errors import shortened
from heatlas.pipeline.text import harmless
from heatlas.statuses import OK

if TYPE_CHECKING:
    from tests.support.corpus import Case

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "bad-images.md"
LONGEST = 48
HEADER = """<!-- Made by `python -m docs.generate bad_images`; do not edit, run it again. -->
# Bad and odd images

What becomes of each of the {count} images in the tests' corpus. Every one gets its row, in one run; with two workers the rows are the
same. `ok` means more than a map: the row has the size of the upright image, and the network saw the image upright and in its
colours (where it is not 1 pixel wide or high). The error column of the other rows says why, with the text below in it.

- {ok} are `ok`, {bad} are error rows. Where an image is bad, no map is stored; where its label or ground truth is bad, neither.
- A JPEG has no checksums: bytes that change inside it show as a changed picture, and nobody can tell. In a PNG they are an error.
- A file is read only if it is a regular file of at most 2 GiB, an image only up to {pixels:,} pixels.
- What breaks a manifest as a whole (a box of three numbers, a label that is a list, an id that is there twice) is refused
  before the run begins, with the row's number.
"""


def corpus() -> tuple[Case, ...]:
    """The cases as the tests define them."""
    from tests.support.corpus import CASES

    return CASES


def page(cases: Iterable[Case]) -> str:
    """The whole page."""
    from PIL import Image

    cases = list(cases)
    ok = sum(case.status == OK for case in cases)
    head = HEADER.format(count=len(cases), ok=ok, bad=len(cases) - ok, pixels=Image.MAX_IMAGE_PIXELS)
    return head + "".join(section(group, members) for group, members in groupby(cases, lambda case: case.group))


def section(group: str, cases: Iterable[Case]) -> str:
    """One group's table."""
    rows = "".join(f"| {code(case.id)} | {cell(case.what)} | `{case.status}` | {cell(case.text)} |\n" for case in cases)
    return f"\n## {group}\n\n| id | what it is | status | the error says |\n|---|---|---|---|\n{rows}"


def code(text: str) -> str:
    """A name as code, cut if it is long, with what is not printable written out."""
    return f"`{shortened(harmless(text, lines=False), LONGEST)}`".replace("|", "\\|")


def cell(text: str) -> str:
    """Words for a table, in which neither Markdown nor HTML means anything."""
    return "".join(f"\\{letter}" if letter in "\\|<>*_[]" else letter for letter in text)


def main() -> None:
    """Write the page."""
    cases = corpus()
    PAGE.write_text(page(cases), encoding="utf-8")
    print(f"wrote {PAGE}: {len(cases)} cases")
