"""UCAG: where crops lie, how they are put together, and the bias to the centre that the released normaliser has."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from heatlas.engine.methods import ucag
from heatlas.engine.methods.cams import CAMS, RawMaps
from heatlas.engine.methods.protocol import Cost
from heatlas.engine.methods.registry import settings_class
from heatlas.engine.methods.ucag import UCAG, CropAxis
from heatlas.errors import SettingsError
from torch import Tensor

from ..support.oracle_nets import images_like, three_blocks

TARGETS = torch.tensor([3, 0])


NET = three_blocks(0)


class Constant:
    """A base that says the same everywhere and takes note of what it is shown."""

    pixelwise = False
    raw_cost = Cost(1, 1)

    def __init__(self, value: float = 1.0):
        self.value = value
        self.seen: list[Tensor] = []

    def raw(self, images: Tensor, targets: Tensor) -> RawMaps:
        self.seen.append(images)
        return RawMaps(torch.full((len(images), 7, 7), self.value), torch.zeros(len(images), 10))


@pytest.mark.parametrize(
    ("side", "crop", "stride", "canvas"),
    [(224, 124, 20, 224), (288, 159, 26, 289), (299, 165, 27, 300), (384, 212, 34, 382)],
)
def test_crops_lie_as_released(side: int, crop: int, stride: int, canvas: int) -> None:
    axis = CropAxis.of(side)
    assert (axis.crop, axis.stride, axis.canvas) == (crop, stride, canvas)
    assert axis.shown(0).start == 0
    assert axis.shown(5).stop == min(side, canvas)


def test_crops_of_224_are_enlarged_to_322(monkeypatch: pytest.MonkeyPatch) -> None:
    base = Constant()
    monkeypatch.setattr(UCAG, "source", base)
    UCAG(NET).maps(images_like(2, 3, (224, 224), seed=0), TARGETS, [0, 0])
    assert [tuple(entry.shape) for entry in base.seen] == [(2, 3, 322, 322)] * 36


@pytest.mark.parametrize(("offset", "corner", "middle"), [(1, 0.5, 36 / 37), (0, 1.0, 1.0)])
def test_a_constant_map_keeps_the_centre_bias_unless_told(
    monkeypatch: pytest.MonkeyPatch, offset: int, corner: float, middle: float
) -> None:
    canvases: list[Tensor] = []

    def keep(canvas: Tensor, images: Tensor, pixelwise: bool) -> Tensor:
        canvases.append(canvas)
        return canvas.float()

    monkeypatch.setattr(ucag, "conquered", keep)
    monkeypatch.setattr(UCAG, "source", Constant())
    UCAG(NET, count_offset=offset).maps(images_like(2, 3, (224, 224), seed=0), TARGETS, [0, 0])
    covered = (
        canvases[0] / torch.tensor(0.1, dtype=torch.float64).exp()
    )  # ten classes alike: a probability of 0.1 in each crop
    assert covered[0, [0, 0, -1, -1], [0, -1, 0, -1]].tolist() == pytest.approx([corner] * 4)
    assert covered[0, 112, 112].item() == pytest.approx(middle)
    assert covered.amin().item() == pytest.approx(corner)
    assert covered.amax().item() == pytest.approx(middle)
    assert round(36 / 37, 3) == 0.973


def test_maps_are_put_together_crop_by_crop() -> None:
    """One image at a time, one crop at a time, weights normalised by their maximum as written."""
    size = (56, 70)
    net = three_blocks(0, size=size).double()
    images = images_like(2, 3, size, seed=1).double()
    result = UCAG(net).maps(images, TARGETS, [0, 0])
    base = CAMS["grad_cam"](net)
    for number, (image, target) in enumerate(zip(images, TARGETS, strict=True)):
        (height, down), (width, across) = (
            (side * 124 // 224, (side - (side * 124 // 224 - 1) + 1) // 5) for side in size
        )
        parts, confidences = [], []
        for row in range(6):
            for column in range(6):
                crop = image[:, row * down : row * down + height, column * across : column * across + width]
                large = F.interpolate(crop[None], size=(int(height * 2.6), int(width * 2.6)), mode="bicubic")
                raw = base.raw(large, target[None])
                confidences.append(raw.logits.softmax(dim=1)[0, target])
                parts.append(F.interpolate(raw.maps[None], size=(height, width), mode="bilinear")[0, 0])
        weights = torch.stack(confidences).exp()
        total = torch.zeros(5 * down + height, 5 * across + width, dtype=torch.float64)
        count = torch.ones_like(total)
        for place, (weight, part) in enumerate(zip(weights / weights.max(), parts, strict=True)):
            rows, columns = divmod(place, 6)
            area = slice(rows * down, rows * down + height), slice(columns * across, columns * across + width)
            total[area] += weight * part
            count[area] += 1
        map_ = F.interpolate((total / count).relu()[None, None], size=size, mode="bilinear")
        map_ = (map_ - map_.min()) / (map_.max() - map_.min())
        reach = torch.arange(-2, 3, dtype=torch.float64)
        kernel = (-(reach**2) / 18).exp()
        kernel = torch.outer(kernel, kernel)[None, None] / kernel.sum() ** 2
        map_ = F.conv2d(F.pad(map_, (2, 2, 2, 2), mode="replicate"), kernel)[0, 0]
        torch.testing.assert_close(result.maps[number], map_.float(), atol=1e-6, rtol=1e-6)
        grid = torch.stack(confidences).reshape(6, 6).float()
        torch.testing.assert_close(result.extras["crop_confidence"][number], grid)


@pytest.mark.parametrize("base", list(ucag.BASES))
def test_every_base_explains_crops_at_its_declared_cost(base: str) -> None:
    size = (28, 28)
    net = UCAG(three_blocks(0, size=size), base=base)
    result = net.maps(images_like(2, 3, size, seed=1), TARGETS, [0, 0])
    assert result.cost == ucag.cost(net)
    assert result.maps.shape == (2, *size)
    assert float(result.maps.amin()) >= 0
    assert 0 < float(result.maps.amax()) <= 1 + 1e-6


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"base must be one of grad_cam.*got 'gradcam'; did you mean 'grad_cam'"):
        UCAG(three_blocks(0), base="gradcam")
    with pytest.raises(SettingsError, match="count_offset must be 0 or 1, got 2"):
        settings_class("ucag")(count_offset=2)
    with pytest.raises(SettingsError, match="magnify must be above 0, got 0"):
        settings_class("ucag")(magnify=0)
