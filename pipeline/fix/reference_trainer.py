"""The reference trainer: AdamW, a cosine schedule, and the epoch with the least held-out loss."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...engine.repair.right_reasons import gradient_penalty
from ...errors import RunError
from ..terminal_log import say
from .marked_batches import removed_and_pasted
from .recipes import FixSettings
from .training_images import TrainingSet


def train_reference(model: nn.Module, data: TrainingSet, settings: FixSettings, seed: int) -> dict[str, Tensor]:
    """Train a copy of the model and give its weights.

    Args:
        model: Where training starts; with `from_scratch` its layers are reset first. Left as it came.
        data: Training images; a share of them is held out, the same for every seed.
        settings: Recipe and how to train.
        seed: Of weights, order, and what is changed in batches.

    Raises:
        RunError: If no epoch has a finite held-out loss, so that there is nothing to give.
    """
    places, held = data.split(settings.holdout)
    with _seeded(seed), torch.inference_mode(False):
        network = copy.deepcopy(model)
        if settings.from_scratch:
            reset_weights(network)
        device = next(network.parameters()).device
        for parameter in network.parameters():
            parameter.requires_grad_(True)
        optimizer = torch.optim.AdamW(network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
        steps = settings.epochs * math.ceil(len(places) / settings.batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        random, best, waited = np.random.default_rng(seed), (math.inf, copy.deepcopy(network.state_dict())), 0
        for epoch in range(1, settings.epochs + 1):
            network.train()
            total = 0.0
            for batch in _batches(places, settings.batch_size, random):
                loss = batch_loss(network, data, batch, settings, random, device)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += float(loss.detach()) * len(batch) / len(places)
            network.eval()
            # the same changes in every epoch, so that epochs compare
            holdout = sum(
                float(batch_loss(network, data, batch, settings, np.random.default_rng([seed, 1]), device).detach())
                * len(batch)
                for batch in np.array_split(held, math.ceil(len(held) / settings.batch_size))
            ) / len(held)
            say(
                f"{settings.recipe}, seed {seed}, epoch {epoch} of {settings.epochs}: loss {total:.4g}, held-out loss {holdout:.4g}"
            )
            if not math.isfinite(holdout) or holdout >= best[0]:
                waited += 1
                if waited >= settings.patience:
                    break
                continue
            best, waited = (holdout, copy.deepcopy(network.state_dict())), 0
    if not math.isfinite(best[0]):
        raise RunError(
            f"recipe {settings.recipe} diverged with seed {seed}: the held-out loss was in no epoch a finite number; use a smaller --learning-rate "
            f"(it was {settings.learning_rate:g})"
        )
    return {name: value.detach().cpu().contiguous() for name, value in best[1].items()}


def batch_loss(
    network: nn.Module,
    data: TrainingSet,
    places: np.ndarray,
    settings: FixSettings,
    random: np.random.Generator,
    device: torch.device,
) -> Tensor:
    """The recipe's loss of a batch."""
    batch = data.loaded.taken(places)
    labels = data.labels[torch.from_numpy(places)].to(device)
    inputs = batch.inputs
    if settings.recipe == "patchmix":
        inputs = removed_and_pasted(batch, data.marks, settings.share, random)
    inputs = inputs.to(device)
    if settings.recipe != "rrr":
        return F.cross_entropy(network(inputs), labels, label_smoothing=settings.smoothing)
    inputs = inputs.clone().requires_grad_(True)
    losses = F.cross_entropy(network(inputs), labels, label_smoothing=settings.smoothing, reduction="none")
    regions = batch.regions.clone()
    regions[torch.from_numpy(batch.whole)] = (
        False  # where all of the image is the mark, its gradient has no better place
    )
    return losses.mean() + settings.penalty * gradient_penalty(losses, inputs, regions.to(device))


def reset_weights(network: nn.Module) -> None:
    """Draw the weights of every layer anew, as when it was made."""
    for part in network.modules():
        reset = getattr(part, "reset_parameters", None)
        if callable(reset):
            reset()


def _batches(places: np.ndarray, size: int, random: np.random.Generator) -> list[np.ndarray]:
    """A random order in pieces; a piece of one image, of which batch norm makes nothing, joins the one before."""
    order = random.permutation(places)
    pieces = [order[start : start + size] for start in range(0, len(order), size)]
    if len(pieces) > 1 and len(pieces[-1]) < 2:
        pieces[-2:] = [np.concatenate(pieces[-2:])]
    return pieces


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """A seeded generator; the process gets its own back."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield
