"""CAMs against captum, pytorch-grad-cam and the papers' sums written as loops."""

from __future__ import annotations

import warnings

import cv2
import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from heatlas.engine.methods import refine_cam
from heatlas.engine.methods.cams import CAMS, Cam
from heatlas.engine.methods.layer_gradients import LayerGradients
from heatlas.engine.methods.registry import settings_class
from heatlas.errors import ModelError, NoBlocksError, SettingsError
from torch import Tensor, nn

from ..support.odd_nets import ChannelsLast, Shared
from ..support.oracle_nets import images_like, three_blocks

with warnings.catch_warnings():  # of old SWIG bindings that it loads
    warnings.simplefilter("ignore")
    from pytorch_grad_cam import GradCAMPlusPlus, LayerCAM, RefineCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

SIZE = (24, 20)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return three_blocks(0, size=SIZE).double()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return images_like(4, 3, SIZE, seed=1).double()


TARGETS = torch.tensor([3, 0, 9, 3])


def slow_raw(net: nn.Module, layer: nn.Module, image: Tensor, target: int) -> tuple[np.ndarray, np.ndarray]:
    """A layer's output and its gradient for one image, by plain hooks."""
    kept = []
    with torch.enable_grad():
        handle = layer.register_forward_hook(
            lambda module, args, output: kept.append(output.clone()) or kept[-1].clone()
        )
        logit = net(image[None].clone().requires_grad_())[0, target]
        handle.remove()
        gradient = torch.autograd.grad(logit, kept[0])[0]
    return kept[0][0].detach().numpy(), gradient[0].numpy()


def at(cam: Cam, images: Tensor, targets: Tensor) -> Tensor:
    return cam.raw(images, targets).maps


@pytest.mark.parametrize("layer", ["relu1", "relu2", "relu3"])
def test_grad_cam_is_captums(net: nn.Module, images: Tensor, layer: str) -> None:
    ours = at(CAMS["grad_cam"](net, layer=layer), images, TARGETS)
    theirs = LayerGradCam(net, net.get_submodule(layer)).attribute(images, target=TARGETS)[:, 0]
    assert theirs.abs().amax(dim=(1, 2)).min() > 1e-6
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_the_last_block_layer_is_the_default(net: nn.Module, images: Tensor) -> None:
    named = CAMS["grad_cam"](net, layer="relu3")
    unnamed = CAMS["grad_cam"](net)
    assert torch.equal(unnamed.maps(images, TARGETS, [0] * 4).maps, named.maps(images, TARGETS, [0] * 4).maps)


@pytest.mark.parametrize("layer", ["relu1", "relu3"])
def test_grad_cam_pp_is_equation_19_with_its_three_sums(net: nn.Module, images: Tensor, layer: str) -> None:
    ours = at(CAMS["grad_cam_pp"](net, layer=layer), images, TARGETS).numpy()
    for image, target, our in zip(images, TARGETS.tolist(), ours, strict=True):
        maps, slopes = slow_raw(net, net.get_submodule(layer), image, target)
        expected = np.zeros(maps.shape[1:])
        for activation, slope in zip(maps, slopes, strict=True):
            weight = 0.0
            for i, j in np.ndindex(slope.shape):
                if slope[i, j] != 0:
                    alpha = slope[i, j] ** 2 / (2 * slope[i, j] ** 2 + activation.sum() * slope[i, j] ** 3)
                    weight += alpha * max(slope[i, j], 0.0)
            expected += weight * activation
        np.testing.assert_allclose(our, expected, rtol=1e-8, atol=1e-12)


def rescaled(raw: Tensor) -> np.ndarray:
    """As pytorch-grad-cam makes pictures: positive part, min-max, cv2's bilinear, min-max."""
    out = []
    for entry in raw.relu().numpy():
        entry = (entry - entry.min()) / (1e-7 + (entry - entry.min()).max())
        entry = cv2.resize(entry.astype(np.float32), SIZE[::-1])
        out.append((entry - entry.min()) / (1e-7 + (entry - entry.min()).max()))
    return np.stack(out)


