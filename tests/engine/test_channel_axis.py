"""Networks that torch.fx cannot trace: where their channels lie is measured, whatever the sizes are."""

from __future__ import annotations

import pytest
import torch
from heatlas.engine.layers.channel_axis import measured_axes
from heatlas.engine.layers.survey_hooked import hooked_survey
from torch import Tensor, nn


class Last(nn.Module):
    """Keeps channels last between its blocks, as Swin does, and branches on values, which torch.fx cannot trace."""

    def __init__(self, channels: int = 8, first: bool = False):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, channels, 4, stride=4)
        self.norm = nn.LayerNorm(channels)
        self.mix = nn.Linear(channels, channels)
        self.pool = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.head = nn.Linear(channels, 3)
        self.first = first

    def forward(self, images: Tensor) -> Tensor:
        values = self.stem(images)
        if float(values.detach().sum()) > 1e9:
            values = values * 0
        if not self.first:
            values = self.mix(self.norm(values.permute(0, 2, 3, 1))).relu().permute(0, 3, 1, 2)
        return self.head(self.pool(values).mean(dim=(2, 3)))


@pytest.mark.check("model", "channels last in a network that torch.fx cannot trace", "known")
@pytest.mark.parametrize("channels", [4, 8, 9])
@pytest.mark.parametrize("side", [32, 36])
def test_the_axis_is_measured_where_sizes_do_not_tell(channels: int, side: int) -> None:
    """8 channels on 8 x 8 positions (32 pixels, a stride of 4) look alike in both orders."""
    model, images = Last(channels).eval(), torch.zeros(1, 3, side, side)
    assert measured_axes(model, images) == [1, 3, 3, 1, None]
    maps = hooked_survey(model, images).names
    assert {name: feature.channel_axis for name, feature in maps.items()} == {"stem": 1, "norm": 3, "mix": 3, "pool": 1}
    assert {feature.channels for feature in maps.values()} == {channels}
    assert maps["mix"].size == (side // 4, side // 4)


def test_channels_first_stay_first() -> None:
    assert measured_axes(Last(first=True).eval(), torch.zeros(1, 3, 32, 32)) == [1, 1, None]


def test_a_model_for_one_image_at_a_time_is_judged_by_shapes() -> None:
    class Single(Last):
        def forward(self, images: Tensor) -> Tensor:
            if len(images) > 1:
                raise ValueError("one image at a time")
            return super().forward(images)

    assert measured_axes(Single().eval(), torch.zeros(1, 3, 32, 32)) == []
    assert hooked_survey(Single(first=True).eval(), torch.zeros(1, 3, 32, 32)).names["stem"].channel_axis == 1
