"""What every method keeps: batches, targets, the model, failures, draws, precision."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from heatlas.engine.explanation import Explanations
from heatlas.engine.methods.registry import find_method
from heatlas.engine.metrics.ranking import spearman
from heatlas.engine.scoring.scoring_options import Scoring
from heatlas.errors import ModelError, TargetError
from torch import Tensor

from ...support.contract_methods import (
    CLASSES,
    NAMES,
    PACKED,
    bound,
    last_linear,
    model_for,
)

DRAWN = [name for name in NAMES if find_method(name).stochastic]


CLASS_BLIND = {"lafam"}
"""Their map is the same for every class: a baseline."""


CHAOTIC = {"fovex", "bee_select", "lima"}
"""A step follows the sign of a gradient, the best of several maps, or of several regions, so rounding leads elsewhere."""


DRAWN_GRADIENTS = {"bee", "bee_select", "expected_gradients"}
"""Draws decide where gradients are taken: no gradient, no map."""


@dataclass(frozen=True)
class Row:
    """One image's result, to be compared exactly."""

    map: Tensor
    rest: tuple[Any, ...]
    extras: dict[str, Tensor]

    @classmethod
    def of(cls, found: Explanations, place: int) -> Row:
        rest = (
            found.statuses[place], found.errors[place], int(found.targets[place]), int(found.predictions[place]),
            float(found.confidences[place]), found.n_forwards[place], found.n_backwards[place],
        )  # fmt: skip
        extras = {name: entry for name, values in found.extras.items() if (entry := values[place]) is not None}
        return cls(found.maps[place], rest, extras)

    def same(self, other: Row) -> None:
        """To the last bit."""
        assert self.rest == other.rest
        assert torch.equal(self.map, other.map)
        assert self.extras.keys() == other.extras.keys()
        assert all(torch.equal(extra, other.extras[name]) for name, extra in self.extras.items())

    def alike(self, other: Row) -> None:
        """But for the last bits, which a matrix product makes depend on the row's place in its batch."""
        assert [entry for entry in self.rest if not isinstance(entry, float)] == [
            entry for entry in other.rest if not isinstance(entry, float)
        ]
        torch.testing.assert_close(self.map, other.map, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(self.extras, other.extras, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_its_images_one_by_one_in_any_order(name: str, images: Tensor) -> None:
    method, targets, seeds = bound(name, model_for(name)), [0, 1, 2, 3, 1], [7, 3, 9, 1, 4]
    whole = method.explain(images, targets, seeds=seeds)
    assert set(whole.statuses) == {"ok"}
    assert bool(((whole.maps >= 0) & (whole.maps <= 1)).all())
    back = method.explain(images.flip(0), targets[::-1], seeds=seeds[::-1])
    for place in range(5):
        alone = method.explain(images[place : place + 1], [targets[place]], seeds=[seeds[place]])
        Row.of(whole, place).alike(Row.of(alone, 0))
        Row.of(whole, place).alike(Row.of(back, 4 - place))


@pytest.mark.parametrize("name", NAMES)
def test_the_predicted_class_is_explained_unless_another_is_asked_for(name: str, images: Tensor) -> None:
    model = model_for(name)
    method = bound(name, model)
    with torch.no_grad():
        logits = model(images)
    result = method.explain(images)
    assert torch.equal(result.targets, logits.argmax(dim=1))
    assert torch.equal(result.predictions, result.targets)
    torch.testing.assert_close(result.confidences, logits.softmax(dim=1).amax(dim=1), rtol=1e-5, atol=1e-6)
    same = method.explain(images, result.targets)
    for place in range(len(images)):
        Row.of(result, place).alike(Row.of(same, place))
    other = method.explain(images, (result.targets + 1) % CLASSES)
    assert torch.equal(other.predictions, result.predictions)
    assert torch.equal(other.maps, result.maps) == (name in CLASS_BLIND)
    with pytest.raises(TargetError, match=f"from 0 to {CLASSES - 1}, got {CLASSES}"):
        method.explain(images, CLASSES)
    with pytest.raises(TargetError, match="got -1"):
        method.explain(images, -1)


@pytest.mark.parametrize("name", NAMES)
def test_the_model_is_left_as_it_came(name: str, images: Tensor) -> None:
    model = model_for(name)
    model.train()
    next(iter(model.children())).eval()
    frozen = next(iter(model.parameters()))
    frozen.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    flags = [module.training for module in model.modules()]
    wants = [parameter.requires_grad for parameter in model.parameters()]
    with torch.inference_mode():
        bound(name, model).explain(images[:2])
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == flags
    assert [parameter.requires_grad for parameter in model.parameters()] == wants
    assert all(parameter.grad is None for parameter in model.parameters())
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    assert not any(getattr(module, kind) for module in model.modules() for kind in hooks)
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_a_number_becomes_a_status(name: str, images: Tensor) -> None:
    model = model_for(name)
    last_linear(model).bias.data[0] = torch.nan
    result = bound(name, model).explain(images[:3])
    assert result.statuses == ["non_finite"] * 3
    assert all(result.errors)
    assert not bool(result.maps.any())
    assert bool(result.confidences.isfinite().all())
    assert all(value is None for values in result.extras.values() for value in values)


@pytest.mark.parametrize("name", NAMES)
def test_a_broken_image_does_not_touch_its_neighbours(name: str, images: Tensor) -> None:
    method = bound(name, model_for(name))
    broken = images[:3].clone()
    broken[1, 0, 0, 0] = torch.nan
    whole, result = method.explain(images[:3]), method.explain(broken)
    assert result.statuses == ["ok", "non_finite", "ok"]
    for place in (0, 2):
        Row.of(result, place).alike(Row.of(whole, place))


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_always_says_the_same_gives_no_nan(name: str, images: Tensor) -> None:
    model = model_for(name)
    last_linear(model).weight.data.zero_()
    if name == "daam":
        with pytest.raises(ModelError, match="do not depend on the class token"):
            bound(name, model).explain(images[:3])
        return
    result = bound(name, model).explain(images[:3])
    assert bool(result.maps.isfinite().all())
    if name in DRAWN and name not in DRAWN_GRADIENTS:  # what is drawn is not constant, whatever the model says
        assert set(result.statuses) == {"ok"}
    elif name not in CLASS_BLIND | {"score_cam"} and not find_method(name).trained:
        # score_cam: weights are all the same, and it shows the mean map; a trained head shows what the features are
        assert set(result.statuses) <= {"constant_map", "no_evidence"}
        assert not bool(result.maps.any())


@pytest.mark.parametrize("name", NAMES)
def test_draws_belong_to_the_seed_and_the_image(name: str, images: Tensor) -> None:
    model = model_for(name)
    entry = bound(name, model).explain(images[:2], [1, 2], seeds=[5, 6])
    torch.manual_seed(99)
    again = bound(name, model).explain(images[:2], [1, 2], seeds=[5, 6])
    other = bound(name, model).explain(images[:2], [1, 2], seeds=[6, 5])
    for place in range(2):
        Row.of(entry, place).same(Row.of(again, place))
    if name in DRAWN:
        assert not any(torch.equal(entry.maps[place], other.maps[place]) for place in range(2))
        seeded = bound(name, model, seed=1).explain(images[:2], [1, 2], seeds=[5, 6])
        assert not torch.equal(seeded.maps, entry.maps)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in CHAOTIC])
def test_half_precision_ranks_pixels_alike(name: str, images: Tensor) -> None:
    model, targets = model_for(name), [0, 1, 2, 3, 1]
    wide = bound(name, model).explain(images, targets)
    half = bound(name, model, Scoring(batch_size=16, precision="bf16")).explain(images, targets)
    assert half.statuses == wide.statuses
    assert half.maps.dtype == torch.float32
    agreement = spearman(wide.maps.flatten(1), half.maps.flatten(1))
    assert float(agreement.median()) > 0.9
    packed_or_forward_only = name in (*PACKED, "consensus") or not find_method(name).gradients
    assert torch.equal(wide.maps, half.maps) != packed_or_forward_only, (
        "passes with gradients are float32 in any precision"
    )
