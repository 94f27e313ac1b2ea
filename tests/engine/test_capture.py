"""Captured maps against plain hooks and hand-computed gradients, under every grad mode, and the model left alone."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from heatlas.engine.layers.block_plan import BlockLayer, BlockPlan
from heatlas.engine.layers.blocks import block_layers
from heatlas.engine.layers.capture import capture_layers
from heatlas.errors import ModelError
from torch import Tensor, nn

from ..support.odd_nets import (
    Branching,
    ChannelsLast,
    Functional,
    Normalised,
    Shared,
    Wrapped,
    conv,
    head,
    pooled,
    residual,
)

IMAGES = torch.randn(3, 3, 16, 24, generator=torch.Generator().manual_seed(1))
BUILDS = [pooled, residual, Normalised, Functional, Shared, Branching, ChannelsLast, lambda: Wrapped(lambda x: (x, 1))]


def logits_alone(model: nn.Module) -> Tensor:
    with torch.no_grad():
        output = model.eval()(IMAGES)
    return output[0] if isinstance(output, tuple) else output


@pytest.mark.parametrize("build", BUILDS)
def test_the_logits_are_the_models_own_and_every_map_has_a_gradient(build) -> None:
    model = build()
    plan = block_layers(model, IMAGES)
    logits, activations = capture_layers(model, plan, IMAGES)
    assert torch.equal(logits, logits_alone(model))
    assert [tuple(maps.shape[1:]) for maps in activations] == [(layer.channels, *layer.size) for layer in plan]
    gradients = torch.autograd.grad(logits[:, 0].sum(), activations)
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


@pytest.mark.parametrize("build", BUILDS)
def test_without_gradients_the_same_is_read_and_nothing_recorded(build) -> None:
    model = build()
    plan = block_layers(model, IMAGES)
    expected = capture_layers(model, plan, IMAGES)
    logits, activations = capture_layers(model, plan, IMAGES, gradients=False)
    assert torch.equal(logits, expected[0])
    assert all(map(torch.equal, activations, expected[1]))
    assert logits.grad_fn is None
    assert all(maps.grad_fn is None for maps in activations)


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("grad_mode", [nullcontext, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("build", [pooled, Functional, Branching])
def test_gradients_do_not_depend_on_the_callers_grad_mode(build, grad_mode, frozen: bool) -> None:
    torch.manual_seed(0)
    model = build()
    plan = block_layers(model, IMAGES)
    expected = [maps.detach() for maps in torch.autograd.grad(*wanted(*capture_layers(model, plan, IMAGES)))]
    model.requires_grad_(not frozen)
    with grad_mode():
        images = IMAGES * 1  # made inside: an inference tensor under inference_mode
        logits, activations = capture_layers(model, plan, images)
    gradients = torch.autograd.grad(*wanted(logits, activations))
    assert all(torch.equal(*pair) for pair in zip(gradients, expected, strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())


def wanted(logits: Tensor, activations: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    return logits[:, 1].sum(), activations


def test_a_gradient_by_hand() -> None:
    """logit = 3 * mean(relu(2x)) + 1 * mean(relu(-x)) over 2x2 cells: each cell's gradient is weight / 4."""
    model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.ReLU(inplace=True), *head(2, classes=1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([2.0, -1.0]).view(2, 1, 1, 1))
        model[4].weight.copy_(torch.tensor([[3.0, 1.0]]))
    images = torch.tensor([[[[1.0, -2.0], [3.0, 0.5]]]])
    plan = block_layers(model, images, layers=["0", "1"])
    logits, (before, after) = capture_layers(model, plan, images)
    assert before.tolist() == [[[[2, -4], [6, 1]], [[-1, 2], [-3, -0.5]]]]  # the in-place ReLU did not reach it
    assert after.tolist() == [[[[2, 0], [6, 1]], [[0, 2], [0, 0]]]]
    to_before, to_after = torch.autograd.grad(logits.sum(), [before, after])
    assert to_after.tolist() == [[[[0.75, 0.75], [0.75, 0.75]], [[0.25, 0.25], [0.25, 0.25]]]]
    assert to_before.tolist() == [[[[0.75, 0], [0.75, 0.75]], [[0, 0.25], [0, 0]]]]


@pytest.mark.parametrize("build", [Shared, Branching])
def test_each_call_of_a_shared_module_gives_its_own_maps(build) -> None:
    model = build().eval()
    seen: list[Tensor] = []
    handle = model.relu.register_forward_hook(lambda module, args, output: seen.append(output.clone()))
    model(IMAGES)
    handle.remove()
    _, activations = capture_layers(model, block_layers(model, IMAGES), IMAGES)
    assert all(torch.equal(*pair) for pair in zip(activations, seen, strict=True))
    _, (second,) = capture_layers(model, block_layers(model, IMAGES, layers=["relu:2"]), IMAGES)
    assert torch.equal(second, seen[1])


def test_channels_last_maps_come_out_channels_first() -> None:
    model = ChannelsLast().eval()
    _, (maps,) = capture_layers(model, block_layers(model, IMAGES, layers=["gelu"]), IMAGES)
    expected = torch.nn.functional.gelu(model.mix(model.norm(model.stem(IMAGES).permute(0, 2, 3, 1))))
    assert torch.equal(maps, expected.permute(0, 3, 1, 2))


def test_the_images_gradient_is_there_when_it_is_asked_for() -> None:
    model = pooled().eval()
    images = IMAGES.clone().requires_grad_()
    logits, _ = capture_layers(model, block_layers(model, IMAGES), images)
    (gradient,) = torch.autograd.grad(logits.sum(), images)
    images_alone = IMAGES.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model(images_alone).sum(), images_alone)
    assert torch.equal(gradient, expected)


def test_a_model_in_training_is_captured_in_eval_mode_and_given_back() -> None:
    model = nn.Sequential(conv(3, 4), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.MaxPool2d(2), conv(4, 6), *head(6)).train()
    model = model.to(memory_format=torch.channels_last)
    model[1].eval()
    statistics = model[1].running_mean.clone()
    plan = block_layers(model, IMAGES)
    logits, _ = capture_layers(model, plan, IMAGES)
    assert [module.training for module in model] == [True, False, *[True] * 6]
    assert torch.equal(model[1].running_mean, statistics)
    assert model[4].weight.is_contiguous(memory_format=torch.channels_last)
    assert not any(module._forward_hooks for module in model)
    assert torch.equal(logits, logits_alone(model))


@pytest.mark.parametrize("build", [pooled, Functional])
def test_a_failing_forward_leaves_no_hook_and_no_mode_behind(build) -> None:
    model = build().train()
    plan = block_layers(model, IMAGES)
    with pytest.raises(RuntimeError, match="channels"):
        capture_layers(model, plan, torch.zeros(1, 2, 16, 24))
    assert all(module.training and not module._forward_hooks for module in model.modules())


def test_plans_of_another_model_are_refused() -> None:
    with pytest.raises(
        ModelError, match=r"the model has no layer 'layer1'; make a plan for this model with block_layers"
    ):
        capture_layers(pooled(), BlockPlan((BlockLayer("layer1", 4, (8, 8)),), "traced"), IMAGES)
    with pytest.raises(ModelError, match=r"layers relu:4 did not run"):
        capture_layers(Shared(), BlockPlan((BlockLayer("relu:4", 4, (8, 8)),), "traced"), IMAGES)
