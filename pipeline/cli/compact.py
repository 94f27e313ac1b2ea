"""`heatlas compact`: few large files in the place of many small ones."""

from __future__ import annotations

import json
import sys
from typing import Annotated

from cyclopts import Parameter

from ..text import harmless
from .arguments import Json, Store


def compact_command(
    store: Store,
    /,
    *,
    size: Annotated[int, Parameter(help="Target size of a file in MB, 1 to 4096.", metavar="MB")] = 128,
    as_json: Json = False,
) -> int:
    """Merge a store's many small files into few large ones.

    Works on finished and unfinished runs, while others read; the same command again completes an interrupted merge.

    Example: `heatlas compact maps/ --size 256`
    """
    from ..store.compact import compact_store

    merged = compact_store(store, size_mb=size, say=lambda line: print(harmless(line), file=sys.stderr))
    print(json.dumps(merged.as_json(), indent=2) if as_json else harmless(merged.text()))
    return 0