@pytest.mark.parametrize(
    ("ours", "theirs", "layer"),
    [("grad_cam_pp", GradCAMPlusPlus, "relu3"), ("layer_cam", LayerCAM, "relu2"), ("layer_cam", LayerCAM, "relu3")],
)
def test_cams_are_those_of_pytorch_grad_cam(images: Tensor, ours: str, theirs, layer: str) -> None:
    net = three_blocks(0, size=SIZE).double()
    net.head.weight.data *= 100  # beside such gradients the constant in its Grad-CAM++ is nothing
    result = rescaled(at(CAMS[ours](net, layer=layer), images, TARGETS))
    targets = [ClassifierOutputTarget(target) for target in TARGETS.tolist()]
    with theirs(net, [net.get_submodule(layer)]) as cam:
        expected = cam(images.clone(), targets=targets)
    np.testing.assert_allclose(result, expected, atol=2e-4)


def test_refine_cam_is_its_authors(images: Tensor) -> None:
    net = three_blocks(0, size=SIZE).double()
    net.head.weight.data *= 100
    names = ("relu1", "relu2", "relu3")
    ours = (
        refine_cam.RefineCAM(
            net,
        )
        .maps(images, TARGETS, [0] * 4)
        .maps
    )
    method = RefineCAM(net, [net.get_submodule(name) for name in names])
    theirs = method(images.clone(), targets=[ClassifierOutputTarget(target) for target in TARGETS.tolist()])
    assert theirs.std(axis=(1, 2)).min() > 0.01
    np.testing.assert_allclose(ours.numpy(), theirs, atol=2e-4)


def test_refine_cam_takes_the_last_layers_unless_named(net: nn.Module, images: Tensor) -> None:
    named = refine_cam.RefineCAM(net, layers=("relu2", "relu3"))
    depth = refine_cam.RefineCAM(net, depth=2)
    entry = refine_cam.RefineCAM(net, depth=1, base="layer_cam").maps(images, TARGETS, [0] * 4).maps
    assert torch.equal(named.maps(images, TARGETS, [0] * 4).maps, depth.maps(images, TARGETS, [0] * 4).maps)
    whole = CAMS["layer_cam"](net).maps(images, TARGETS, [0] * 4).maps
    low = whole.amin(dim=(1, 2), keepdim=True)
    torch.testing.assert_close(entry, (whole - low) / (1 - low), atol=1e-6, rtol=0)


@pytest.mark.parametrize("model", [ChannelsLast(), Shared()], ids=["channels last", "one ReLU for all"])
def test_layers_without_a_module_of_their_own_are_read(model: nn.Module, images: Tensor) -> None:
    model = model.double().eval()
    read = LayerGradients(model, None)
    _, result = read(images, TARGETS % 5)
    for layer, plan in zip(result, read.plan(images), strict=True):
        assert layer.maps.shape[1:] == layer.gradients.shape[1:] == (plan.channels, *plan.size)


def test_nothing_is_left_behind(net: nn.Module, images: Tensor) -> None:
    net.train()
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    with torch.inference_mode():
        maps = CAMS["grad_cam"](net).maps(images, TARGETS, [0] * 4).maps
    assert net.training
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not any(module._forward_hooks for module in net.modules())
    assert not maps.requires_grad
    net.eval()
    for parameter in net.parameters():
        parameter.requires_grad_(True)


def test_an_image_that_breaks_breaks_alone(net: nn.Module, images: Tensor) -> None:
    cam = CAMS["grad_cam"](net)
    whole = cam.maps(images, TARGETS, [0] * 4).maps
    broken = images.clone()
    broken[1, 0, 0, 0] = torch.nan
    maps = cam.maps(broken, TARGETS, [0] * 4).maps
    assert not maps[1].isfinite().all()
    assert torch.equal(maps[[0, 2, 3]], whole[[0, 2, 3]])


def test_an_unknown_layer_is_refused_with_one_that_is_near(net: nn.Module, images: Tensor) -> None:
    with pytest.raises(ModelError, match="unknown layer 'relu33'; did you mean 'relu3'"):
        CAMS["grad_cam"](net, layer="relu33").maps(images, TARGETS, [0] * 4)


def test_a_model_without_blocks_is_refused(images: Tensor) -> None:
    flat = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 24 * 20, 5)).double()
    with pytest.raises(NoBlocksError):
        CAMS["grad_cam"](flat).maps(images, TARGETS % 5, [0] * 4)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"base": "sise"}, "got 'sise'"),
        ({"layers": ()}, "layers must"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict, text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        settings_class("refine_cam")(**settings)
