"""The state of a training as one safetensors file: weights of now and of the best epoch, the optimiser's tensors, and where it stands."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from ...errors import RunError

KIND = "heatlas training checkpoint"
HEAD, BEST, OPTIMISER, STEP = "head.", "best.", "optimiser.", "step."


@dataclass
class TrainingState:
    """Where a training stands, but for the tensors."""

    epoch: int = 0
    """Epochs that are over."""
    step: int = 0
    """Steps of the current epoch that are done."""
    best_loss: float = float("inf")
    best_epoch: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    """Of the current epoch's losses."""
    skipped: int = 0
    curve: list[dict[str, Any]] = field(default_factory=list)
    """One entry an epoch that is over."""


def checkpoint_bytes(
    state: TrainingState,
    head: nn.Module,
    best: Mapping[str, Tensor],
    optimiser: torch.optim.Optimizer,
    identity: str,
    step: Mapping[str, Tensor],
) -> bytes:
    """The file; `step` is the loss's own state, which the explainer's file does not hold."""
    tensors = {f"{HEAD}{name}": value for name, value in head.state_dict().items()}
    tensors |= {f"{BEST}{name}": value for name, value in best.items()}
    tensors |= {f"{STEP}{name}": value for name, value in step.items()}
    for number, values in optimiser.state_dict()["state"].items():
        tensors |= {f"{OPTIMISER}{number}.{name}": torch.as_tensor(value) for name, value in values.items()}
    facts = {"kind": KIND, "identity": identity, "state": json.dumps(vars(state))}
    return save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, facts)


def own_state(step: nn.Module) -> dict[str, Tensor]:
    """Persistent buffers of the loss itself, not of the network in it."""
    return {name: value for name, value in step.state_dict().items() if "." not in name}


def restore(
    data: bytes, head: nn.Module, optimiser: torch.optim.Optimizer, step: nn.Module
) -> tuple[TrainingState, dict[str, Tensor]]:
    """Put head, optimiser and the loss's own state where they were; the state, and the best epoch's weights.

    Raises:
        RunError: When the file is damaged or of another training.
    """
    try:
        tensors = load(data)
        facts = checkpoint_facts(data)
        state = TrainingState(**json.loads(facts["state"]))
        head.load_state_dict(part_of(tensors, HEAD))
        if missing := own_state(step).keys() - part_of(tensors, STEP).keys():
            raise KeyError(f"no {min(missing)}")
        step.load_state_dict(part_of(tensors, STEP), strict=False)
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise RunError(f"the checkpoint cannot be used: {error}; delete it to begin anew") from error
    values: dict[int, dict[str, Any]] = {}
    for name, value in part_of(tensors, OPTIMISER).items():
        number, _, key = name.partition(".")
        values.setdefault(int(number), {})[key] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": values})
    return state, part_of(tensors, BEST)


def checkpoint_facts(data: bytes) -> dict[str, str]:
    """The metadata of a safetensors file that is in memory."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]).get("__metadata__") or {}


def part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
