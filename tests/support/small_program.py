"""A small network, its maps, and its TorchScript file."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from heatlas.engine.methods.sise import SISE
from heatlas.workers.models.load import LoadedModel
from torch import nn

from ..support.programs import scripted_program


def small_net(channels: int = 3, classes: int = 4) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(channels, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.Conv2d(6, 8, 1), nn.ReLU6(), nn.MaxPool2d(2),
        nn.Conv2d(8, 10, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, classes),
    ).eval()  # fmt: skip


def explained(module: nn.Module, loaded: LoadedModel, **options) -> torch.Tensor:
    torch.manual_seed(5)
    images = torch.randn(2, loaded.preprocess.channels, *loaded.preprocess.size)
    result = SISE(module, batch_size=8, **options)(images)
    assert result.statuses == ["ok", "ok"]
    return result.maps


def scripted(path: Path, module: nn.Module, example: torch.Tensor | None = None) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, which is not our matter
        scripted_program(module, example).save(str(path))
    return path
