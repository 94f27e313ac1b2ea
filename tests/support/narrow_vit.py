"""torchvision's vision transformers with two narrow layers under their own names: a whole one takes a gigabyte in a test that loads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn
from torchvision.models import VisionTransformer, ViT_B_16_Weights, _api


def narrow_vit(patch: int) -> Callable[..., nn.Module]:
    """A builder with the arguments of torchvision's own."""

    def build(num_classes: int = 1000, image_size: int = 2 * patch, weights: Any = None, **settings: Any) -> nn.Module:
        narrow = {"num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32}
        return VisionTransformer(image_size=image_size, patch_size=patch, num_classes=num_classes, **narrow)

    build.__module__ = VisionTransformer.__module__  # torchvision lists models by it
    build.__annotations__["weights"] = ViT_B_16_Weights  # and finds the names of published weights by this
    return build


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, build: Callable[..., nn.Module]) -> None:
    """Make torchvision build this instead of its model `name`, for one test."""
    monkeypatch.setitem(_api.BUILTIN_MODELS, name, build)
