"""Maps that lie off are measured by mirrored images, in pixels and with the right sign, and moved back."""

from __future__ import annotations

from types import SimpleNamespace

import heatlas
import pytest
import torch
from heatlas.engine.map_shift import LEAST_PIXELS, MapShift, displacement, measure_map_shift, moved_map
from heatlas.errors import SettingsError
from heatlas.pipeline.text import shift_text
from scipy.ndimage import shift as scipy_shift
from torch import nn


class Shifted:
    """Its map is the image itself, moved down and right, on a constant ground that does not move."""

    def __init__(self, down: float, right: float, *, dead: bool = False):
        self.down, self.right, self.dead = down, right, dead

    def start(self, image, target, seed):
        moved = None if self.dead else 0.4 + 0.5 * moved_map(image[0], self.down, self.right)
        return SimpleNamespace(map=moved)
        yield


def blobs(count, height=32, width=40):
    random = torch.Generator().manual_seed(0)
    images = torch.zeros(count, 1, height, width)
    for image in images:
        top, left = (int(torch.randint(6, side - 14, (1,), generator=random)) for side in (height, width))
        image[0, top : top + 5, left : left + 3] = 1
    return list(images)


@pytest.mark.parametrize(("down", "right"), [(0, 0), (2, 3), (-1, 4), (3, -2), (0.5, 1.5), (-2.9, 0.25)])
def test_the_shift_of_a_method_is_measured(down, right):
    images = blobs(5)
    result = measure_map_shift(Shifted(down, right), images, [0] * 5, list(range(5)))
    assert result is not None
    assert (result.down, result.right) == (pytest.approx(down, abs=0.1), pytest.approx(right, abs=0.1))
    assert result.images == 5


def test_without_maps_or_structure_there_is_no_shift():
    assert measure_map_shift(Shifted(0, 0, dead=True), blobs(2), [0, 0], [0, 1]) is None
    assert measure_map_shift(Shifted(0, 0), [torch.zeros(1, 8, 8)], [0], [0]) is None
    assert displacement(torch.zeros(4, 4), torch.ones(4, 4)) is None


def test_a_correction_is_certain_or_none():
    assert MapShift(0.5, 2.904, 8, 0.3, 0.2).correction == (0.0, 2.9)
    assert MapShift(0.5, 2.9, 2).correction == (0.0, 0.0)
    assert MapShift(LEAST_PIXELS / 2, -3.5, 8, 0.0, 0.0).correction == (0.0, -3.5)


@pytest.mark.parametrize(("down", "right"), [(1.5, -2.25), (0.0, 3.5), (-4.0, 0.0)])
def test_a_map_is_moved_as_scipy_moves_it(down, right):
    map_ = torch.rand(12, 17, generator=torch.Generator().manual_seed(1))
    expected = scipy_shift(map_.double().numpy(), (down, right), order=1, mode="nearest")
    torch.testing.assert_close(moved_map(map_, down, right).double(), torch.from_numpy(expected), atol=1e-5, rtol=0)
    layers = torch.stack([map_, map_.flip(0)])
    torch.testing.assert_close(moved_map(layers, down, right)[0], moved_map(map_, down, right))


class Strided(nn.Module):
    """Odd kernels with stride 2: cell i of the last layer looks around pixel 8 i and is drawn around pixel 8 i + 3.5."""

    def __init__(self, stages: int = 3):
        super().__init__()
        layers: list[nn.Module] = []
        for number in range(stages):
            convolution = nn.Conv2d(1 if number == 0 else 4, 4, 3, 2, 1, bias=False)
            nn.init.constant_(convolution.weight, 1 / 9)
            layers += [convolution, nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(4, 2)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[1.0] * 4, [-1.0] * 4]))

    def forward(self, images):
        return self.head(self.body(images).mean(dim=(2, 3)))


@pytest.mark.parametrize(("stages", "pixels"), [(2, 1.5), (3, 3.5)])
def test_the_shift_of_odd_kernels_with_a_stride_is_found_and_corrected(stages, pixels):
    explainer = heatlas.GradCAM(Strided(stages).eval())
    images = blobs(6, 64, 64)
    shift = measure_map_shift(explainer, images, [0] * 6, list(range(6)))
    assert shift is not None
    assert (shift.down, shift.right) == (pytest.approx(pixels, abs=0.35), pytest.approx(pixels, abs=0.35))
    corrected = heatlas.GradCAM(explainer.model, correct_shift=(pixels, pixels))
    left = measure_map_shift(corrected, images, [0] * 6, list(range(6)))
    assert left is not None
    assert max(abs(left.down), abs(left.right)) < 0.35
    plain, moved = (each.explain(torch.stack(images), 0).maps for each in (explainer, corrected))
    torch.testing.assert_close(moved, moved_map(plain, -pixels, -pixels))


def test_a_correction_is_two_finite_numbers():
    with pytest.raises(SettingsError, match="two numbers of pixels"):
        heatlas.GradCAM(Strided(), correct_shift=(float("nan"), 0.0))


def test_the_words():
    assert shift_text(-0.44, 2.9) == "2.9 px right, 0.4 px up"
    assert shift_text(1.0, -1.0) == "1.0 px left, 1.0 px down"
