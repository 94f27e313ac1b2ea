"""The explainer network: golden vectors of the filter loss, masks, norms, the split of a classifier, and what is read of an image."""

from __future__ import annotations

import pytest
import torch
from heatlas.engine.training.model_split import split_model
from heatlas.engine.training.part_encoder import ActivationNorm, PartEncoder
from heatlas.engine.training.part_network import PartNetwork
from heatlas.engine.training.part_readout import feature_norms, part_places, read_parts
from heatlas.engine.training.part_settings import PartSettings
from heatlas.engine.training.part_step import random_crops
from heatlas.engine.training.part_templates import filter_losses, information_bound, part_masks, templates
from heatlas.errors import ModelError, SettingsError
from torch import nn


def spikes(*places: tuple[int, int] | None, height: float = 90.0, side: int = 3) -> torch.Tensor:
    """Maps of one filter, each with one spike or none."""
    maps = torch.zeros(len(places), 1, side, side, dtype=torch.float64)
    for number, place in enumerate(places):
        if place is not None:
            maps[number, 0, place[0], place[1]] = height
    return maps


def test_the_centre_template_is_the_specified_one() -> None:
    shapes = templates(3, 3) * 18
    third = -1 / 3
    wanted = torch.tensor([[-1, third, -1], [third, 1, third], [-1, third, -1]])
    assert torch.allclose(shapes[4], wanted)
    assert torch.equal(shapes[9], -torch.ones(3, 3))
    assert len(shapes) == 10


@pytest.mark.parametrize(
    ("maps", "loss"),
    [
        (spikes((0, 0), (2, 2), None), -0.5413020628),
        (spikes((0, 0), (2, 2), None, height=9.0), -0.0245323036),
        (spikes((1, 1), (1, 1), (1, 1)), 0.0),
        (spikes((0, 0), (2, 2), height=9000.0), -0.4158883083),
    ],
)
def test_golden_filter_losses(maps: torch.Tensor, loss: float) -> None:
    own = filter_losses(maps, templates(3, 3).double())
    assert own.item() == pytest.approx(loss, abs=2e-9)
    assert filter_losses(maps.flip(0), templates(3, 3).double()).item() == pytest.approx(loss, abs=2e-9)


def test_the_loss_stays_between_its_bounds() -> None:
    maps = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 1e4
    losses = filter_losses(maps, templates(4, 4))
    assert bool((losses <= 0).all())
    assert bool((losses >= -information_bound(5, 16) - 1e-5).all())
    assert filter_losses(torch.ones(4, 1, 3, 3), templates(3, 3)).item() == pytest.approx(0, abs=1e-7)


