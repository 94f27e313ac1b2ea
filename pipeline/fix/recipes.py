"""The recipes and their settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ...errors import UsageError, did_you_mean

Recipe = Literal["dfr", "pclarc", "spufix", "patchmix", "rrr", "relabel", "drop", "none"]
RECIPES: tuple[str, ...] = get_args(Recipe)
RECIPE_TEXTS: dict[str, str] = {
    "dfr": "deep feature reweighting: the last layer is fitted anew to as many images with as without each mark",
    "pclarc": "projective class artifact compensation: what a mark does to the features is taken out before the last layer",
    "spufix": "components of logits that people called a shortcut (heatlas components) are held at a low level by the last layer",
    "patchmix": "trained with marks removed from half of their carriers and pasted into half of the other images",
    "rrr": "right for the right reasons: trained with a penalty on input gradients where the marks are",
    "relabel": "trained on the labels that people decided",
    "drop": "trained without the images that people dropped",
    "none": "trained anew and nothing changed: what a repair is compared with",
}
HEADS = ("dfr", "pclarc", "spufix")
"""Recipes that replace the last layer and train nothing else."""
PROJECTIONS = ("pclarc", "spufix")
"""Of these, those that fit nothing to labels."""
NEED_MARKS = ("dfr", "pclarc", "patchmix", "rrr")


@dataclass(frozen=True)
class FixSettings:
    """How a repair is made.

    Raises:
        UsageError: If a value is out of its range.
    """

    recipe: str
    seeds: int = 3
    """How many, at least 1; a verdict needs 3."""
    first_seed: int = 0
    from_scratch: bool = False
    """Train from random weights instead of from the model's."""
    epochs: int = 8
    batch_size: int = 64
    learning_rate: float = 1e-3
    """At its peak."""
    weight_decay: float = 0.05
    smoothing: float = 0.05
    """Of labels."""
    holdout: float = 0.1
    """Share of the training images by whose loss the epoch is chosen."""
    patience: int = 3
    """Epochs without a better one before training stops."""
    share: float = 0.5
    """Of patchmix: how many images of a batch are changed."""
    penalty: float = 10.0
    """Of rrr: weight of the gradient penalty."""
    directions: int = 1
    """Of pclarc: directions taken out per mark."""

    def __post_init__(self) -> None:
        if self.recipe not in RECIPES:
            raise UsageError(
                f"unknown recipe {self.recipe!r}{did_you_mean(self.recipe, RECIPES)}; choose {', '.join(RECIPES)}"
            )
        for name, low in (
            ("seeds", 1),
            ("first_seed", 0),
            ("epochs", 1),
            ("batch_size", 2),
            ("patience", 1),
            ("directions", 1),
        ):
            if getattr(self, name) < low:
                raise UsageError(f"{name.replace('_', '-')} must be at least {low}, got {getattr(self, name)}")
        for name in ("learning_rate", "penalty"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name.replace('_', '-')} must be above 0, got {getattr(self, name)}")
        for name, low, high in (
            ("weight_decay", 0, 1),
            ("smoothing", 0, 0.9),
            ("holdout", 0.01, 0.5),
            ("share", 0.01, 1),
        ):
            if not low <= getattr(self, name) <= high:
                raise UsageError(f"{name.replace('_', '-')} must be from {low} to {high}, got {getattr(self, name)}")
