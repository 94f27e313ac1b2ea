"""The names of ImageNet's 1000 classes, as torchvision has them."""

from __future__ import annotations


def imagenet_names() -> tuple[str, ...]:
    """One name per class, in the order that every ImageNet classifier has."""
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    return tuple(_IMAGENET_CATEGORIES)
