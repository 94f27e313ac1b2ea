"""A method whose maps lie off is measured by mirrored images, in pixels and with the right sign."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from heatlas.pipeline.plan.forecast_text import shift_text
from heatlas.pipeline.plan.map_shift import centroid, measure_map_shift


class Shifted:
    """Its map is the image itself, moved down and right."""

    def __init__(self, down: int, right: int, *, dead: bool = False):
        self.down, self.right, self.dead = down, right, dead

    def start(self, image, target, seed):
        moved = None if self.dead else torch.roll(image[0], (self.down, self.right), (0, 1))
        return SimpleNamespace(map=moved)
        yield


def blobs(count):
    random = torch.Generator().manual_seed(0)
    images = torch.zeros(count, 1, 32, 40)
    for image in images:
        top, left = (int(torch.randint(6, 18, (1,), generator=random)) for _ in range(2))
        image[0, top : top + 5, left : left + 3] = 1
    return list(images)


@pytest.mark.parametrize(("down", "right"), [(0, 0), (2, 3), (-1, 4), (3, -2)])
def test_the_shift_of_a_method_is_measured(down, right):
    images = blobs(5)
    result = measure_map_shift(Shifted(down, right), images, [0] * 5, list(range(5)))
    assert result is not None
    assert (result.down, result.right, result.images) == (pytest.approx(down), pytest.approx(right), 5)


def test_without_maps_there_is_no_shift():
    assert measure_map_shift(Shifted(0, 0, dead=True), blobs(2), [0, 0], [0, 1]) is None


def test_the_centre_of_mass_and_the_words():
    map_ = torch.zeros(4, 6)
    map_[1, 2], map_[3, 4] = 1.0, 3.0
    assert centroid(map_) == (pytest.approx(2.5), pytest.approx(3.5))
    assert shift_text(-0.44, 2.9) == "2.9 px right, 0.4 px up"
    assert shift_text(1.0, -1.0) == "1.0 px left, 1.0 px down"
