"""Two runs over ten images."""

from __future__ import annotations

from pathlib import Path

import pytest
from heatlas.workers.samples import Row, Sample

from ...support.compared_runs import row, spot, store


@pytest.fixture
def ten(tmp_path) -> tuple[Path, Path]:
    """Ten images: image 0 moved wholly, 1 by half, 2 changed its prediction, 3 failed in the second run, 9 is in the first only."""
    first = [row(f"img-{n}", label=n % 3, prediction=n % 3, value=n / 10) for n in range(10)]
    second = [row(f"img-{n}", label=n % 3, prediction=n % 3, value=n / 10 - 0.05) for n in range(9)]
    second[0].map, second[1].map = spot(20, 20), spot(0, 2)
    second[2].prediction = second[2].target = 0
    second[2].map = spot(20, 0)
    second[3] = Row(Sample("img-3", "/x.png", 0), "decode_error", "broken")
    return store(tmp_path / "a", first), store(tmp_path / "b", second)
