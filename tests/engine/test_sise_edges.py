"""Where SISE's formulas end: saturation, nothing to aggregate, NaN; and what must not matter: batching, the model's state."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from heatlas.engine.explanation import Explanations
from heatlas.engine.methods.sise import SISE
from heatlas.engine.session import ExplainSession
from heatlas.errors import SettingsError, TargetError
from torch import Tensor, nn

from ..support import reference
from ..support.oracle_nets import ThreeBlocks, images_like, three_blocks

SIZE = (24, 24)
LAYERS = ThreeBlocks.layers


def head(model: nn.Module) -> nn.Linear:
    result = model.get_submodule("head")
    assert isinstance(result, nn.Linear)
    return result


def assert_no_nan(result: Explanations) -> None:
    assert result.maps.isfinite().all()
    assert result.confidences.isfinite().all()
    assert result.layer_maps is None or result.layer_maps.isfinite().all()


# -------------------------------------------------------------------------------------------------------------- saturation


@pytest.mark.parametrize("logit", [25.0, 60.0, 1000.0, -60.0])
def test_saturation_changes_no_selection(logit: float):
    """A bias of the target's logit leaves d margin / d A as it is, so the maps kept are those of the unsaturated float64
    model, whose probability has a gradient that a float can hold."""
    plain, target = three_blocks(21, widths=(12, 16, 20)), 3
    image = images_like(1, 3, SIZE, seed=1)
    unsaturated = reference.sise(plain, LAYERS, image[0], target)
    biased = copy.deepcopy(plain)
    with torch.no_grad():
        head(biased).bias[target] += logit
    result = SISE(biased)(image, [target])
    if logit > 0:
        assert float(result.confidences[0]) == 1.0
    assert result.statuses == ["ok"]
    assert result.mask_counts[0].tolist() == unsaturated.mask_counts
    oracle = reference.sise(biased, LAYERS, image[0], target, form="margin")
    assert oracle.kept == unsaturated.kept
    np.testing.assert_allclose(result.maps[0].numpy(), oracle.map, atol=1e-3)


def test_a_target_without_any_probability_gives_a_constant_map():
    model = three_blocks(21)
    with torch.no_grad():
        head(model).bias[3] -= 1000
    result = SISE(model)(images_like(1, 3, SIZE, seed=1), [3])
    assert result.statuses == ["constant_map"]
    assert float(result.confidences[0]) == 0.0
    assert result.mask_counts.sum() > 0
    assert_no_nan(result)


# ------------------------------------------------------------------------------------------------------ nothing to aggregate


def test_a_class_that_every_map_speaks_against_has_no_evidence():
    """Only that row: the same image explained for another class is fine."""
    model = three_blocks(22)
    with torch.no_grad():
        head(model).weight.abs_()
        head(model).weight[0] = -1.0
    images = images_like(1, 3, SIZE, seed=2).repeat(2, 1, 1, 1)
    assert reference.sise(model, LAYERS, images[0], 0).status == "no_evidence"
    result = SISE(model, keep_layers=True)(images, [0, 1])
    assert result.statuses == ["no_evidence", "ok"]
    assert int(result.mask_counts[0, 2]) == 0
    assert not result.maps[0].any()
    assert result.maps[1].any()
    assert result.layer_maps is not None
    assert not result.layer_maps[0].any()
    assert_no_nan(result)


class Complements(nn.Module):
    """A_1 = I and A_2 = 1 - I: on a chess board both masks have the same mass, and the score is always the same."""

    layers = ("maps",)

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Conv2d(1, 2, 1)
        with torch.no_grad():
            self.maps.weight.copy_(torch.tensor([1.0, -1.0])[:, None, None, None])
            self.maps.bias.copy_(torch.tensor([0.0, 1.0]))

    def forward(self, images: Tensor) -> Tensor:
        sums = self.maps(images).mean(dim=(1, 2, 3), keepdim=False)
        return torch.stack([sums, torch.zeros_like(sums)], dim=1)


def test_a_layer_whose_masks_cancel_gives_a_constant_map():
    board = (torch.arange(16).reshape(4, 4) + torch.arange(4)[:, None]) % 2
    image = board.float()[None]
    assert reference.sise(Complements(), ("maps",), image, 0).status == "constant_map"
    result = SISE(Complements(), layers=("maps",), keep_layers=True)(image[None], [0])
    assert result.statuses == ["constant_map"]
    assert result.mask_counts.tolist() == [[2]]
    assert not result.maps.any()
    assert_no_nan(result)


class CancellingBelow(nn.Module):
    """The lower layer's masks cancel as above; the upper layer, the 2x2 means of A_1, has one mask that does not."""

    layers = ("maps", "means")

    def __init__(self) -> None:
        super().__init__()
        self.maps, self.means = Complements().maps, nn.Conv2d(1, 1, 2, stride=2)
        with torch.no_grad():
            self.means.weight.fill_(0.25)
            self.means.bias.zero_()

    def forward(self, images: Tensor) -> Tensor:
        maps = self.maps(images)
        total = 4 * self.means(maps[:, :1]).sum(dim=(1, 2, 3)) + maps[:, 1].sum(dim=(1, 2))
        return torch.stack([total, torch.full_like(total, 16.0)], dim=1)


