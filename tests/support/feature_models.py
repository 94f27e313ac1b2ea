"""Vision transformers with and without a head, and classifiers that a feature bank makes of a model."""

from __future__ import annotations

import torch
from heatlas.engine.features.bank_classifier import BankClassifier
from heatlas.engine.features.feature_bank import build_bank
from timm.models.vision_transformer import VisionTransformer as TimmTransformer
from torch import nn
from torchvision.models import VisionTransformer

from .oracle_nets import images_like

SIZE = (24, 24)
CLASSES = 4
ENTRIES = 60
EXTRA = 1
"""Classes of which the bank has no entry."""


def headless() -> nn.Module:
    torch.manual_seed(0)
    return TimmTransformer(img_size=24, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=0).eval()


def with_head() -> nn.Module:
    torch.manual_seed(0)
    model = VisionTransformer(24, 8, 2, 2, 16, 32, num_classes=7)
    nn.init.normal_(model.heads[0].weight)  # pyright: ignore[reportArgumentType]  (torchvision's starts at zero)
    return model.eval()


def without_heads() -> nn.Module:
    model = with_head()
    model.heads = nn.Identity()
    return model


def classifier(model: nn.Module, dtype: torch.dtype = torch.float32) -> BankClassifier:
    entries = images_like(ENTRIES, 3, SIZE, seed=7).to(dtype)
    labels = torch.arange(ENTRIES) % CLASSES
    model = model.to(dtype)
    return BankClassifier(model, build_bank(model, [(entries, labels)], CLASSES + EXTRA)).eval()
