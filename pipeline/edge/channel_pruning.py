"""Remove channels from a network: those with the smallest weights, and with each whatever depends on it (DepGraph, `torch-pruning`).

Fang et al., CVPR 2023 (arXiv 2301.12900). Zeroing weights removes no byte and no operation, so it is refused.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import cast

import torch
from torch import nn
from torch.nn.utils import prune

from ...engine.layers.outputs import logits_of
from ...errors import ModelError, UsageError
from ...workers.models.factory import import_user_module, module_attribute

Trainer = Callable[[nn.Module], "nn.Module | None"]
"""Fine-tunes a pruned network in place, or returns the one to take."""


def refuse_zero_masks(module: nn.Module, spec: str) -> None:
    """Raises:
    UsageError: For a network that `torch.nn.utils.prune` has masked.
    """
    if prune.is_pruned(module):
        raise UsageError(
            f"{spec} is pruned by masks (torch.nn.utils.prune): zeros take as many bytes and operations as other weights. Take the masks away "
            "(prune.remove) and remove channels with --prune"
        )


def prune_channels(module: nn.Module, shape: tuple[int, int, int], share: float) -> nn.Module:
    """A copy of the network without this share of the channels of every convolution; the classes stay.

    Args:
        module: In eval mode, on the CPU.
        shape: Channels, height and width of its input.
        share: In (0, 1).

    Raises:
        UsageError: If `torch-pruning` is missing or the share is out of range.
        ModelError: If its graph cannot be followed, or no parameter could be removed.
    """
    if not 0 < share < 1:
        raise UsageError(f"--prune must be a share of the channels in (0, 1), got {share}")
    try:
        import torch_pruning
    except ImportError:
        raise UsageError(
            "--prune needs the extra `edge` (torch-pruning is missing): pip install 'heatlas[edge]'"
        ) from None
    pruned = copy.deepcopy(module)
    example = torch.zeros(1, *shape)
    try:
        with torch.enable_grad():
            output = logits_of(pruned(example))
            pruner = torch_pruning.pruner.BasePruner(
                pruned, example, importance=torch_pruning.importance.MagnitudeImportance(p=2), pruning_ratio=share,
                ignored_layers=_last_layers(pruned, output.shape[1]),
            )  # fmt: skip
            pruner.step()
        with torch.no_grad():
            left = logits_of(pruned(example))
    except Exception as error:  # the tracer raises nearly anything on graphs that it cannot follow
        lines = str(error).strip().splitlines() or [""]
        raise ModelError(
            f"the channels of the model cannot be removed: {type(error).__name__}: {lines[0][:300]}"
        ) from error
    if left.shape != output.shape:
        raise ModelError(f"removing channels changed the output from {tuple(output.shape)} to {tuple(left.shape)}")
    if count_parameters(pruned) >= count_parameters(module):
        raise ModelError(f"--prune {share:g} removes no channel of this model; give a larger share")
    return pruned.eval()


def count_parameters(module: nn.Module) -> int:
    """Numbers in the network's parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def load_trainer(spec: str) -> Trainer:
    """The callable that `package.module:callable` names; importing it runs its code.

    Raises:
        UsageError: If there is none.
    """
    module, colon, name = spec.partition(":")
    if not (colon and module and name):
        raise UsageError(f"--trainer must be package.module:callable, got {spec!r}")
    trainer = module_attribute(import_user_module(module), name, module)
    if not callable(trainer):
        raise UsageError(f"--trainer {spec} cannot be called")
    return cast(Trainer, trainer)


def fine_tuned(trainer: Trainer, module: nn.Module) -> nn.Module:
    """The network as the trainer leaves it, in eval mode, on the CPU.

    Raises:
        ModelError: If it fails, or returns something else than a network.
    """
    try:
        given = trainer(module)
    except Exception as error:  # the user's code
        raise ModelError(
            f"--trainer failed with {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        ) from error
    if given is not None and not isinstance(given, nn.Module):
        raise ModelError(
            f"--trainer must return a torch.nn.Module, or None where it trains in place; it returned a {type(given).__name__}"
        )
    return (module if given is None else given).cpu().eval()


def _last_layers(module: nn.Module, classes: int) -> list[nn.Module]:
    """Layers that give one number per class: their outputs are not channels that could go."""
    return [
        layer
        for layer in module.modules()
        if (isinstance(layer, nn.Linear) and layer.out_features == classes)
        or (isinstance(layer, nn.Conv2d) and layer.out_channels == classes)
    ]
