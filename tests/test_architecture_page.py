"""docs/architecture.md names files and folders that are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
NAMED = re.compile(r"`((?:engine|workers|pipeline|configs|docs|tests)/[\w/.]*)`")


def test_every_file_that_the_page_names_is_there() -> None:
    named = NAMED.findall((ROOT / "docs" / "architecture.md").read_text())
    assert len(named) > 25
    assert [name for name in named if not (ROOT / name).exists()] == []
