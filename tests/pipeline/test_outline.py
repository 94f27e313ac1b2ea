"""The outline of a map's strongest region, against a drawing library and by hand."""

from __future__ import annotations

import re

import numpy as np
import pytest
from heatlas.pipeline.pictures.outline import outline_path, strongest_region


def test_a_path_by_hand() -> None:
    mask = np.zeros((3, 4), bool)
    mask[1, 1:3] = True
    assert outline_path(mask) == "M1 1H3M1 2H3M1 1V2M3 1V2"
    assert outline_path(np.zeros((3, 3), bool)) == ""


@pytest.mark.parametrize("seed", range(5))
def test_the_path_is_the_border_of_the_mask(seed: int) -> None:
    """Every edge between inside and outside is drawn once, and no other: counted one by one."""
    mask = np.random.default_rng(seed).random((9, 7)) < 0.4
    drawn: list[tuple] = []
    for x, y, way, end in re.findall(r"M(\d+) (\d+)([HV])(\d+)", outline_path(mask)):
        at = (int(x), int(y))
        for step in range(at[way == "V"], int(end)):
            drawn.append((way, step, at[1]) if way == "H" else (way, at[0], step))
    framed = np.pad(mask, 1)
    expected = [("H", x, y) for y in range(10) for x in range(7) if framed[y, x + 1] != framed[y + 1, x + 1]]
    expected += [("V", x, y) for y in range(9) for x in range(8) if framed[y + 1, x] != framed[y + 1, x + 1]]
    assert sorted(drawn) == sorted(expected)


def test_the_strongest_fifth_is_inside_and_zeros_never() -> None:
    map_ = np.arange(100, dtype=np.float32).reshape(10, 10)
    assert strongest_region(map_).sum() == 20
    assert strongest_region(map_)[8:].all()
    mostly_zero = np.zeros((10, 10), np.float32)
    mostly_zero[0, 0] = 1.0
    assert strongest_region(mostly_zero).sum() == 1
    assert not strongest_region(np.zeros((4, 4), np.float32)).any()
