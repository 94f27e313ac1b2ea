"""Whole: the specification's table, and every classifier that torchvision ships (on the meta device, in seconds)."""

from __future__ import annotations

import pytest
import torch
from heatlas.engine.layers.blocks import block_layers
from heatlas.engine.layers.capture import capture_layers
from heatlas.errors import NoBlocksError

from ..support.checkout import checkout_module

TABLE = checkout_module("docs.generate.layers_page")
PAGE = TABLE.PAGE.read_text()
RESNET = "relu layer1 layer2 layer3 layer4"
SPECIFIED = {
    "vgg16": ("features.3 features.8 features.15 features.22 features.29", [64, 128, 256, 512, 512]),
    "vgg16_bn": ("features.5 features.12 features.22 features.32 features.42", [64, 128, 256, 512, 512]),
    "resnet18": (RESNET, [64, 64, 128, 256, 512]),
    "resnet50": (RESNET, [64, 256, 512, 1024, 2048]),
    "resnet101": (RESNET, [64, 256, 512, 1024, 2048]),
    "densenet121": (
        "features.relu0 features.transition1.conv features.transition2.conv features.transition3.conv relu",
        [64, 128, 256, 512, 1024],
    ),
    "googlenet": ("conv1 conv3 inception3b inception4e inception5b", [64, 192, 480, 832, 1024]),
    "convnext_tiny": ("features.2.0 features.4.0 features.6.0 features.7", [96, 192, 384, 768]),
    "mobilenet_v2": ("features.1 features.3 features.6 features.13 features.18", [16, 24, 32, 96, 1280]),
    "squeezenet1_1": ("features.1 features.4 features.7 features.12", [64, 128, 256, 512]),
    "inception_v3": ("Conv2d_2b_3x3 Conv2d_4a_3x3 Mixed_5d Mixed_6e Mixed_7c", [64, 192, 288, 768, 2048]),
}


@pytest.mark.parametrize("name", SPECIFIED)
def test_the_specified_layers_are_found(name: str) -> None:
    model, image = TABLE.meta_model(name)
    plan = block_layers(model, image)
    names, channels = SPECIFIED[name]
    assert plan.names == tuple(names.split())
    assert [layer.channels for layer in plan] == channels
    assert plan.how == "traced"


@pytest.mark.parametrize("name", ["vgg16", "resnet18", "googlenet", "convnext_tiny", "mobilenet_v2", "squeezenet1_1"])
def test_hooks_find_the_same_layers_as_the_graph(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, image = TABLE.meta_model(name)
    monkeypatch.setattr("heatlas.engine.layers.blocks.trace_of", lambda model: None)
    plan = block_layers(model, image)
    assert plan.how == "hooks"
    assert plan.names == tuple(SPECIFIED[name][0].split())


@pytest.mark.parametrize("name", TABLE.classifiers())
def test_every_classifier_has_its_true_line_in_the_page(name: str) -> None:
    line = TABLE.table_row(name)
    assert line in PAGE, f"docs/layers.md is out of date for {name}: run python -m docs.generate layers"


@pytest.mark.parametrize(
    "name", ["alexnet", "swin_t", "densenet121", "maxvit_t", "efficientnet_b0", "shufflenet_v2_x0_5"]
)
def test_the_planned_maps_can_be_captured_with_their_gradients(name: str) -> None:
    model, image = TABLE.meta_model(name)
    plan = block_layers(model, image)
    logits, activations = capture_layers(model, plan, image.expand(2, -1, -1, -1))
    assert [tuple(maps.shape) for maps in activations] == [(2, layer.channels, *layer.size) for layer in plan]
    gradients = torch.autograd.grad(logits[:, 0].sum(), activations)
    assert [gradient.shape for gradient in gradients] == [maps.shape for maps in activations]


def test_the_page_holds_each_classifier_once_and_nothing_else() -> None:
    assert PAGE.startswith(TABLE.HEADER)
    names = [line.split("|")[1].strip() for line in PAGE.removeprefix(TABLE.HEADER).splitlines()]
    assert names == TABLE.classifiers()


def test_a_vision_transformer_is_refused_with_a_way_out() -> None:
    model, image = TABLE.meta_model("vit_b_32")
    with pytest.raises(
        NoBlocksError, match=r"one, 'conv_proj' with 768 maps of 7 x 7.*name convolutional layers.*such as daam"
    ):
        block_layers(model, image)
