"""What each term of the explainer network's loss is for, on images with one moving mark; writes a part of docs/training.md.

    python -m bench part_ablations [--seeds 3]

The classifier is a small random network, the mark the only part, and its centre the landmark of location instability. Every row is a training
with one thing changed, measured on 200 images that it was not trained on.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from heatlas.engine.training.instability import location_instability
from heatlas.engine.training.model_split import split_model
from heatlas.engine.training.part_network import PartNetwork
from heatlas.engine.training.part_readout import feature_norms, part_places, read_parts
from heatlas.engine.training.part_settings import PartSettings
from heatlas.engine.training.part_step import SHARPNESS, PartStep, part_optimiser
from heatlas.engine.training.part_templates import filter_losses, information_bound, templates
from torch import nn

from ..page_part import DOCS, machine, table, write_part

SIDE, MARK = 32, 4
"""Pixels of an image and of its mark."""
SHOWN, FRESH = 192, 200
"""Images of a training, and to measure on."""
IMAGES = 3840
"""That a training sees, repetitions counted."""
LAYER = "3"


@dataclass(frozen=True)
class Ablation:
    """A training with one thing changed."""

    name: str
    settings: PartSettings
    batch: int = 64


def changed(**settings: object) -> PartSettings:
    return PartSettings(**{"learning_rate": 3e-3, "augment": False, **settings})  # pyright: ignore[reportArgumentType]


ABLATIONS = (
    Ablation("robust", changed()),
    Ablation("without the filter loss", changed(filter_weight=0.0)),
    Ablation("filter weight 1 (0.1)", changed(filter_weight=1.0)),
    Ablation("eta 0 (0.1)", changed(eta=0.0)),
    Ablation("paper", changed(preset="paper")),
    Ablation("steps of 8 images (64)", changed(), 8),
    Ablation("steps of 8 images, a queue of 56", changed(filter_queue=56), 8),
)


def marked_images(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Dim noise with one bright mark at a random place; the mark's centre in [0, 1], x and y."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.1 * torch.rand(count, 1, SIDE, SIDE, generator=generator)
    corners = torch.randint(0, SIDE - MARK + 1, (count, 2), generator=generator)
    for image, (row, column) in zip(images, corners.tolist(), strict=True):
        image[0, row : row + MARK, column : column + MARK] = 1
    return images, (corners.flip(1) + MARK / 2) / SIDE


def classifier() -> nn.Module:
    """Twelve maps of a random network; a mark shows in several."""
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 12, 3, 1, 1), nn.ReLU(), nn.Conv2d(12, 12, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 3),
    )  # fmt: skip
    return model.eval().requires_grad_(False)


def measured(ablation: Ablation, seed: int) -> tuple[float, ...]:
    """Instability, information as a share of its bound, relative error, p."""
    model, (images, _) = classifier(), marked_images(SHOWN, seed)
    split = split_model(model, images[0], LAYER)
    torch.manual_seed(seed)
    network, steps = PartNetwork(split), IMAGES // ablation.batch
    step = PartStep(network, split, ablation.settings, steps, seed)
    network.calibrate(split.read(images)[0])
    optimiser, schedule = part_optimiser(network, ablation.settings, steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        loss, _ = step(images[torch.randint(0, SHOWN, (ablation.batch,), generator=generator)])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    fresh, places = marked_images(FRESH, 1000)
    read = read_parts(network.eval(), split, fresh, torch.full((FRESH,), -1), feature_norms(split, images))
    with torch.no_grad():
        parts = network.encode(split.read(fresh)[0]).parts
    share = network.encoder.weight.detach().sigmoid().item()
    return (
        unsteadiness(read.x, read.y, read.strength, places), information(parts), read.error.mean().item(), share,
    )  # fmt: skip


def of_classifier() -> tuple[float, ...]:
    """Instability and information of the classifier's own channels."""
    fresh, places = marked_images(FRESH, 1000)
    split = split_model(classifier(), fresh[0], LAYER)
    maps = split.read(fresh)[0]
    x, y = part_places(maps, split.grid, (SIDE, SIDE))
    return unsteadiness(x, y, maps.amax(dim=(2, 3)), places), information(maps)


def unsteadiness(x: torch.Tensor, y: torch.Tensor, peaks: torch.Tensor, places: torch.Tensor) -> float:
    """Location instability, mean over filters."""
    return location_instability(torch.stack([x, y], dim=2), peaks, places[:, None]).nanmean().item()


def information(maps: torch.Tensor) -> float:
    """Minus the filter loss as a share of its bound, mean over filters, maps over their mean peak as `robust` has them."""
    height, width = maps.shape[2:]
    peaks = maps.amax(dim=(2, 3)).mean(dim=0).clamp(min=1e-6)[:, None, None]
    scaled = maps / peaks * (SHARPNESS * height * width)
    return -filter_losses(scaled, templates(height, width)).mean().item() / information_bound(len(maps), height * width)


def cells(values: Iterable[tuple[float, ...]], digits: tuple[int, ...]) -> list[str]:
    """Mean over seeds, and the least and the most."""
    columns = np.array(list(values)).T
    return [
        f"{column.mean():.{places}f} ({column.min():.{places}f} to {column.max():.{places}f})"
        for column, places in zip(columns, digits, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    seeds = parser.parse_args().seeds
    torch.set_num_threads(1)
    own = of_classifier()
    rows = [["the classifier's own channels", f"{own[0]:.4f}", f"{own[1]:.2f}", "-", "-"]]
    for ablation in ABLATIONS:
        rows.append([ablation.name, *cells((measured(ablation, seed) for seed in range(seeds)), (4, 2, 3, 2))])
        print(" | ".join(rows[-1]), flush=True)
    text = [
        f"Images of {SIDE} x {SIDE} pixels with one moving mark, a random network of 12 channels, {IMAGES:,} images seen in every training; mean "
        f"over {seeds} seeds (least to most), on {FRESH} other images. `python -m bench part_ablations`, {machine()}.",
        "",
        *table(("training", "location instability", "information, share of its bound", "relative error", "p"), rows),
    ]
    write_part(DOCS / "training.md", "part ablations", "\n".join(text))


if __name__ == "__main__":
    main()
