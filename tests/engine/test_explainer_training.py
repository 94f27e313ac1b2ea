"""Training of an explainer network on images with one moving mark: what it learns, what each term of the loss is for, and the loss's queue."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from heatlas.engine.training.instability import location_instability
from heatlas.engine.training.model_split import ModelSplit, split_model
from heatlas.engine.training.part_network import PartNetwork
from heatlas.engine.training.part_readout import PartReadout, feature_norms, part_places, read_parts
from heatlas.engine.training.part_settings import PartSettings
from heatlas.engine.training.part_step import PartStep, part_optimiser
from heatlas.engine.training.part_templates import filter_losses, filter_scores, score_losses, templates
from heatlas.engine.training.trained_parts import TrainedParts
from torch import nn


def marked_images(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Dim noise with one bright mark of 4 x 4 at a random place; the mark's centre in [0, 1], x and y."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.1 * torch.rand(count, 1, 32, 32, generator=generator)
    corners = torch.randint(0, 29, (count, 2), generator=generator)
    for image, (row, column) in zip(images, corners.tolist(), strict=True):
        image[0, row : row + 4, column : column + 4] = 1
    return images, (corners.flip(1) + 2) / 32


def mark_model() -> nn.Module:
    """Twelve maps of a random network; a mark shows in several."""
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 12, 3, 1, 1), nn.ReLU(), nn.Conv2d(12, 12, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 3),
    )  # fmt: skip
    return model.eval().requires_grad_(False)


@dataclass(frozen=True, eq=False)
class Trained:
    """An explainer network after training, and what it says of 100 images that it was not trained on."""

    model: nn.Module
    before: dict[str, torch.Tensor]
    """The classifier's weights before training."""
    split: ModelSplit
    network: PartNetwork
    terms: dict[str, torch.Tensor]
    """Of the last step."""
    read: PartReadout
    places: torch.Tensor
    """Of the marks."""
    fresh: torch.Tensor

    @property
    def instability(self) -> float:
        """Mean over the filters, the mark being the only part."""
        return unsteadiness(self.read.x, self.read.y, self.read.strength, self.places)

    @property
    def share(self) -> float:
        return self.network.encoder.weight.sigmoid().item()


@cache
def trained(
    preset: str = "robust", *, images: int = 96, batch: int = 32, steps: int = 60, filter_weight: float = 0.1, eta: float | None = None
) -> Trained:  # fmt: skip
    """On marked images, in order."""
    torch.set_num_threads(1)
    model = mark_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    shown, _ = marked_images(images, seed=0)
    split = split_model(model, shown[0], "3")
    torch.manual_seed(0)
    network = PartNetwork(split)
    settings = PartSettings(preset=preset, learning_rate=3e-3, augment=False, filter_weight=filter_weight, eta=eta)
    step = PartStep(network, split, settings, steps, seed=0)
    network.calibrate(split.read(shown)[0])
    optimiser, schedule = part_optimiser(network, settings, steps)
    terms: dict[str, torch.Tensor] = {}
    batches = shown.split(batch)
    for number in range(steps):
        loss, terms = step(batches[number % len(batches)])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    fresh, places = marked_images(100, seed=1)
    network.eval()
    read = read_parts(network, split, fresh, torch.full((100,), -1), feature_norms(split, shown))
    return Trained(model, before, split, network, terms, read, places, fresh)


def unsteadiness(x: torch.Tensor, y: torch.Tensor, peaks: torch.Tensor, places: torch.Tensor) -> float:
    return location_instability(torch.stack([x, y], dim=2), peaks, places[:, None]).nanmean().item()


@pytest.mark.parametrize("preset", ["robust", "paper"])
def test_a_filter_follows_a_moving_mark(preset: str) -> None:
    """The synthetic check: on images that were not trained on, some filter's place correlates with the mark's; the classifier stays as it is."""
    run = trained(preset)
    both = []
    for number in range(run.network.filters):
        x, y = run.read.x[:, number], run.read.y[:, number]
        if not bool(x.isnan().any()):
            both.append(min(correlation(x, run.places[:, 0]), correlation(y, run.places[:, 1])))
    assert max(both) > 0.95, sorted(both)
    assert float(run.terms["reconstruction"]) < 0.2
    assert all(torch.equal(value, run.before[name]) for name, value in run.model.state_dict().items())
    norms = tuple(feature_norms(run.split, run.fresh).tolist())
    again, _ = TrainedParts(run.network.state_dict(), run.split.layer, (0, 3), norms).over(run.model, run.fresh[0])
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in run.network.state_dict().items())


def test_thirty_two_images_can_be_learnt_by_heart() -> None:
    run = trained(images=32)
    assert float(run.terms["reconstruction"]) < 0.05
    assert float(run.terms["information"]) > 0.5


def test_the_filter_loss_makes_places_steady_and_eta_makes_parts_count() -> None:
    """Beside the classifier's own channels, and beside a training without each of the two terms."""
    whole = trained()
    maps = whole.split.read(whole.fresh)[0]
    x, y = part_places(maps, whole.split.grid, (32, 32))
    assert whole.instability < unsteadiness(x, y, maps.amax(dim=(2, 3)), whole.places)
    assert whole.instability < 0.7 * trained(filter_weight=0.0).instability
    assert whole.share > trained(eta=0.0).share + 0.1


def maps_of(count: int, seed: int) -> torch.Tensor:
    return 40 * torch.rand(count, 2, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_images_of_earlier_steps_count_as_if_they_were_of_this_one() -> None:
    """Values are those of one large batch; the gradient is that batch's for the maps of this step."""
    shapes = templates(3, 3).double()
    own, earlier = maps_of(4, 0).requires_grad_(), maps_of(5, 1).requires_grad_()
    together = filter_losses(torch.cat([own, earlier]), shapes)
    wanted, _ = torch.autograd.grad(together.sum(), [own, earlier])
    queued = filter_losses(own, shapes, filter_scores(earlier, shapes))
    assert torch.allclose(queued, together)
    got, none = torch.autograd.grad(queued.sum(), [own, earlier], allow_unused=True)
    assert torch.allclose(got, wanted, atol=1e-12)
    assert none is None
    assert torch.allclose(score_losses(filter_scores(own, shapes)), filter_losses(own, shapes))


def test_the_queue_keeps_the_newest_images_and_counts_in_training_alone() -> None:
    images, _ = marked_images(24, seed=0)
    split = split_model(mark_model(), images[0], "3")
    network = PartNetwork(split)
    network.calibrate(split.read(images)[0])
    settings = PartSettings(augment=False, filter_queue=10, filter_weight=1.0)
    step = PartStep(network, split, settings, 1, seed=0)
    kept = []
    for batch in images.split(8):
        step(batch)
        kept.append(step.queue.clone())
    assert int(step.queued) == 10
    assert torch.equal(kept[1][:, 8:], kept[0][:, :2]), "eight new ones before two of the step before"
    assert torch.equal(kept[2][:, 8:], kept[1][:, :2])
    step.eval()
    alone = PartStep(network, split, PartSettings(augment=False, filter_weight=1.0), 1, seed=0).eval()
    assert torch.equal(step(images)[0], alone(images)[0])
    assert torch.equal(step.queue, kept[2]), "nothing is put in while it is measured"
    assert "queue" not in network.state_dict(), "the explainer's file does not hold it"


def correlation(first: torch.Tensor, second: torch.Tensor) -> float:
    value = torch.corrcoef(torch.stack([first, second]))[0, 1].item()
    return -1.0 if math.isnan(value) else value
