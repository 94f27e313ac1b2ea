"""Train the demo's network: `python -m heatlas.pipeline.demo.train [FILE]`, about two minutes on one core.

Everything is seeded and runs on one thread, so a machine repeats itself exactly and another one comes out within a percent.
The labels are learned as stated, the 3 % wrong ones included.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from ..terminal_log import LOG
from .dataset import CLASS_NAMES, LOOKALIKE_CLASS, SHORTCUT_CLASS, Marking, demo_sample
from .network import MEAN, STD, DemoNet, save_weights

Say = Callable[[str], object]


@dataclass(frozen=True)
class TrainingRecipe:
    """How the packaged weights were made."""

    images: int = 6000
    epochs: int = 8
    batch: int = 64
    peak_rate: float = 3e-3
    weight_decay: float = 0.05
    smoothing: float = 0.05
    """Label smoothing: keeps the probabilities from saturating, which both wrong labels and masked inputs would suffer from."""
    test_images: int = 2000
    """On how many images the accuracies are stated, three times over."""
    seed: int = 0


def train_network(recipe: TrainingRecipe | None = None, *, say: Say = LOG.info) -> DemoNet:
    """A network trained by the recipe, in eval mode; `say` hears one line per epoch."""
    recipe = recipe or TrainingRecipe()
    with _repeatable(recipe.seed):
        images, labels = render("train", recipe.images, seed=recipe.seed)
        network = DemoNet().to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(network.parameters(), recipe.peak_rate, weight_decay=recipe.weight_decay)
        steps = recipe.epochs * (len(images) // recipe.batch)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.peak_rate, total_steps=steps)
        criterion = nn.CrossEntropyLoss(label_smoothing=recipe.smoothing)
        network.train()
        for epoch in range(recipe.epochs):
            total = 0.0
            batches = _batches(len(images), recipe.batch)
            for chosen in batches:
                loss = criterion(network(as_input(images[chosen])), labels[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += loss.item()
            say(f"epoch {epoch + 1} of {recipe.epochs}: loss {total / len(batches):.3f}")
    return network.to(memory_format=torch.contiguous_format).eval()


def accuracies(network: DemoNet, count: int, *, seed: int = 0) -> dict[str, float]:
    """What the network has learned, told by `count` test images in three versions: as planted, sticker wiped, sticker on all.

    Returns:
        Shares in [0, 1]: `test`, `test_shortcut_class` and `test_other_classes` (accuracy as planted); the same three for
        `wiped`; `wiped_as_lookalike` (members of the shortcut class then called discs); `stickered_as_shortcut_class`
        (members of the other classes that a sticker turns into the shortcut class).
    """
    shortcut, lookalike = CLASS_NAMES.index(SHORTCUT_CLASS), CLASS_NAMES.index(LOOKALIKE_CLASS)
    shares: dict[str, float] = {}
    versions: dict[str, Marking] = {"test": "planted", "wiped": "never", "stickered": "always"}
    for name, marking in versions.items():
        images, labels = render("test", count, seed=seed, marking=marking)
        predictions, member = predict(network, images), labels == shortcut
        right = predictions == labels
        if name == "stickered":
            shares["stickered_as_shortcut_class"] = _share(predictions[~member] == shortcut)
            continue
        shares[name] = _share(right)
        shares[f"{name}_shortcut_class"] = _share(right[member])
        shares[f"{name}_other_classes"] = _share(right[~member])
        if name == "wiped":
            shares["wiped_as_lookalike"] = _share(predictions[member] == lookalike)
    return shares


def accuracy_lines(shares: dict[str, float]) -> list[str]:
    """The accuracies as sentences for people."""
    percent = {name: f"{100 * value:.1f} %" for name, value in shares.items()}
    return [
        f"test accuracy {percent['test']}: {SHORTCUT_CLASS} {percent['test_shortcut_class']}, "
        f"other classes {percent['test_other_classes']}",
        f"with the sticker wiped {percent['wiped']}: {SHORTCUT_CLASS} {percent['wiped_shortcut_class']} "
        f"({percent['wiped_as_lookalike']} are called {LOOKALIKE_CLASS}), other classes {percent['wiped_other_classes']}",
        f"with a sticker put on them, {percent['stickered_as_shortcut_class']} of the other classes' images are called "
        f"{SHORTCUT_CLASS}",
    ]


def render(
    split: str, count: int, *, seed: int = 0, marking: Marking = "planted"
) -> tuple[UInt8[Tensor, "batch 3 height width"], Int[Tensor, " batch"]]:
    """The first `count` samples of a split as tensors, with the labels as the data set states them."""
    samples = [demo_sample(split, index, seed=seed, marking=marking) for index in range(count)]
    images = torch.from_numpy(np.stack([sample.image for sample in samples])).permute(0, 3, 1, 2)
    return images, torch.tensor([CLASS_NAMES.index(sample.label) for sample in samples])


def as_input(images: UInt8[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
    """Images in [0, 255] as the network takes them."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return ((images / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def predict(network: DemoNet, images: UInt8[Tensor, "batch 3 height width"]) -> Int[Tensor, " batch"]:
    """The class index of every image."""
    return torch.cat([network(as_input(part)).argmax(1) for part in images.split(100)])


def _share(hits: Tensor) -> float:
    return hits.float().mean().item()


def _batches(count: int, size: int) -> list[Tensor]:
    """A random order of `count` images in full batches; what is left over waits for another epoch."""
    order = torch.randperm(count)
    return list(order[: count // size * size].split(size))


@contextlib.contextmanager
def _repeatable(seed: int) -> Iterator[None]:
    """One thread and a seeded generator; the process gets both back as they were."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def retrained(path: str | Path, recipe: TrainingRecipe | None = None, *, say: Say = LOG.info) -> dict[str, float]:
    """Train, state the accuracies and write the weights, with recipe and accuracies in their metadata."""
    recipe = recipe or TrainingRecipe()
    network = train_network(recipe, say=say)
    shares = accuracies(network, recipe.test_images, seed=recipe.seed)
    for line in accuracy_lines(shares):
        say(line)
    metadata = {name: str(value) for name, value in asdict(recipe).items()}
    save_weights(path, network, metadata | {name: f"{value:.4f}" for name, value in shares.items()})
    say(f"weights written to {path}")
    return shares


if __name__ == "__main__":
    retrained(sys.argv[1] if len(sys.argv) > 1 else "weights.safetensors")
