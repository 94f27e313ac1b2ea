"""`heatlas compact`: few large files in the place of many small ones."""

from __future__ import annotations

import json
import sys
from typing import Annotated

from cyclopts import Parameter

from ..text import harmless
from .status import Out


def compact_command(
    out: Out,
    /,
    *,
    size: Annotated[int, Parameter(help="Wanted size of a file in MB, 1 to 4096.", metavar="MB")] = 128,
    as_json: Annotated[bool, Parameter(name="--json", help="Print JSON instead of text.", negative="")] = False,
) -> int:
    """Merge a store's many small files into few large ones.

    Finished or not, the run resumes, verifies, retries and evaluates as before, and others may read it meanwhile. The same command
    again does what is left.
    """
    from ..store.compact import compact_store

    found = compact_store(out, size_mb=size, say=lambda line: print(harmless(line), file=sys.stderr))
    print(json.dumps(found.as_json(), indent=2) if as_json else harmless(found.text()))
    return 0
