"""AGF from end to end against the specification's formulas, written once more without a graph, on networks of VGG's and ResNet's kinds."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F
from heatlas.engine.methods.agf import AGF
from heatlas.engine.methods.registry import bind_method
from heatlas.engine.relevance import walk
from heatlas.engine.relevance.rules import start_relevance
from heatlas.errors import ModelError
from torch import Tensor, nn
from torchvision.models import squeezenet1_1

from ..support.oracle_nets import images_like

TERMS = ("activation", "gradient", "input_gradient", "agnostic")


class Residual(nn.Module):
    """relu(main(x) + shortcut(x))."""

    def __init__(self, main: nn.Sequential, shortcut: nn.Module):
        super().__init__()
        self.main, self.shortcut, self.relu = main, shortcut, nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.main(x) + self.shortcut(x))


def conv(before: int, after: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, kernel, stride, padding=kernel // 2, groups=groups)


def vgg() -> nn.Sequential:
    return nn.Sequential(
        conv(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), conv(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), conv(6, 6, 3), nn.ReLU(),
        nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 9), nn.ReLU(), nn.Dropout(), nn.Linear(9, 4),
    )  # fmt: skip


def basic() -> nn.Sequential:
    return nn.Sequential(
        conv(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        Residual(nn.Sequential(conv(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), conv(4, 4, 3), nn.BatchNorm2d(4)), nn.Identity()),
        Residual(
            nn.Sequential(conv(4, 6, 3, 2), nn.BatchNorm2d(6), nn.ReLU(), conv(6, 6, 3), nn.BatchNorm2d(6)),
            nn.Sequential(conv(4, 6, 1, 2), nn.BatchNorm2d(6)),
        ),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4),
    )  # fmt: skip


def bottleneck() -> nn.Sequential:
    main = [conv(4, 3, 1), nn.BatchNorm2d(3), nn.ReLU(), conv(3, 3, 3, 2, 3), nn.BatchNorm2d(3), nn.ReLU(), conv(3, 6, 1), nn.BatchNorm2d(6)]  # fmt: skip
    return nn.Sequential(
        conv(3, 4, 3), nn.ReLU(), Residual(nn.Sequential(*main), nn.Sequential(conv(4, 6, 1, 2), nn.BatchNorm2d(6))),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4),
    )  # fmt: skip


NETS = {"vgg": vgg, "basic": basic, "bottleneck": bottleneck}


def drawn(kind: str) -> nn.Sequential:
    """Weights, biases and running statistics that are none of them 0 or 1."""
    torch.manual_seed(7)
    model = NETS[kind]().double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.running_var):
                nn.init.uniform_(values, 0.5, 1.5)  # pyright: ignore[reportArgumentType]
            for values in (module.bias, module.running_mean):
                nn.init.normal_(values, std=0.2)  # pyright: ignore[reportArgumentType]
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.5)
    return model


def over(values: Tensor, by: Tensor) -> Tensor:
    return torch.where(by == 0, torch.zeros_like(values), values / torch.where(by == 0, torch.ones_like(by), by))


def backwards(layer, values: Tensor, cotangent: Tensor) -> Tensor:
    point = values.detach().requires_grad_()
    return torch.autograd.grad((layer(point) * cotangent).sum(), point)[0]


def prop(layer, values: Tensor, phi: Tensor) -> Tensor:
    """u * d<Z, phi / Z> / du, Z the layer's output where phi is not 0."""
    z = layer(values).detach() * (phi != 0)
    return values * backwards(layer, values, over(phi, z))


def strongest(values: Tensor) -> Tensor:
    return over(values, values.abs().max())


def factors(values: Tensor, contribution: Tensor) -> Tensor:
    """F of one image, with a loop over the pixels."""
    features = torch.sigmoid(10 * strongest(values))[0]
    side = contribution.mean(1)[0]
    columns = [
        (features * mask).sum((1, 2)) / max(1, int(mask.sum())) for mask in ((side < 0).double(), (side > 0).double())
    ]
    both = torch.stack(columns, dim=1)
    inverse = torch.linalg.inv(both.T @ both + torch.eye(2, dtype=both.dtype))
    result = torch.zeros(side.shape, dtype=both.dtype)
    for row in range(side.shape[0]):
        for column in range(side.shape[1]):
            negative, positive = (inverse @ both.T @ features[:, row, column]).clamp(min=0)
            result[row, column] = max(0.0, float(positive - negative))
    return result[None, None]