def test_one_constant_layer_is_enough():
    """Though the other layer's map would pass through the cascade."""
    image = torch.tensor([1.0, 1.0, 0.0, 0.0]).expand(1, 4, 4)
    oracle = reference.sise(CancellingBelow(), CancellingBelow.layers, image, 0)
    result = SISE(CancellingBelow(), layers=CancellingBelow.layers)(image[None], [0])
    assert result.statuses == [oracle.status] == ["constant_map"]
    assert result.mask_counts.tolist() == [oracle.mask_counts] == [[2, 1]]
    assert not result.maps.any()


@pytest.mark.parametrize("value", [0.0, 0.3, -1.7])
def test_a_constant_image_of_a_padded_network_shows_its_borders_only(value: float):
    model = three_blocks(23)
    image = torch.full((1, 3, *SIZE), value)
    oracle = reference.sise(model, LAYERS, image[0])
    result = SISE(model)(image)
    assert result.statuses == [oracle.status]
    assert result.mask_counts[0].tolist() == oracle.mask_counts
    np.testing.assert_allclose(result.maps[0].numpy(), oracle.map, atol=1e-3)
    assert_no_nan(result)


@pytest.mark.parametrize("value", [0.0, 0.3, -1.7, 1e-20])
@pytest.mark.parametrize("mode", ["unpadded", "replicate"])
def test_a_constant_image_of_a_network_without_borders_has_no_evidence(value: float, mode: str):
    """Every map is constant, up to what a convolution's kernel makes of the last bit, and that is no evidence."""
    model = three_blocks(24, channels=3, size=(37, 41))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            if mode == "replicate":
                module.padding_mode = "replicate"
            else:
                module.padding, module._reversed_padding_repeated_twice = (0, 0), [0, 0, 0, 0]
    result = SISE(model)(torch.full((1, 3, 37, 41), value))
    assert result.statuses == ["no_evidence"]
    assert result.mask_counts.sum() == 0
    assert not result.maps.any()


# --------------------------------------------------------------------------------------------------------------- non-finite


def test_nan_weights_are_a_status():
    model = three_blocks(25)
    with torch.no_grad():
        head(model).weight[4, 2] = torch.nan
    result = SISE(model, keep_layers=True)(images_like(2, 3, SIZE, seed=3), [0, 4])
    assert result.statuses == ["non_finite", "non_finite"]
    assert result.targets.tolist() == [0, 4]
    assert not result.maps.any()
    assert_no_nan(result)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_one_bad_image_costs_its_own_row_only(value: float):
    model, images = three_blocks(26), images_like(3, 3, SIZE, seed=4)
    clean = SISE(model)(images)
    images[1, 0, 5, 5] = value
    result = SISE(model)(images)
    assert result.statuses == ["ok", "non_finite", "ok"]
    assert torch.equal(result.maps[[0, 2]], clean.maps[[0, 2]])
    assert not result.maps[1].any()
    assert_no_nan(result)


class Wrapped(nn.Module):
    """A network with something done to its input and its activations."""

    layers = ("net.relu1", "net.relu3")

    def __init__(
        self, before: Callable[[Tensor], Tensor] = lambda x: x, after: Callable[[Tensor], Tensor] = lambda x: x
    ):
        super().__init__()
        self.net, self.before, self.after = three_blocks(27), before, after

    def forward(self, images: Tensor) -> Tensor:
        return self.after(self.net(self.before(images)))


def test_a_score_that_is_nan_for_masked_inputs_only_is_a_status():
    """Finite for the image itself, 0 / 0 for an input with zeros, which every mask makes."""
    image = images_like(1, 3, SIZE, seed=5).abs() + 0.1
    model = Wrapped(before=lambda x: x * (x.abs() / x.abs()).mean())
    assert model(image).isfinite().all()
    result = SISE(model, layers=Wrapped.layers)(image)
    assert result.statuses == ["non_finite"]
    assert_no_nan(result)


class HiddenNan(nn.Module):
    """A layer with a NaN that a later layer swallows."""

    layers = ("maps",)

    def __init__(self) -> None:
        super().__init__()
        self.maps, self.head = nn.Conv2d(3, 4, 1), nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.nan_to_num(self.maps(images)).mean(dim=(2, 3)))


