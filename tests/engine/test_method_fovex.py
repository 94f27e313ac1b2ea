"""FovEx: a slow search over one image after the other, and that no image's path depends on another's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from heatlas.engine.fill import gaussian_blur
from heatlas.engine.methods import fovex
from heatlas.engine.methods.fovex import FovEx
from heatlas.engine.methods.registry import settings_class
from heatlas.engine.random import sample_generator
from heatlas.errors import SettingsError
from torch import Tensor, nn

from ..support.oracle_nets import images_like, three_blocks

SIZE = (24, 30)
TARGETS = torch.tensor([3, 0, 9])
SEEDS = (11, 5, 7)
FovexSettings = settings_class("fovex")
SHORT = FovexSettings(fixations=3, steps=6)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return three_blocks(0, size=SIZE).double()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return images_like(3, 3, SIZE, seed=1).double()


def slow(net: nn.Module, image: Tensor, target: int, seed: int, settings: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Map, fixations and losses of one image, as the specification tells it."""
    draws = torch.rand(settings.fixations, settings.steps, 2, generator=sample_generator(0, seed, "fovex")) * 2 - 1
    offset = gaussian_blur(image[None], 10.0, 41)[0] - image
    memory = torch.zeros(SIZE, dtype=torch.float64)
    map_ = torch.zeros(SIZE, dtype=torch.float64)
    path, losses = [], []

    def fovea(x: Tensor, y: Tensor) -> Tensor:
        rows = torch.linspace(-1, 1, SIZE[0], dtype=torch.float64)[:, None]
        columns = torch.linspace(-1, 1, SIZE[1], dtype=torch.float64)[None, :]
        return torch.exp(-((columns - x) ** 2 + (rows - y) ** 2) / settings.fovea)

    for fixation in range(settings.fixations):
        place, lowest, best = torch.zeros(2, dtype=torch.float64), float("inf"), None
        for step in range(settings.steps):
            place = place.detach().requires_grad_()
            shown = image + offset * torch.clip(1 - (memory + fovea(place[0], place[1])), 0, 1)
            loss = F.cross_entropy(net(shown[None]), torch.tensor([target]))
            moved = (place - settings.step_size * torch.sign(torch.autograd.grad(loss, place)[0])).detach()
            if float(loss.detach()) < lowest:
                lowest, best = float(loss.detach()), moved if settings.best_after_step else place.detach()
            elif settings.random_restart:
                moved = draws[fixation, step].double()
            place = moved
        assert best is not None
        memory = settings.memory * memory + fovea(best[0], best[1])
        map_ += fovea(best[0], best[1])
        path.append(best)
        losses.append(lowest)
    map_ = (map_ - map_.min()) / (map_.max() - map_.min())
    return map_, torch.stack(path), torch.tensor(losses)


@pytest.mark.parametrize(
    "settings",
    [
        SHORT,
        FovexSettings(fixations=2, steps=5, random_restart=False),
        FovexSettings(fixations=2, steps=5, best_after_step=True, memory=0.5),
    ],
    ids=["default", "without restart", "as released"],
)
def test_the_search_is_the_specifications(net: nn.Module, images: Tensor, settings: Any) -> None:
    result = FovEx(net, **vars(settings)).maps(images, TARGETS, SEEDS)
    for number in range(3):
        map_, path, losses = slow(net, images[number], int(TARGETS[number]), SEEDS[number], settings)
        torch.testing.assert_close(result.extras["fixations"][number], path.float())
        torch.testing.assert_close(result.extras["fixation_losses"][number], losses.float())
        torch.testing.assert_close(result.maps[number], map_.float(), atol=1e-6, rtol=1e-5)


def test_paths_depend_on_the_image_and_its_seed_alone(net: nn.Module, images: Tensor) -> None:
    method = FovEx(net, **vars(SHORT))
    forth = method.maps(images, TARGETS, SEEDS)
    back = method.maps(images.flip(0), TARGETS.flip(0), SEEDS[::-1])
    alone = method.maps(images[1:2], TARGETS[1:2], SEEDS[1:2])
    assert torch.equal(forth.extras["fixations"], back.extras["fixations"].flip(0))
    assert torch.equal(forth.extras["fixations"][1], alone.extras["fixations"][0])
    same_image = method.maps(images[:1].expand(8, -1, -1, -1), TARGETS[:1].expand(8), range(8))
    assert len({tuple(path.flatten().tolist()) for path in same_image.extras["fixations"]}) > 1


def test_the_loss_of_a_fixation_is_that_of_its_place(net: nn.Module, images: Tensor) -> None:
    result = FovEx(net, **vars(FovexSettings(fixations=1, steps=6))).maps(images, TARGETS, SEEDS)
    place = result.extras["fixations"][:, 0].double()
    rows, columns = (torch.linspace(-1, 1, side, dtype=torch.float64) for side in SIZE)
    distance = (rows[None, :, None] - place[:, 1, None, None]) ** 2 + (columns - place[:, 0, None, None]) ** 2
    offset = gaussian_blur(images, 10.0, 41) - images
    shown = images + offset * (1 - (-distance / 0.15).exp())[:, None]
    losses = F.cross_entropy(net(shown), TARGETS, reduction="none")
    torch.testing.assert_close(result.extras["fixation_losses"][:, 0], losses.detach().float())


def test_an_image_that_breaks_breaks_alone(net: nn.Module, images: Tensor) -> None:
    whole = FovEx(net, **vars(SHORT)).maps(images, TARGETS, SEEDS)
    broken = images.clone()
    broken[1, 0, 0, 0] = torch.inf
    result = FovEx(net, **vars(SHORT)).maps(broken, TARGETS, SEEDS)
    assert result.maps[1].isnan().all()
    assert torch.equal(result.maps[[0, 2]], whole.maps[[0, 2]])


def test_it_costs_what_it_says(net: nn.Module, images: Tensor) -> None:
    rows: list[int] = []
    handle = net.register_forward_hook(lambda module, args, output: rows.append(len(output)))
    result = FovEx(net, **vars(SHORT)).maps(images, TARGETS, SEEDS)
    handle.remove()
    assert sum(rows) == 3 * result.cost.forwards
    assert result.cost == fovex.cost(SHORT)
    assert fovex.cost(FovexSettings()).forwards == fovex.cost(FovexSettings()).backwards == 200


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"fixations": 0}, "fixations must be at least 1"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"step_size": 0.0}, "step_size must be above 0"),
        ({"fovea": -1.0}, "fovea must be above 0"),
        ({"memory": 1.5}, r"memory must be in \[0, 1\]"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict, text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        FovexSettings(**changes)
