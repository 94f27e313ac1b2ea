"""AGF: sums that its rules keep, the paper's formulas written slowly, LRP-0 with the residuals off, and models that it refuses."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from heatlas.engine.methods.registry import bind_method
from heatlas.engine.relevance.rules import (
    RuleOptions,
    conv_relevance,
    factorised_relevance,
    propagate,
    safe_divide,
    shift_residual,
    split_sum,
    start_relevance,
    two_factors,
)
from heatlas.errors import ModelError, SettingsError
from torch import Tensor, nn
from torchvision.models import VisionTransformer, densenet121, resnet18

from ..support.oracle_nets import images_like

DOUBLE = torch.float64


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def small_net(kernel: int = 3) -> nn.Sequential:
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, kernel, padding=kernel // 2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3),
    )  # fmt: skip
    return model.double().eval()


def test_dividing_by_nothing_gives_nothing() -> None:
    ratio = safe_divide(torch.tensor([1.0, 1.0, 0.0]), torch.tensor([0.0, -2.0, 4.0]))
    assert ratio.tolist() == pytest.approx([0.0, -0.5, 0.0])


def test_propagation_keeps_the_sum() -> None:
    layer = nn.Conv2d(3, 4, 3, padding=1).double()
    relevance = drawn(2, 4, 6, 6)
    contribution = conv_relevance(layer, drawn(2, 3, 6, 6, seed=1), relevance)
    torch.testing.assert_close(contribution.sum((1, 2, 3)), relevance.sum((1, 2, 3)))


def test_the_shift_keeps_the_sum_of_what_contributes() -> None:
    contribution = drawn(2, 3, 5, 5) * (drawn(2, 3, 5, 5, seed=2) > 0)
    shifted = shift_residual(contribution, drawn(2, 3, 5, 5, seed=3))
    torch.testing.assert_close(shifted.sum((1, 2, 3)), contribution.sum((1, 2, 3)))
    assert not shifted[contribution == 0].any()


def test_a_sum_is_split_in_proportion() -> None:
    first, second = torch.tensor([3.0, 1.0]), torch.tensor([1.0, -1.0])
    parts = split_sum(first, second, torch.tensor([8.0, 5.0]))
    assert [part.tolist() for part in parts] == [pytest.approx([6.0, 0.0]), pytest.approx([2.0, 0.0])]


def test_two_factors_are_the_ridge_fit_of_every_pixel() -> None:
    """The specification's formula, pixel by pixel."""
    values, contribution = drawn(2, 4, 3, 5), drawn(2, 4, 3, 5, seed=4)
    fitted = two_factors(values, contribution, RuleOptions())
    for image in range(2):
        features = torch.sigmoid(10 * values[image] / values[image].abs().max()).reshape(4, 15)
        side = contribution[image].mean(0).reshape(15)
        means = torch.stack([features[:, side < 0].mean(1), features[:, side > 0].mean(1)], dim=1)
        for pixel in range(15):
            weights = torch.linalg.inv(means.T @ means + torch.eye(2, dtype=DOUBLE)) @ means.T @ features[:, pixel]
            expected = max(0.0, max(0.0, float(weights[1])) - max(0.0, float(weights[0])))
            assert float(fitted[image, 0].flatten()[pixel]) == pytest.approx(expected, abs=1e-6)


def test_the_start_is_the_gradient_of_the_raised_softmax() -> None:
    layer, features = nn.Linear(6, 4).double(), drawn(1, 6)
    relevance, gradient = start_relevance(layer, features, torch.tensor([2]))

    def probability(values: Tensor) -> Tensor:
        logits = layer(values)[0].detach()
        near = torch.exp(-0.5 * ((logits - logits[2]) / (logits - logits[2]).abs().max()) ** 2)
        return torch.softmax(logits[2] * near, 0)[2]

    for place in range(6):
        step = torch.zeros(1, 6, dtype=DOUBLE)
        step[0, place] = 1e-6
        slope = (probability(features + step) - probability(features - step)) / 2e-6
        assert float(gradient[0, place]) == pytest.approx(float(slope), abs=1e-7)
    torch.testing.assert_close(relevance, features * gradient)