def shifted(contribution: Tensor, residual: Tensor) -> Tensor:
    there = contribution != 0
    return contribution + (residual - residual[there].sum() / there.sum()) * there


def through(layer: nn.Module, x: Tensor, phi: Tensor, g: Tensor, terms: tuple[str, ...], flat: bool) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Relevance and gradient at the input of one layer of one image."""
    if isinstance(layer, nn.Sequential):
        given = [x]
        for each in list(layer)[:-1]:
            given.append(each(given[-1]).detach())
        last = max(place for place, each in enumerate(layer) if isinstance(each, nn.Conv2d | nn.Linear))
        for place in reversed(range(len(layer))):
            phi, g = through(layer[place], given[place], phi, g, terms, flat and place == last)
        return phi, g
    if isinstance(layer, Residual):
        first, second = layer.main(x).detach(), layer.shortcut(x).detach()
        total = first + second
        phi, g = prop(F.relu, total, phi), backwards(F.relu, total, g)
        parts = [
            through(branch, x, part * over(phi, total), g, terms, flat=True)
            for branch, part in ((layer.main, first), (layer.shortcut, second))
        ]
        return x * (over(parts[0][0], x) + over(parts[1][0], x)), parts[0][1] + parts[1][1]
    if isinstance(layer, nn.Identity | nn.Dropout):
        return phi, g
    if isinstance(layer, nn.BatchNorm2d):
        return phi, backwards(layer, x, g)
    if isinstance(layer, nn.Flatten):
        return phi.reshape(x.shape), g.reshape(x.shape)
    if isinstance(layer, nn.Linear):
        return prop(lambda u: u @ layer.weight.abs().T, x.abs(), phi), backwards(layer, x, g)
    if not isinstance(layer, nn.Conv2d):
        return prop(layer, x, phi), backwards(layer, x, g)

    def absolute(u: Tensor) -> Tensor:
        return F.conv2d(u, layer.weight.abs(), None, layer.stride, layer.padding, 1, layer.groups)

    contribution, pulled = prop(absolute, x.abs(), phi), backwards(layer, x, g)
    if flat or layer.kernel_size == (1, 1):
        return contribution, pulled
    masked = backwards(lambda u: layer(u) * (phi != 0), x, g)
    ours = {
        "activation": lambda: factors(x, contribution) * contribution.sigmoid(),
        "input_gradient": lambda: strongest((x * pulled).mean(1, keepdim=True).relu()) * contribution.sigmoid(),
        "gradient": lambda: factors(masked, contribution).expand_as(x),
        "agnostic": lambda: prop(absolute, torch.ones_like(x), phi),
        "grad_cam": lambda: (
            (x * pulled.mean((2, 3), keepdim=True)).mean(1, keepdim=True).relu() * contribution.sigmoid()
        ),
    }
    parts = [ours[term]() for term in terms]
    return (shifted(contribution, sum(parts)) if parts else contribution), pulled  # pyright: ignore[reportArgumentType]


def first_convolution(layer: nn.Conv2d, x: Tensor, phi: Tensor) -> Tensor:
    """z^B: x w - low w+ - high w-, shared in proportion."""
    total, parts = 0, []
    for sign, values, weight in (
        (1, x, layer.weight), (-1, torch.full_like(x, float(x.min())), layer.weight.clamp(min=0)),
        (-1, torch.full_like(x, float(x.max())), layer.weight.clamp(max=0)),
    ):  # fmt: skip

        def of(u: Tensor, weight: Tensor = weight) -> Tensor:
            return F.conv2d(u, weight, None, layer.stride, layer.padding)

        total = total + sign * of(values).detach()
        parts.append((sign, of, values))
    shares = over(phi, total)  # pyright: ignore[reportArgumentType]
    return torch.stack([sign * values * backwards(of, values, shares) for sign, of, values in parts]).sum(0)


def oracle(model: nn.Sequential, image: Tensor, target: int, terms: tuple[str, ...]) -> Tensor:
    """The signed map `(height, width)` of one image."""
    given = [image[None]]
    for layer in model:
        given.append(layer(given[-1]).detach())
    head, features = model[-1], given[-2].requires_grad_()
    logits = head(features)
    away = logits - logits[:, target]
    near = torch.exp(-0.5 * (away / away.abs().max()) ** 2)
    (g,) = torch.autograd.grad(torch.softmax(logits[:, target] * near, 1)[0, target], features)
    phi = (features * g).detach()
    for place in reversed(range(1, len(model) - 1)):
        layer, x = model[place], given[place].detach()
        flattened = isinstance(layer, nn.Linear) and isinstance(model[place - 1], nn.Flatten)
        phi, g = through(layer, x, phi, g, terms, flat=False)
        maps = given[place - 1].detach()
        if flattened and "input_gradient" in terms and maps.shape[2] * maps.shape[3] > 1:
            residual = strongest((maps * g.reshape(maps.shape)).mean(1, keepdim=True).relu()).expand_as(maps)
            phi = shifted(phi, residual.reshape(phi.shape))
    first = model[0]
    assert isinstance(first, nn.Conv2d)
    pixels = first_convolution(first, image[None], phi)
    return strongest(pixels).sum(1)[0].detach()


@pytest.mark.parametrize("terms", [TERMS, ("activation", "gradient"), ("grad_cam", "agnostic"), ()])
@pytest.mark.parametrize("kind", NETS)
def test_the_map_is_the_specification_s(kind: str, terms: tuple[str, ...]) -> None:
    model, images = drawn(kind), images_like(3, 3, (16, 20), seed=4).double()
    targets = torch.tensor([2, 0, 3])
    ours = AGF(model, terms=terms).signed(images, targets)
    for row, (image, target) in enumerate(zip(images, targets.tolist(), strict=True)):
        expected = oracle(model, image, target, terms)
        assert float(expected.abs().max()) > 0.5
        torch.testing.assert_close(ours[row], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", NETS)
def test_as_released_values_are_divided_by_their_maximum(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = drawn(kind), images_like(2, 3, (16, 20), seed=4).double()
    ours = AGF(model, norm="max").signed(images, torch.tensor([2, 0]))
    monkeypatch.setattr(sys.modules[__name__], "strongest", lambda values: over(values, values.max()))
    for row, target in enumerate((2, 0)):
        torch.testing.assert_close(ours[row], oracle(model, images[row], target, TERMS), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("terms", [TERMS, ()])
@pytest.mark.parametrize("kind", NETS)
def test_the_total_at_the_start_arrives_at_the_image(
    kind: str, terms: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every rule keeps the sum where a layer is given something else than zeros, and the shifts of the residuals add up to 0."""
    model, image = drawn(kind), images_like(1, 3, (16, 20), seed=4).double()
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d) and module.bias is not None:
            module.bias.data += (
                2  # no patch of zeros: of such a patch the outputs are the bias alone, which takes no relevance
            )
    monkeypatch.setattr(walk, "normalised", lambda values, *, signed_maximum: values)
    pixels = AGF(model, terms=terms).signed(image, torch.tensor([1]))
    with torch.no_grad():
        features = model[:-1](image)
    start = start_relevance(model[-1], features, torch.tensor([1]))[0]
    size = float(pixels.abs().sum())
    assert abs(float(start.sum())) > 1e-4
    assert float(pixels.sum()) == pytest.approx(float(start.sum()), abs=1e-5 * size)


