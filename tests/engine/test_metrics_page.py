"""docs/metrics.md is what the registry says today."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from heatlas.engine.metrics import METRICS

ROOT = Path(__file__).parent.parent.parent


def test_the_page_is_fresh_and_describes_every_metric():
    spec = importlib.util.spec_from_file_location("metrics_page", ROOT / "docs" / "generate" / "metrics_page.py")
    assert spec is not None
    assert spec.loader is not None
    table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(table)

    assert set(table.SAYS) == set(METRICS)
    assert (ROOT / "docs" / "metrics.md").read_text() == table.page(), "run `python -m docs.generate metrics`"
