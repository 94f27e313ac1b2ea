"""`heatlas migrate`: a store of an earlier version with the columns of today, in another place."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from ..text import harmless
from .arguments import Store


def migrate_command(
    store: Store, /, *, out: Annotated[str, Parameter(help="New place: a directory or URI.", metavar="PLACE")]
) -> int:
    """Write a store of an earlier version anew, with the columns of today.

    The old store is read and never changed; the same command again completes an interrupted migration.

    Example: `heatlas migrate maps/ --out maps-3/`
    """
    from ..store.migrate import migrate_store

    print(harmless(migrate_store(store, out).text()))
    return 0
