"""The block rule on networks small enough to know the answer, the names that users give, and the refusals."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import pytest
import torch
from heatlas.engine.layers.block_plan import BlockLayer
from heatlas.engine.layers.blocks import block_layers
from heatlas.engine.layers.fx_trace import trace_of
from heatlas.errors import ModelError, NoBlocksError
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
from ..support.programs import scripted_program

IMAGE = torch.randn(1, 3, 16, 24, generator=torch.Generator().manual_seed(0))


def block_list(model: nn.Module, image: Tensor = IMAGE) -> list[tuple[str, int, tuple[int, int]]]:
    return [(layer.name, layer.channels, layer.size) for layer in block_layers(model, image)]


def test_blocks_end_before_pools() -> None:
    assert block_list(pooled()) == [("1", 4, (16, 24)), ("5", 6, (8, 12)), ("9", 8, (4, 6))]


def test_a_wide_tensor_that_a_shortcut_bypasses_ends_no_block() -> None:
    assert block_list(residual()) == [("0", 4, (16, 24)), ("1", 6, (8, 12)), ("2", 8, (4, 6))]


def test_a_block_is_named_by_the_outermost_module_that_is_all_its_own() -> None:
    model = nn.Sequential(
        nn.Sequential(conv(3, 4), nn.ReLU(), nn.Sequential(conv(4, 6, stride=2), nn.ReLU())), *head(6)
    )
    assert [name for name, *_ in block_list(model)] == ["0.1", "0.2"]


def test_what_the_model_does_to_pixels_before_its_first_weight_is_no_feature() -> None:
    assert block_list(Normalised())[0] == ("body.1", 4, (16, 24))


def test_unpadded_convolutions_shrink_without_ending_a_block() -> None:
    model = nn.Sequential(
        conv(3, 4), conv(4, 4, padding=0), conv(4, 5, padding=0), nn.MaxPool2d(2), conv(5, 6), *head(6)
    )
    assert block_list(model) == [("2", 5, (12, 20)), ("4", 6, (6, 10))]


def test_a_long_chain_of_unpadded_convolutions_is_one_block() -> None:
    chain = [conv(4, 4, padding=0) for _ in range(5)]
    model = nn.Sequential(conv(3, 4), *chain, conv(4, 5, stride=2), *head(5))
    assert block_list(model, torch.zeros(1, 3, 25, 25)) == [("5", 4, (15, 15)), ("6", 5, (8, 8))]


def inverted(inputs: int, wide: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        conv(inputs, wide, 1), nn.BatchNorm2d(wide), nn.ReLU6(inplace=True),
        conv(wide, wide, stride=2, groups=wide), nn.ReLU6(inplace=True), conv(wide, outputs, 1),
    )  # fmt: skip


def test_the_expanded_tensor_of_a_strided_unit_yields_to_the_unit_before() -> None:
    model = nn.Sequential(conv(3, 4), inverted(4, 24, 6), inverted(6, 36, 8), *head(8))
    assert block_list(model) == [("0", 4, (16, 24)), ("1", 6, (8, 12)), ("2", 8, (4, 6))]


def test_a_depthwise_stride_without_a_bottleneck_keeps_the_wide_tensor() -> None:
    model = nn.Sequential(conv(3, 4), conv(4, 8, 1), conv(8, 8, stride=2, groups=8), conv(8, 16, 1), *head(16))
    assert block_list(model) == [("1", 8, (16, 24)), ("3", 16, (8, 12))]


def test_a_convolutional_classifier_belongs_to_no_block() -> None:
    body = [conv(3, 4), nn.ReLU(), nn.MaxPool2d(2), conv(4, 6), nn.ReLU()]
    model = nn.Sequential(*body, nn.Dropout(), conv(6, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert block_list(model) == [("1", 4, (16, 24)), ("4", 6, (8, 12))]


def test_functional_layers_have_names_that_hide_no_module() -> None:
    model = Functional()
    assert block_list(model) == [("relu_function", 4, (16, 24)), ("relu", 6, (8, 12))]
    assert block_layers(model, IMAGE, layers=["relu_function", "relu"]).layers == block_layers(model, IMAGE).layers


def test_calls_of_a_shared_module_are_told_apart() -> None:
    assert [name for name, *_ in block_list(Shared())] == ["relu:1", "relu:2", "relu:3"]


def test_maps_with_channels_last_are_read_as_such() -> None:
    assert block_list(ChannelsLast()) == [("permute_1", 6, (16, 24)), ("down", 8, (8, 12))]
    assert block_layers(ChannelsLast(), IMAGE, layers=["gelu", "down"]).layers == (
        BlockLayer("gelu", 6, (16, 24), channel_axis=3),
        BlockLayer("down", 8, (8, 12)),
    )


def test_an_untraceable_model_is_surveyed_by_hooks() -> None:
    plan = block_layers(Branching(), IMAGE)
    assert plan.how == "hooks"
    assert [(layer.name, layer.channels) for layer in plan] == [("relu:1", 4), ("relu:2", 6), ("relu:3", 8)]


def test_hooks_find_the_articulation_nodes_of_a_residual_net(monkeypatch: pytest.MonkeyPatch) -> None:
    traced = block_list(residual())
    monkeypatch.setattr("heatlas.engine.layers.blocks.trace_of", lambda model: None)
    assert block_list(residual()) == traced


@pytest.mark.parametrize("wrap", [lambda x: (x, x), lambda x: {"aux": x[:, :2], "logits": x}, lambda x: [None, x]])
def test_logits_are_found_inside_what_a_model_returns(wrap) -> None:
    assert [name for name, *_ in block_list(Wrapped(wrap))] == ["body.1", "body.5", "body.9"]


# --- layers that the user names


@pytest.mark.parametrize("model", [Shared(), Branching()], ids=["traced", "hooks"])
def test_named_layers_are_put_in_execution_order(model: nn.Module) -> None:
    plan = block_layers(model, IMAGE, layers=["relu", "conv2", "relu:1"])
    assert [(layer.name, layer.channels) for layer in plan] == [("relu:1", 4), ("conv2", 6), ("relu:3", 8)]
    assert plan.how == "named"


def test_a_plans_names_give_the_plan_again() -> None:
    for model in (pooled(), residual(), Functional(), Shared(), ChannelsLast(), Branching()):
        plan = block_layers(model, IMAGE)
        assert block_layers(model, IMAGE, layers=plan.names).layers == plan.layers


class WithUnused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.side, self.fc, self.never = pooled(), conv(3, 2), nn.Linear(3, 5), conv(3, 3)

    def forward(self, images: Tensor) -> Tensor:
        self.side(images)
        return self.body(images)


@pytest.mark.parametrize(
    ("layers", "text"),
    [
        (["body.6", "bodi.5"], r"unknown layer 'bodi.5'; did you mean 'body\.5'\?; layers that .*body\.1"),
        (["body.11"], r"layer 'body\.11' is in the model but puts out no \(batch, channel, height, width\) maps"),
        (["never"], r"layer 'never' is in the model but puts out no"),
        (["side", "body.1"], r"the logits do not depend on layer 'side'"),
        (["body.1", "body.1"], r"layers 'body\.1' and 'body\.1' are the same feature maps"),
        ([], r"layers must be a list of at least one layer name, got \[\]"),
        ("body.1", r"layers must be a list of at least one layer name, got 'body\.1'"),
    ],
)
def test_unusable_layers_are_refused(layers, text: str) -> None:
    with pytest.raises(ModelError, match=text):
        block_layers(WithUnused(), IMAGE, layers=layers)


# --- refusals


def scripted() -> nn.Module:
    """Its inside can neither be traced nor hooked."""
    return scripted_program(pooled())


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (
            nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 24, 5)),
            r"every path crosses: none\).*name convolutional layers with `layers`",
        ),
        (nn.Sequential(conv(3, 4, stride=4), nn.ReLU(), conv(4, 6), *head(6)), r"one, '2' with 6 maps of 4 x 6\)"),
        (nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3 * 8 * 12, 5)), r"none"),
    ],
)
def test_models_without_a_hierarchy_are_refused_with_a_way_out(model: nn.Module, text: str) -> None:
    with pytest.raises(NoBlocksError, match=text):
        block_layers(model, IMAGE)


@pytest.mark.parametrize(
    ("model", "image", "text"),
    [
        (scripted(), IMAGE, r"TorchScript model shows no layers; load its weights into the Python class"),
        (pooled(), torch.zeros(1, 4, 16, 24), r"cannot take an image of shape \(4, 16, 24\): .*check the input size"),
        (
            pooled(),
            torch.zeros(3, 16, 24),
            r"example_input must have shape \(batch, channel, height, width\).*got \(3, 16, 24\)",
        ),
        (pooled(), torch.zeros(0, 3, 16, 24), r"at least one image, got \(0, 3, 16, 24\)"),
        (
            Wrapped(lambda x: "cat"),
            IMAGE,
            r"the model returned a str, but class scores of shape \(batch, class\) are needed",
        ),
        (Wrapped(lambda x: x[:, 0]), IMAGE, r"the model returned a tensor of shape \(1,\)"),
    ],
)
def test_models_that_do_not_fit_the_example_are_refused(model: nn.Module, image: Tensor, text: str) -> None:
    with pytest.raises(ModelError, match=text):
        block_layers(model, image)


# --- the model is left as it came, the plan stands alone


@pytest.mark.parametrize("build", [pooled, Normalised, Shared, Branching])
@pytest.mark.parametrize("grad_mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_the_model_is_left_as_it_came(build, grad_mode) -> None:
    model = build()
    model(IMAGE)  # what a forward itself leaves on the model (Branching keeps maps) is there before
    model.train()
    list(model.modules())[2].eval()
    next(iter(model.parameters())).requires_grad_(False)
    calls: list[tuple[int, ...]] = []
    model.register_forward_hook(
        lambda module, args, output: calls.append(output.shape) if isinstance(output, Tensor) else None
    )
    before = copy.deepcopy(state_of(model))
    with grad_mode():
        block_layers(model, IMAGE)
    assert state_of(model) == before


def state_of(model: nn.Module) -> list[object]:
    return [
        (
            path,
            module.training,
            sorted(vars(module)),
            len(module._forward_hooks),
            [(p.requires_grad, p.grad, p.stride(), p.tolist()) for p in module.parameters(recurse=False)],
        )
        for path, module in model.named_modules()
    ]


def test_a_failing_forward_leaves_the_model_as_it_came() -> None:
    model = Branching().train()
    before = state_of(model)
    with pytest.raises(ModelError):
        block_layers(model, torch.zeros(1, 2, 16, 24))
    assert state_of(model) == before


def test_a_plan_pickles_and_holds_no_model() -> None:
    model = pooled()
    plan = block_layers(model, IMAGE)
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert (len(plan), plan[-1].name, plan[1:], list(plan)) == (3, "9", plan.layers[1:], list(plan.layers))
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_a_rebuilt_model_is_traced_again() -> None:
    model = pooled()
    assert len(block_layers(model, IMAGE)) == 3
    assert trace_of(model) is trace_of(model)
    del model[7]
    assert block_list(model) == [("1", 4, (16, 24)), ("8", 8, (8, 12))]
