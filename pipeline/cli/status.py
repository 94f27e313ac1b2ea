"""`heatlas status`: how far a run is."""

from __future__ import annotations

import json

from ..text import harmless
from .arguments import Json, Store


def status_command(store: Store, /, *, as_json: Json = False) -> int:
    """Show how far a run is: shards, rows, errors by cause, mean metrics.

    Example: `heatlas status maps/`
    """
    from ..store.status import run_status, status_text

    status = run_status(store)
    print(json.dumps(status.as_json(), indent=2) if as_json else harmless(status_text(status)))
    return 0