def test_the_gradient_is_the_exact_one() -> None:
    """Beside central differences and beside the closed form of the specification, which the code does not use."""
    shapes = templates(3, 3).double()
    maps = (
        torch.rand(4, 1, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 90
    ).requires_grad_()
    (gradient,) = torch.autograd.grad(filter_losses(maps, shapes).sum(), maps)
    step = 1e-3
    for place in range(maps.numel()):
        shifted = torch.zeros(maps.numel(), dtype=torch.float64)
        shifted[place] = step
        up, down = (filter_losses(maps.detach() + sign * shifted.view_as(maps), shapes).sum() for sign in (1, -1))
        assert abs(gradient.flatten()[place] - (up - down) / (2 * step)) < 1e-11
    given = torch.einsum("bhw,thw->bt", maps.detach()[:, 0], shapes).softmax(dim=0)
    share = 1 / len(shapes)
    ratio = (given / (share * given.sum(dim=1, keepdim=True))).log()
    divergence = (given * ratio).sum(dim=0)
    closed = -share * torch.einsum("thw,bt->bhw", shapes, given * (ratio - divergence))
    assert torch.allclose(gradient[:, 0], closed, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("side", "kept"), [(14, 25), (7, 5), (1, 1)])
def test_masks_keep_a_quarter_of_the_side(side: int, kept: int) -> None:
    maps = torch.zeros(2, 1, side, side)
    maps[0, 0, side // 2, side // 2] = 3
    maps.requires_grad_()
    masks = part_masks(maps)
    assert int((masks[0] > 0).sum()) == kept
    assert masks.max() == 1
    assert not bool(masks[1].any()), "a filter that sees nothing has no position"
    assert not masks.requires_grad


def test_norms_bring_every_live_channel_to_one() -> None:
    norm, generator = ActivationNorm(3), torch.Generator().manual_seed(0)
    factors = torch.tensor([0.01, 5.0, 0.0])[:, None, None]
    for _ in range(200):
        norm(torch.rand(8, 3, 4, 4, generator=generator) * factors)
    assert norm.eval()(torch.rand(2000, 3, 4, 4, generator=generator) * factors)[:, :2].mean(
        dim=(0, 2, 3)
    ).tolist() == pytest.approx([1, 1], abs=0.05)
    assert norm.dead.tolist() == [False, False, True]
    before = norm.running.mean.clone()
    assert not bool(norm(torch.ones(1, 3, 2, 2) * 9)[:, 2].any()), "a dead channel stays 0"
    assert torch.equal(norm.running.mean, before)


def small_model(signed: bool = False, hidden: bool = False) -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(1, 4, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, 1, 1)]
    layers += [] if signed else [nn.ReLU()]
    layers += [nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, 1, 1), nn.ReLU()]
    if hidden:
        layers += [nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 4, 10), nn.ReLU(), nn.Dropout(), nn.Linear(10, 5)]
    else:
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)]
    return nn.Sequential(*layers).eval().requires_grad_(False)


def exact_network(model: nn.Module, layer: str | None, images: torch.Tensor) -> tuple[PartNetwork, object]:
    """Convolutions that are the identity, masks off: what the network rebuilds must be what there was."""
    split = split_model(model, images[0], layer)
    network = PartNetwork(split)
    network.encoder.masked = False
    with torch.no_grad():
        for convolution in (network.encoder.first, network.encoder.second, network.encoder.rest):
            nn.init.dirac_(convolution.weight)
    network.calibrate(split.read(images)[0])
    return network.eval(), split


@pytest.mark.parametrize(
    ("signed", "hidden", "layer"),
    [(False, False, None), (True, False, "3"), (False, True, None), (False, False, "7"), (False, False, "4")],
)
def test_before_training_the_features_are_rebuilt_exactly(signed: bool, hidden: bool, layer: str | None) -> None:
    model, images = small_model(signed, hidden), torch.rand(6, 1, 16, 16)
    network, split = exact_network(model, layer, images)
    assert split.signed == signed
    assert split.hidden == hidden
    maps, features, logits = split.read(images)
    assert torch.allclose(logits, model(images))
    own_features, own_logits = network.decode(network.encode(maps).mixed)
    assert torch.allclose(own_logits, logits, atol=1e-5)
    for own, wanted in zip(own_features, features, strict=True):
        assert (own - wanted).square().sum() / wanted.square().sum() < 1e-6


def test_layers_that_are_passed_by_and_models_that_cannot_be_cut_are_refused() -> None:
    class Bypassed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Conv2d(1, 2, 3, 2, 1)
            self.fc = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(torch.cat([self.inner(x).mean(dim=(2, 3)), x.mean(dim=(2, 3))], dim=1))

    class Branching(Bypassed):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x if x.sum() > 0 else -x)

    image = torch.rand(1, 8, 8)
    with pytest.raises(ModelError, match="reads the image past it"):
        split_model(Bypassed(), image, "inner")
    with pytest.raises(ModelError, match=r"torch\.fx cannot trace the model"):
        split_model(Branching(), image, "inner")
    with pytest.raises(ModelError, match="no layer 'iner'; did you mean 'inner'"):
        split_model(Bypassed(), image, "iner")


