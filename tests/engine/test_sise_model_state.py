"""A model that SISE has explained is left as it came: mode, gradients, hooks and random state, also where its forward fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from heatlas.engine.methods.sise import SISE
from heatlas.errors import HeatlasError
from torch import Tensor, nn

from ..support.oracle_nets import ThreeBlocks, images_like, three_blocks

SIZE = (24, 24)
LAYERS = ThreeBlocks.layers


def head(model: nn.Module) -> nn.Linear:
    result = model.get_submodule("head")
    assert isinstance(result, nn.Linear)
    return result


def state_of(model: nn.Module) -> dict[str, object]:
    """All that must be the same afterwards: flags, hooks, gradients, layout and values."""
    state: dict[str, object] = {}
    for name, module in model.named_modules():
        hooks = [value for key, value in sorted(vars(module).items()) if "hooks" in key]
        state[f"{name}.mode"] = (module.training, [tuple(hook.items()) for hook in hooks if hook is not None])
        state[f"{name}.forward"] = vars(module).get("forward")
        state[f"{name}.attributes"] = sorted(vars(module))
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        state[f"{name}.layout"] = (
            tensor.data_ptr(),
            tensor.stride(),
            tensor.dtype,
            tensor.requires_grad,
            tensor.is_leaf,
        )
        state[f"{name}.grad"] = None if tensor.grad is None else (id(tensor.grad), tensor.grad.tolist())
        state[f"{name}.version"] = tensor._version
        state[f"{name}.values"] = tensor.tolist()
    return state


class Failing(ThreeBlocks):
    """Raises in the forward pass after `patience`, in the middle of the network."""

    patience = 10**9

    def forward(self, images: Tensor) -> Tensor:
        maps = self.pool(self.relu1(self.norm(self.conv1(images))))
        self.check()
        return self.head(self.relu3(self.conv3(self.pool(self.relu2(self.conv2(maps))))).mean(dim=(2, 3)))

    def check(self) -> None:
        if Failing.patience <= 0:
            raise RuntimeError("the model broke")
        Failing.patience -= 1


@contextmanager
def peculiar(patience: int = 10**9) -> Iterator[nn.Module]:
    """A model in an unusual state: mixed modes, a frozen layer, a user's hook, an old gradient, channels-last weights."""
    torch.manual_seed(0)
    model = Failing()
    model.norm = nn.BatchNorm2d(6)
    model.train()
    model.conv2.eval()
    model.conv1.requires_grad_(False)
    model.conv3.register_forward_hook(lambda *_: None)
    model.pool.register_full_backward_hook(lambda *_: None)
    model.conv2.weight.grad = torch.ones_like(model.conv2.weight)
    model.conv3.to(memory_format=torch.channels_last)
    Failing.patience = patience
    try:
        yield model
    finally:
        Failing.patience = 10**9


def test_the_model_is_left_as_it_came():
    with peculiar() as model:
        before = state_of(model)
        result = SISE(model)(images_like(2, 3, SIZE, seed=9))
        assert "ok" in result.statuses
        assert state_of(model) == before


def test_the_comparison_of_states_sees_what_it_must_see():
    changes: list[Callable[[Failing], object]] = [
        lambda m: m.conv2.train(),
        lambda m: m.eval(),
        lambda m: m.conv1.requires_grad_(True),
        lambda m: m.relu3.register_forward_hook(lambda *_: None),
        lambda m: m.head.weight.data.mul_(2),
        lambda m: m.zero_grad(),
        lambda m: m.to(memory_format=torch.channels_last),
        lambda m: m(torch.zeros(2, 3, *SIZE)),
    ]
    for change in changes:
        with peculiar() as model:
            assert isinstance(model, Failing)
            before = state_of(model)
            change(model)
            assert state_of(model) != before


@pytest.mark.parametrize("patience", [0, 1, 2, 3, 4])
def test_the_model_is_left_as_it_came_when_its_forward_raises(patience: int):
    """The exception passes in whatever stage, and the same SISE works again afterwards."""
    images = images_like(2, 3, SIZE, seed=9)
    with peculiar(patience) as model:
        before = state_of(model)
        sise = SISE(model, layers=LAYERS, batch_size=4)
        with pytest.raises((RuntimeError, HeatlasError), match="the model broke"):
            sise(images)
        assert state_of(model) == before
        Failing.patience = 10**9
        assert torch.equal(sise(images).maps, SISE(model, layers=LAYERS, batch_size=4)(images).maps)
        assert state_of(model) == before


def test_a_dropout_that_is_training_does_not_dice():
    """Explained in eval mode whatever mode the model is in."""
    model = nn.Sequential(three_blocks(31), nn.Dropout(0.5))
    images = images_like(1, 3, SIZE, seed=10)
    assert torch.equal(SISE(model.train())(images).maps, SISE(model.eval())(images).maps)


def test_no_graph_and_no_change_comes_out():
    model, images = three_blocks(32), images_like(1, 3, SIZE, seed=11).requires_grad_(True)
    kept = images.detach().clone()
    result = SISE(model, keep_layers=True)(images)
    assert result.layer_maps is not None
    assert not any(tensor.requires_grad for tensor in (result.maps, result.confidences, result.layer_maps))
    assert images.grad is None
    assert torch.equal(images.detach(), kept)


def test_works_where_the_caller_has_switched_gradients_off():
    model, images = three_blocks(33), images_like(1, 3, SIZE, seed=12)
    expected = SISE(model)(images).maps
    with torch.no_grad():
        assert torch.equal(SISE(model)(images).maps, expected)
        assert not torch.is_grad_enabled()


@pytest.mark.parametrize("layout", ["channels_last", "strided"])
def test_the_memory_layout_of_the_images_does_not_matter(layout: str):
    model, images = three_blocks(34), images_like(2, 3, SIZE, seed=13)
    other = images.to(memory_format=torch.channels_last) if layout == "channels_last" else images.mT.contiguous().mT
    assert other.stride() != images.stride()
    assert torch.allclose(SISE(model)(other).maps, SISE(model)(images).maps, atol=1e-5)


# ---------------------------------------------------------------------------------------------------- arguments and their texts
