"""Methods on a trained network and photographs: CAMs against a third library, and all that are quick against chance."""

from __future__ import annotations

import pytest
import torch
from heatlas.engine.methods.batch_method import BatchMethod
from heatlas.engine.methods.cams import Cam
from heatlas.engine.methods.registry import make_explainer, settings_class
from torch import Tensor, nn
from torchcam.methods import GradCAM, LayerCAM
from torchcam.methods.gradient import _GradCAM

from ..support.photographs import NEEDS_DATA, network_input, samples, trained, truth_of

pytestmark = NEEDS_DATA
COUNT = 4


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return trained()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.stack([network_input(row["file"]) for row in samples()[:COUNT]])


@pytest.fixture(scope="module")
def labels() -> Tensor:
    return torch.tensor([int(row["label"]) for row in samples()[:COUNT]])


@pytest.mark.parametrize(("name", "theirs"), [("grad_cam", GradCAM), ("layer_cam", LayerCAM)])
@pytest.mark.parametrize("layer", ["features.18", "features.13"])
def test_cams_are_torchcams(
    model: nn.Module, images: Tensor, labels: Tensor, name: str, theirs: type[_GradCAM], layer: str
) -> None:
    ours = make_explainer(name, model, settings_class(name)(layer=layer))
    assert isinstance(ours, Cam)
    raw = ours.raw(images, labels).maps.relu()
    with theirs(model, layer) as cam:
        logits = model(images.clone().requires_grad_())
        [expected] = cam(labels.tolist(), logits, normalized=False)
    assert float(expected.amax()) > 0
    torch.testing.assert_close(raw, expected.relu(), rtol=1e-3, atol=1e-5 * float(expected.amax()))


@pytest.mark.parametrize("name", ["grad_cam", "grad_cam_pp", "layer_cam", "refine_cam"])
def test_more_of_the_map_is_in_the_boxes_than_chance_would_put_there(
    model: nn.Module, images: Tensor, labels: Tensor, name: str
) -> None:
    method = make_explainer(name, model)
    assert isinstance(method, BatchMethod)
    maps = method.maps(images, labels, range(COUNT)).maps
    boxes = torch.stack([truth_of(row) for row in samples()[:COUNT]])
    inside = (maps * boxes).sum(dim=(1, 2)) / maps.sum(dim=(1, 2))
    chance = boxes.float().mean(dim=(1, 2))
    assert float((inside - chance).mean()) > 0.02
