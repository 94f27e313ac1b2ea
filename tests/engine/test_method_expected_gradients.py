"""Expected Gradients: captum's GradientShap where draws do not matter, the background's mean where they do, and its file."""

from __future__ import annotations

from pathlib import Path

import captum.attr
import pytest
import torch
from heatlas.engine.methods.expected_gradients import ExpectedGradients
from heatlas.errors import SettingsError
from safetensors.torch import save_file
from torch import Tensor, nn

from ..support.oracle_nets import images_like


def net(*, linear: bool) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.Identity() if linear else nn.Tanh(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(36, 3),
    ).eval()  # fmt: skip


@pytest.fixture
def images() -> Tensor:
    return images_like(2, 3, (12, 12), seed=3)


def stored(folder: Path, references: Tensor) -> str:
    file = str(folder / "references.safetensors")
    save_file({"references": references}, file)
    return file


def test_of_a_linear_model_it_is_captum_s_whatever_is_drawn(tmp_path: Path, images: Tensor) -> None:
    model, reference = net(linear=True), images_like(1, 3, (12, 12), seed=9)
    oracle = captum.attr.GradientShap(model).attribute(images, reference, target=torch.tensor([0, 2]), stdevs=0.0)
    method = ExpectedGradients(model, references=stored(tmp_path, reference), samples=3)
    ours = method.attribution(images, torch.tensor([0, 2]), [1, 2])
    torch.testing.assert_close(ours, oracle.sum(1), rtol=1e-4, atol=1e-5)


def test_of_another_model_it_comes_near_captum_s_as_the_draws_grow(tmp_path: Path, images: Tensor) -> None:
    model, references = net(linear=False), images_like(4, 3, (12, 12), seed=9)
    torch.manual_seed(0)
    oracle = captum.attr.GradientShap(model).attribute(images, references, target=1, n_samples=1500, stdevs=0.0).sum(1)
    method = ExpectedGradients(model, references=stored(tmp_path, references), samples=800)
    ours = method.attribution(images, torch.tensor([1, 1]), [1, 2])
    assert float((ours - oracle).norm() / oracle.norm()) < 0.15
    rise = (model(images) - model(references).mean(0))[:, 1]
    torch.testing.assert_close(ours.sum((1, 2)), rise, rtol=0.1, atol=0.02)


def test_without_a_background_references_are_the_image_s_own(images: Tensor) -> None:
    model = net(linear=True)
    ours = ExpectedGradients(model, samples=600).attribution(images, torch.tensor([0, 1]), [3, 4])
    blurred = ExpectedGradients(model).explain(images, 0)
    assert blurred.statuses == ["ok", "ok"]
    assert blurred.n_backwards == [32, 32]
    zero, mean = torch.zeros_like(images), images.mean((2, 3), keepdim=True).expand_as(images)
    low = torch.stack([model(zero), model(mean)]).detach()
    rise = model(images).detach() - low
    for place, target in enumerate((0, 1)):
        between = sorted([float(rise[0, place, target]), float(rise[1, place, target]), 0.0])
        assert between[0] - 0.3 <= float(ours[place].sum()) <= between[-1] + 0.3


def test_references_of_another_size_are_refused(tmp_path: Path, images: Tensor) -> None:
    method = ExpectedGradients(net(linear=True), references=stored(tmp_path, torch.zeros(2, 3, 8, 8)))
    with pytest.raises(SettingsError, match=r"references are \(3, 8, 8\) each, images \(3, 12, 12\)"):
        method.explain(images)