def test_a_model_in_double_precision_is_explained_in_it() -> None:
    model, images = drawn("basic"), images_like(2, 3, (16, 20), seed=4).double()
    result = bind_method("agf", model).explain(images)
    assert result.statuses == ["ok", "ok"]
    single = bind_method("agf", drawn("basic").float()).explain(images.float())
    torch.testing.assert_close(result.maps.float(), single.maps, rtol=1e-2, atol=1e-3)


class Averaged(nn.Sequential):
    """The maps' mean by a method call in the place of a pool and a flattening, as MNASNet has it."""

    def forward(self, input: Tensor) -> Tensor:
        for layer in list(self)[:-3]:
            input = layer(input)
        return self[-1](input.mean([2, 3]))


def test_a_mean_is_a_pool_over_everything() -> None:
    model, images = drawn("basic"), images_like(2, 3, (16, 20), seed=4).double()
    pooled = AGF(model).signed(images, torch.tensor([1, 2]))
    torch.testing.assert_close(AGF(Averaged(*model)).signed(images, torch.tensor([1, 2])), pooled, rtol=1e-4, atol=1e-5)


def test_one_logit_has_no_other_class_to_be_told_from() -> None:
    with pytest.raises(ModelError, match=r"the model has one logit, whose share is always 1"):
        AGF(nn.Sequential(conv(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1)))


def test_squeezenet_is_refused_by_what_it_does() -> None:
    with pytest.raises(ModelError, match="agf has no rule for the operation cat"):
        AGF(squeezenet1_1(num_classes=3))
