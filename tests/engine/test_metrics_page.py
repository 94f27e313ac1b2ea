"""docs/metrics.md is what the registry says today."""

from __future__ import annotations

from heatlas.engine.metrics import METRICS

from ..support.checkout import ROOT, checkout_module


def test_the_page_is_fresh_and_describes_every_metric():
    table = checkout_module("docs.generate.metrics_page")

    assert set(table.SAYS) == set(METRICS)
    assert (ROOT / "docs" / "metrics.md").read_text() == table.page(), "run `python -m docs.generate metrics`"
