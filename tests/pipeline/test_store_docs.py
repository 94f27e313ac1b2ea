"""Texts: docs/store.md names every column and every status there is."""

from __future__ import annotations

import pytest
from heatlas.engine.metrics.presets import METRIC_PRESETS
from heatlas.pipeline.store.schema import StoreLayout
from heatlas.statuses import STATUSES

from ..support.checkout import ROOT

PAGE = (ROOT / "docs" / "store.md").read_text()
COLUMNS = StoreLayout(input_size=(96, 96), metrics=METRIC_PRESETS["paper"]).schema().names


@pytest.mark.parametrize("name", [*COLUMNS, *STATUSES])
def test_the_page_names_it(name: str) -> None:
    assert f"`{name}`" in PAGE
