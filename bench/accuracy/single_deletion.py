"""What `single_deletion_rho` says of a network before and after it has been fine-tuned on images with parts hidden.

    python -m bench single_deletion [--epochs 12] [--tuning 6] [--images 40]

Trains a small network on a part of CIFAR-10 (five classes, 240 images each), goes on from it with up to half of the 16 cells of a
4 x 4 grid set to 0 in every training image (and, as a control, as long without), and measures the metric of several methods and of a random map on
test images, with both networks. Writes the table in docs/metrics-in-domain.md, and the weights of both to bench-out/.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from heatlas.engine.given_maps import evaluate_maps
from heatlas.engine.methods.registry import bind_method
from heatlas.engine.metrics.chance_maps import random_map
from heatlas.engine.metrics.single_deletion import CELLS, cell_of_pixels
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from ..data_sets import DATA
from ..page_part import DOCS, circumstances, table, write_part

NAME = "single_deletion_rho"
METHODS = ("grad_cam", "layer_cam", "integrated_gradients", "occlusion", "lafam")
MEAN, STD = 0.47, 0.25
BATCH = 64
MOST_HIDDEN = CELLS**2 // 2
SIZE = (32, 32)


def load(split: str) -> tuple[Tensor, Tensor]:
    """Images `(image, 3, 32, 32)`, normalised, and labels."""
    folder = DATA / "cifar10_part" / split
    if not folder.is_dir():
        raise SystemExit(f"needs {folder}; BENCH_DATA names another folder")
    images, labels = [], []
    for label, place in enumerate(sorted(path for path in folder.iterdir() if path.is_dir())):
        for path in sorted(place.iterdir()):
            with Image.open(path) as image:
                images.append(torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 255)
            labels.append(label)
    return (torch.stack(images) - MEAN) / STD, torch.tensor(labels)


def network(classes: int) -> nn.Sequential:
    torch.manual_seed(0)
    blocks: list[nn.Module] = []
    for before, after in ((3, 32), (32, 64), (64, 96)):
        blocks += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, classes))


def some_cells_hidden(images: Tensor, generator: torch.Generator) -> Tensor:
    """Every image without 0 to 8 cells, drawn for it."""
    hidden = torch.rand(len(images), CELLS**2, generator=generator).argsort(dim=1)
    counts = torch.randint(MOST_HIDDEN + 1, (len(images), 1), generator=generator)
    visible = (hidden >= counts).float()
    return images * visible[:, cell_of_pixels(SIZE)][:, None]


def train(
    model: nn.Module, images: Tensor, labels: Tensor, epochs: int, rate: float, *, hiding: bool, seed: int
) -> None:
    """AdamW with random mirroring, the rate falling along a cosine."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-3)
    steps = epochs * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    model.train()
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        for start in range(0, len(images) - BATCH + 1, BATCH):
            rows = order[start : start + BATCH]
            batch = images[rows]
            mirrored = torch.rand(len(batch), generator=generator) < 0.5
            batch = torch.where(mirrored[:, None, None, None], batch.flip(3), batch)
            if hiding:
                batch = some_cells_hidden(batch, generator)
            loss = F.cross_entropy(model(batch), labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    return float((model(images).argmax(1) == labels).float().mean())


def rho(model: nn.Module, images: Tensor, name: str) -> np.ndarray:
    """The metric of a method's maps for the predicted class, of each image."""
    if name == "random map":
        maps = torch.stack([random_map(SIZE, seed=0, sample=place) for place in range(len(images))])
    else:
        maps = bind_method(name, model, batch_size=64).explain(images).maps
    return evaluate_maps(model, images, maps, metrics=[NAME]).values[NAME].numpy()


def shown(values: Sequence[float] | np.ndarray) -> str:
    """Mean and twice its standard error."""
    kept = np.asarray(values)[~np.isnan(values)]
    return f"{kept.mean():.2f} ± {2 * kept.std(ddof=1) / len(kept) ** 0.5:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=12, help="of training")
    parser.add_argument("--tuning", type=int, default=6, help="epochs of fine-tuning")
    parser.add_argument("--images", type=int, default=40, help="test images on which the metric is measured")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    images, labels = load("train")
    tests, truths = load("test")
    chosen = torch.randperm(len(tests), generator=torch.Generator().manual_seed(0))[: arguments.images]
    base = network(int(labels.max()) + 1)
    train(base, images, labels, arguments.epochs, 2e-3, hiding=False, seed=0)
    networks: dict[str, nn.Module] = {}
    for name, hiding in (("as trained", False), ("fine-tuned with cells hidden", True)):
        networks[name] = network(int(labels.max()) + 1)
        networks[name].load_state_dict(base.state_dict())
        train(networks[name], images, labels, arguments.tuning, 1e-3, hiding=hiding, seed=1)
        Path("bench-out").mkdir(exist_ok=True)
        save_file(
            networks[name].state_dict(), f"bench-out/single-deletion-{'hidden' if hiding else 'plain'}.safetensors"
        )
    generator = torch.Generator().manual_seed(2)
    hidden_tests = some_cells_hidden(tests, generator)
    rows = []
    for name in (*METHODS, "random map"):
        values = [rho(model, tests[chosen], name) for model in networks.values()]
        rows.append([f"`{name}`" if name in METHODS else name, *map(shown, values)])
        print(rows[-1], flush=True)
    for text, inputs in (("accuracy, whole images", tests), ("accuracy, cells hidden", hidden_tests)):
        rows.append([text, *(f"{accuracy(model, inputs, truths):.1%}" for model in networks.values())])
        print(rows[-1], flush=True)
    text = [
        *table([f"`{NAME}` ↑ (mean ± 2 standard errors)", *networks], rows), "",
        f"A network of three convolutions on five classes of CIFAR-10, {len(images)} training images, {len(chosen)} test images, predicted classes; both columns "
        f"went on for {arguments.tuning} epochs from the same weights. `python -m bench single_deletion`.", "", circumstances(),
    ]  # fmt: skip
    write_part(DOCS / "metrics-in-domain.md", "single_deletion", "\n".join(text))


if __name__ == "__main__":
    main()
