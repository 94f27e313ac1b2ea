"""The names of ImageNet's 1000 classes, as torchvision has them, and their WordNet ids, as timm has them."""

from __future__ import annotations


def imagenet_names() -> tuple[str, ...]:
    """One name per class, in the order that every ImageNet classifier has."""
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    return tuple(_IMAGENET_CATEGORIES)


def imagenet_synsets() -> tuple[str, ...] | None:
    """The WordNet id (`n01440764`) of each class in the same order; None where timm, which lists them, is not installed."""
    try:
        from timm.data.imagenet_info import ImageNetInfo
    except ModuleNotFoundError:
        return None
    return tuple(map(str, ImageNetInfo().label_names()))
