"""Integrated Gradients and occlusion against captum; what they mean by hand."""

from __future__ import annotations

import pytest
import torch
from captum.attr import IntegratedGradients as CaptumIntegratedGradients
from captum.attr import Occlusion as CaptumOcclusion
from heatlas.engine.fill import baseline_of, gaussian_blur
from heatlas.engine.methods.integrated_gradients import IntegratedGradients
from heatlas.engine.methods.occlusion import Occlusion, edges
from heatlas.engine.methods.registry import settings_class
from heatlas.errors import SettingsError
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur as torchvision_blur

from ..support.oracle_nets import images_like, three_blocks

SIZE = (28, 42)
TARGETS = torch.tensor([3, 0, 9])


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return three_blocks(0, size=SIZE).double()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return images_like(3, 3, SIZE, seed=1).double()


@pytest.mark.parametrize("steps", [1, 7, 32])
def test_integrated_gradients_are_captums(net: nn.Module, images: Tensor, steps: int) -> None:
    ours = IntegratedGradients(net, steps=steps).attribution(images, TARGETS)
    theirs = CaptumIntegratedGradients(net).attribute(images, target=TARGETS, n_steps=steps).sum(dim=1)
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-5, atol=1e-7)  # its places are float32


@pytest.mark.parametrize("baseline", ["zero", "mean", "blur"])
def test_integrated_gradients_add_up_to_the_logits_rise(net: nn.Module, images: Tensor, baseline) -> None:
    result = IntegratedGradients(net, steps=200, baseline=baseline).attribution(images, TARGETS)
    with torch.no_grad():
        rise = (net(images) - net(baseline_of(images, baseline))).gather(1, TARGETS[:, None])[:, 0]
    torch.testing.assert_close(result.sum(dim=(1, 2)), rise, atol=0.02 * float(rise.abs().max()), rtol=0)


def test_the_sign_says_what_is_kept(net: nn.Module, images: Tensor) -> None:
    signed = IntegratedGradients(net, steps=8).attribution(images, TARGETS)
    for sign, kept in (("positive", signed.clamp(min=0)), ("absolute", signed.abs())):
        method = IntegratedGradients(net, steps=8, sign=sign)
        expected = kept / kept.amax(dim=(1, 2), keepdim=True)
        torch.testing.assert_close(method.maps(images, TARGETS, [0] * 3).maps, expected.float())


@pytest.mark.parametrize("output", ["probability", "logit"])
def test_occlusion_is_captums(net: nn.Module, images: Tensor, output) -> None:
    ours = Occlusion(net, positions=13, output=output).raw(images, TARGETS).maps

    def score(batch: Tensor) -> Tensor:
        return net(batch).softmax(dim=1) if output == "probability" else net(batch)

    theirs = CaptumOcclusion(score).attribute(
        images, target=TARGETS, sliding_window_shapes=(3, 4, 6), strides=(3, 2, 3), baselines=0
    )
    torch.testing.assert_close(ours, theirs[:, 0].double(), rtol=1e-4, atol=1e-6)  # captum's are float32


def test_occlusion_finds_the_only_pixel_that_counts() -> None:
    class Spot(nn.Module):
        def forward(self, batch: Tensor) -> Tensor:
            return torch.stack([batch[:, 0, 9, 3] * 4, batch[:, 0, 0, 0] * 0], dim=1)

    maps = Occlusion(Spot(), positions=12, window=1 / 12).maps(torch.ones(1, 1, 12, 12), torch.tensor([0]), [0]).maps
    assert maps[0, 9, 3] == 1
    assert int((maps > 0).sum()) == 1


def test_windows_cover_every_pixel_from_the_first_to_the_last() -> None:
    for side, positions, window in ((224, 13, 1 / 7), (17, 5, 0.3), (3, 13, 0.01), (97, 20, 0.2)):
        result = edges(side, positions, window)
        assert (result[0].start, result[-1].stop, len(result)) == (0, side, positions)
        assert len({edge.stop - edge.start for edge in result}) == 1
    assert [edge.start for edge in edges(224, 13, 1 / 7)] == list(range(0, 193, 16))


def test_the_blur_is_torchvisions_inside(images: Tensor) -> None:
    padded = torch.nn.functional.pad(images, (4, 4, 4, 4), mode="replicate")
    theirs = torchvision_blur(padded, [9, 9], [2.0, 2.0])[:, :, 4:-4, 4:-4]
    torch.testing.assert_close(gaussian_blur(images, 2.0, 9), theirs)


def test_the_mean_is_each_images_own(images: Tensor) -> None:
    result = baseline_of(images, "mean")
    torch.testing.assert_close(result[1, 2], images[1, 2].mean().expand(SIZE))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: settings_class("integrated_gradients")(steps=0), "steps must be at least 1, got 0"),
        (
            lambda: settings_class("integrated_gradients")(baseline="black"),
            "baseline must be one of zero, mean, blur, got 'black'",
        ),
        (
            lambda: settings_class("integrated_gradients")(sign="negative"),
            "sign must be one of positive, absolute, got 'negative'",
        ),
        (lambda: settings_class("occlusion")(positions=1), "positions must be at least 2, got 1"),
        (lambda: settings_class("occlusion")(window=1.0), r"window must be in \(0, 1\), got 1.0"),
        (
            lambda: settings_class("occlusion")(output="margin"),
            "output must be one of probability, logit, got 'margin'",
        ),
    ],
)
def test_settings_out_of_range_are_refused(make, text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        make()
