"""Settings of an attention head's training. No torch here: a command line reads them, too."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from ...errors import SettingsError

FILLS = ("black", "blur", "mean")
CONFIDENCES = ("softmax", "sigmoid")
OPTIMISERS = ("sgd", "adamw")


def option(default: Any, text: str) -> Any:
    """A setting with its explanation."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True)
class OptimisationSettings:
    """What every training has.

    Raises:
        SettingsError: When a value is out of its range.
    """

    layers: tuple[str, ...] | None = option(None, "modules to read; the last three blocks unless named")
    epochs: int = option(8, "passes over the training images, at least 1")
    batch_size: int = option(32, "images per step, over all workers, at least 2")
    optimiser: str = option("sgd", "sgd (Nesterov) or adamw")
    learning_rate: float = option(1e-3, "largest rate of the schedule, above 0")
    weight_decay: float = option(5e-4, "of every weight that is no bias, at least 0")
    holdout: float = option(0.1, "share of the images that are not trained on, in (0, 0.5]")
    patience: int = option(0, "stop after so many epochs without a better held-out loss; 0: never")

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = getattr(self, setting.name)
            if isinstance(value, float):
                require(math.isfinite(value), f"{setting.name} must be a finite number, got {value}")
        require(self.weight_decay >= 0, f"weight_decay must be at least 0, got {self.weight_decay}")
        require(self.learning_rate > 0, f"learning_rate must be above 0, got {self.learning_rate}")
        require(self.epochs >= 1, f"epochs must be at least 1, got {self.epochs}")
        require(self.batch_size >= 2, f"batch_size must be at least 2, got {self.batch_size}: a batch norm needs two")
        require(0 < self.holdout <= 0.5, f"holdout must be above 0 and at most 0.5, got {self.holdout}")
        require(self.patience >= 0, f"patience must be at least 0, got {self.patience}")
        require(
            self.optimiser in OPTIMISERS, f"optimiser must be one of {', '.join(OPTIMISERS)}, got {self.optimiser!r}"
        )


@dataclass(frozen=True, kw_only=True)
class HeadSettings(OptimisationSettings):
    """How an attention head is trained. The defaults are T-TAME's.

    Raises:
        SettingsError: When a value is out of its range.
    """

    shared_row: bool | None = option(
        None,
        "add one row of weights that all classes share; unless set, where classes have fewer than 32 images on average",
    )
    confidence: str = option(
        "softmax", "what a masked image must keep: softmax, or sigmoid where classes do not exclude each other"
    )
    fill: str = option("black", "what replaces hidden pixels: black, blur or mean")
    cross_entropy: float = option(1.5, "weight of the cross-entropy of masked images, at least 0")
    area: float = option(2.0, "weight of the masks' area, at least 0")
    variation: float = option(0.01, "weight of the masks' variation, at least 0")
    power: float = option(0.3, "exponent of the area, above 0")
    border: float = option(0.3, "weight of the outermost cells in the variation, at least 0")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("cross_entropy", "area", "variation", "border"):
            require(getattr(self, name) >= 0, f"{name} must be at least 0, got {getattr(self, name)}")
        require(self.power > 0, f"power must be above 0, got {self.power}")
        require(
            self.confidence in CONFIDENCES,
            f"confidence must be one of {', '.join(CONFIDENCES)}, got {self.confidence!r}",
        )
        require(self.fill in FILLS, f"fill must be one of {', '.join(FILLS)}, got {self.fill!r}")


def require(holds: bool, text: str) -> None:
    """Refuse a value.

    Raises:
        SettingsError: With the text, unless the condition holds.
    """
    if not holds:
        raise SettingsError(text)