def test_a_nan_that_the_model_swallows_is_a_status_too():
    torch.manual_seed(0)
    image = images_like(1, 3, SIZE, seed=6)
    image[0, 0, 3, 3] = torch.nan
    model = HiddenNan()
    assert model(image).isfinite().all()
    result = SISE(model, layers=HiddenNan.layers)(image)
    assert result.statuses == ["non_finite"]
    assert_no_nan(result)


# ----------------------------------------------------------------------------------------------------- batching does not matter


@pytest.mark.parametrize("target", [10, -1, 1000])
def test_a_target_out_of_range_is_told(target: int):
    sise, images = SISE(three_blocks(35)), images_like(3, 3, SIZE, seed=14)
    expected = sise(images, 3).maps
    with pytest.raises(TargetError, match=rf"class index from 0 to 9, got {target}$"):
        sise(images, [3, target, 3])
    assert torch.equal(sise(images, 3).maps, expected), "masks of the refused call must not linger"


def test_masks_of_a_refused_call_cost_nothing_later():
    """They are forgotten: a batch with room for one mask more than the image's needs one forward, before and after."""
    model, images = three_blocks(35), images_like(2, 3, SIZE, seed=14)
    sise = SISE(model, batch_size=int(SISE(model)(images[:1], 3).mask_counts.sum()) + 1)
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    sise(images[:1], 3)
    sizes.clear()
    sise(images[:1], 3)
    alone = list(sizes)
    with pytest.raises(TargetError):
        sise(images, [3, 10])
    sizes.clear()
    sise(images[:1], 3)
    assert sizes == alone


def test_a_wrong_number_of_targets_is_told():
    with pytest.raises(TargetError, match="each of the 3 images"):
        SISE(three_blocks(35))(images_like(3, 3, SIZE, seed=14), [1, 2])


def test_a_session_refuses_a_target_and_goes_on():
    model, images = three_blocks(35), images_like(2, 3, SIZE, seed=14)
    session = ExplainSession(SISE(model), [])
    session.push(0, images[0], target=1, truth=None)
    with pytest.raises(TargetError, match="from 0 to 9, got 10"):
        session.push(1, images[1], target=10, truth=None)
    left = session.finish()
    assert [entry.key for entry in left] == [0]
    assert left[0].map is not None
    assert torch.allclose(left[0].map, SISE(model)(images[:1], 1).maps[0], atol=1e-5)


def test_all_ways_to_name_the_targets_agree():
    sise, images = SISE(three_blocks(36)), images_like(2, 3, SIZE, seed=15)
    expected = sise(images, [4, 4])
    for targets in (4, (4, 4), torch.tensor([4, 4]), np.array([4, 4])):
        assert torch.equal(sise(images, targets).maps, expected.maps)
    predicted = sise(images)
    assert torch.equal(predicted.targets, predicted.predictions)
    assert torch.equal(sise(images, predicted.predictions).maps, predicted.maps)


@pytest.mark.parametrize(
    ("argument", "text"),
    [({"mu": -0.1}, "mu .*-0.1"), ({"mu": 1.0}, "mu .*1.0"), ({"mu": float("nan")}, "mu .*nan"),
     ({"batch_size": 0}, "batch_size .*0"), ({"precision": "fp8"}, "precision .*'fp8'")],
)  # fmt: skip
def test_a_setting_out_of_range_is_told(argument: dict, text: str):
    with pytest.raises(SettingsError, match=text):
        SISE(three_blocks(36), **argument)


def test_layer_maps_are_kept_when_asked_for():
    model, images = three_blocks(37), images_like(2, 3, (24, 20), seed=16)
    plain, kept = SISE(model)(images), SISE(model, keep_layers=True)(images)
    assert plain.layer_maps is None
    assert kept.layer_maps is not None
    assert torch.equal(plain.maps, kept.maps)
    assert kept.layer_maps.shape == (2, 3, 24, 20)
    flat = kept.layer_maps.flatten(2)
    assert torch.equal(flat.amin(dim=2), torch.zeros(2, 3))
    assert torch.allclose(flat.amax(dim=2), torch.ones(2, 3), atol=1e-6)
    for row in range(2):
        s, _ = reference.fused([entry.double().numpy() for entry in kept.layer_maps[row]])
        near = np.abs(s / 3 - kept.maps[row].double().numpy()) <= 1e-6
        assert near.mean() > 0.99


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_the_caller_may_have_switched_gradients_off(mode):
    model = three_blocks(0)
    images = images_like(2, 3, (24, 24), seed=1)
    expected = SISE(model)(images)
    with mode():
        result = SISE(model)(images.clone())
    assert result.statuses == expected.statuses == ["ok", "ok"]
    assert torch.equal(result.maps, expected.maps)