def test_contributions_and_the_rest_are_all_there_is() -> None:
    model, images = small_model(), torch.rand(5, 1, 16, 16)
    split = split_model(model, images[0], "4")
    network = PartNetwork(split)
    network.calibrate(split.read(images)[0])
    network.eval()
    read = read_parts(network, split, images, torch.tensor([0, 1, 2, -1, 4]), feature_norms(split, images))
    chosen = torch.where(torch.tensor([0, 1, 2, -1, 4]) < 0, read.logits.argmax(1), torch.tensor([0, 1, 2, -1, 4]))
    mixed = network.encode(split.read(images)[0]).mixed.detach().requires_grad_()
    network.decode(mixed)[1].gather(1, chosen[:, None]).sum().backward()
    assert mixed.grad is not None
    assert torch.allclose(read.contribution.sum(dim=1) + read.rest, (mixed.grad * mixed).sum(dim=(1, 2, 3)), atol=1e-5)
    assert bool(((read.part_share >= 0) & (read.part_share <= 1)).all())
    alone = [
        read_parts(network, split, images[n : n + 1], chosen[n : n + 1], feature_norms(split, images)) for n in range(5)
    ]
    for name in ("maps", "contribution", "strength", "error"):
        together = torch.cat([getattr(one, name) for one in alone])
        assert torch.allclose(together, getattr(read, name), atol=1e-5), f"{name} depends on the batch"


def test_places_are_centres_of_receptive_fields() -> None:
    """Beside the gradient of a cell, whose centre of mass is that of its receptive field."""
    model = nn.Sequential(nn.Conv2d(1, 1, 3, 2, 1), nn.MaxPool2d(2), nn.Conv2d(1, 1, 3, 1, 1)).double()
    with torch.no_grad():
        for convolution in (model[0], model[2]):
            nn.init.ones_(convolution.weight)
    classifier = nn.Sequential(*model, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2)).eval().float()
    split = split_model(classifier, torch.rand(1, 32, 32), "2")
    assert split.grid is not None
    images = torch.rand(4000, 1, 32, 32, requires_grad=True)
    split.front(images)[0][:, 0, 3, 4].sum().backward()
    assert images.grad is not None
    weight = images.grad.abs().mean(dim=(0, 1))
    axis = torch.arange(32.0)
    centre = [
        ((weight.sum(dim=1) * axis).sum() / weight.sum()).item(),
        ((weight.sum(dim=0) * axis).sum() / weight.sum()).item(),
    ]
    parts = torch.zeros(1, 1, 8, 8)
    parts[0, 0, 3, 4] = 1
    x, y = part_places(parts, split.grid, (32, 32))
    assert [y.item() * 32 - 0.5, x.item() * 32 - 0.5] == pytest.approx(centre, abs=0.1)
    assert part_places(parts * 0, split.grid, (32, 32))[0].isnan().all()


def test_black_images_and_dead_filters_give_numbers() -> None:
    model, images = small_model(), torch.zeros(3, 1, 16, 16)
    split = split_model(model, images[0], "4")
    network = PartNetwork(split)
    network.calibrate(split.read(images)[0] * 0)
    network.eval()
    read = read_parts(network, split, images, torch.zeros(3, dtype=torch.long), torch.ones(2))
    for name in ("maps", "strength", "contribution", "rest", "error"):
        assert bool(getattr(read, name).isfinite().all()), name


def test_p_goes_to_one_where_nothing_else_counts() -> None:
    encoder = PartEncoder(2)
    optimiser = torch.optim.Adam([encoder.weight], lr=0.5)
    for _ in range(60):
        optimiser.zero_grad()
        (-encoder.weight.sigmoid().log()).backward()
        optimiser.step()
    assert encoder.weight.sigmoid() > 0.99


def test_crops_follow_from_seed_and_step_alone() -> None:
    images = torch.rand(4, 1, 12, 12)
    assert torch.equal(random_crops(images, 0, 3), random_crops(images, 0, 3))
    assert not torch.equal(random_crops(images, 0, 3), random_crops(images, 0, 4))
    assert random_crops(images, 1, 0).min() >= images.min() - 1e-6


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"preset": "paperr"}, "preset must be one of robust, paper, got 'paperr'"),
        ({"eta": -1.0}, "eta must be at least 0, got -1"),
        ({"kept_parts": 0}, "kept_parts must be at least 1, got 0"),
        ({"layers": ("a", "b")}, "layers must name one layer for an explainer network, got 2"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        PartSettings(**change)