def dense(weight: Tensor, size: int, padding: int) -> Tensor:
    """A convolution as a matrix: one column per input value."""
    count = weight.shape[1] * size * size
    basis = torch.eye(count, dtype=DOUBLE).reshape(count, weight.shape[1], size, size)
    return F.conv2d(basis, weight, padding=padding).reshape(count, -1).T


def test_without_residuals_it_is_lrp_0_on_absolute_values() -> None:
    """An independent LRP: every layer a matrix, R_j = sum_i |a_j w_ij| R_i / sum_k |a_k w_ik|."""
    net, size = small_net(), 6
    image = drawn(1, 3, size, size, seed=5)
    first, second, last = net[0], net[2], net[6]
    assert isinstance(first, nn.Conv2d)
    assert isinstance(second, nn.Conv2d)
    assert isinstance(last, nn.Linear)
    low = net[1](first(image)).detach().reshape(-1)
    high = net[3](second(low.reshape(1, 4, size, size))).detach()
    features = high.mean((2, 3))
    relevance = start_relevance(last, features, torch.tensor([1]))[0]
    pooled = high / size**2
    relevance = (pooled * safe_divide(relevance, pooled.sum((2, 3)))[:, :, None, None]).reshape(-1)
    matrix = dense(second.weight.detach().abs(), size, 1)
    shares = torch.tensor([0.0 if z == 0 else float(r / z) for r, z in zip(relevance, matrix @ low.abs(), strict=True)])
    expected = low.abs() * (matrix.T @ shares.double())

    low_maps = low.reshape(1, 4, size, size)
    ours = propagate(
        lambda values: F.conv2d(values, second.weight.abs(), padding=1),
        low_maps.abs(),
        relevance.reshape(1, 5, size, size),
    )
    torch.testing.assert_close(ours.reshape(-1), expected, rtol=1e-6, atol=1e-12)
    none = RuleOptions(frozenset())
    carried, _ = factorised_relevance(
        second, low_maps, relevance.reshape(1, 5, size, size), drawn(1, 5, size, size), none
    )
    torch.testing.assert_close(carried.reshape(-1), expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(
    "terms", [("activation",), ("gradient",), ("input_gradient",), ("agnostic",), ("grad_cam",), ()]
)
def test_every_term_changes_the_map(terms: tuple[str, ...]) -> None:
    net, images = small_net().float(), images_like(2, 3, (24, 24), seed=2)
    whole = bind_method("agf", net).explain(images, 1).maps
    part = bind_method("agf", net, terms=terms).explain(images, 1).maps
    assert not torch.allclose(whole, part, atol=1e-4)


def test_an_image_s_map_does_not_depend_on_the_batch() -> None:
    net, images = small_net().float(), images_like(3, 3, (24, 24), seed=2)
    together = bind_method("agf", net).signed(images, torch.tensor([0, 1, 2]))
    alone = bind_method("agf", net).signed(images[1:2], torch.tensor([1]))
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)


def test_residual_networks_that_add_in_place_give_the_same_map() -> None:
    torch.manual_seed(0)
    net, images = resnet18(num_classes=4).eval(), images_like(1, 3, (64, 64), seed=2)
    method = bind_method("agf", net)
    first = method.signed(images, torch.tensor([1]))
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    torch.testing.assert_close(bind_method("agf", net).signed(images, torch.tensor([1])), first, rtol=1e-4, atol=1e-5)
    assert 0.05 < float((first > 0).float().mean()) < 0.95
    other = method.signed(images, torch.tensor([2]))
    assert float(((first > 0) != (other > 0)).float().mean()) > 0.02


def test_a_network_that_concatenates_is_refused_by_the_operation() -> None:
    with pytest.raises(ModelError, match=r"agf has no rule for the operation cat"):
        bind_method("agf", densenet121())


def test_a_network_that_cannot_be_walked_is_refused() -> None:
    with pytest.raises(ModelError, match=r"agf (has no rule for|carries relevance)"):
        bind_method("agf", VisionTransformer(24, 8, 2, 2, 16, 32, num_classes=3))


def test_unknown_terms_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"terms must be of activation, .*, got 'residual'"):
        bind_method("agf", small_net(), terms=("residual",))
