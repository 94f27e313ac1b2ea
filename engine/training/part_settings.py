"""Settings of an explainer network's training. No torch here: a command line reads them, too."""

from __future__ import annotations

from dataclasses import dataclass

from .head_settings import OptimisationSettings, option, require

PRESETS = ("robust", "paper")


@dataclass(frozen=True, kw_only=True)
class PartSettings(OptimisationSettings):
    """How an explainer network is trained. `robust` is ours; `paper` keeps to what is known of arXiv 1805.07468.

    Raises:
        SettingsError: When a value is out of its range.
    """

    preset: str = option("robust", "robust (ours: losses free of scale) or paper (what is known of it)")
    eta: float | None = option(None, "weight of -log p, p being the parts' share; 0.1 (robust) or 20 (paper)")
    filter_weight: float = option(0.1, "weight of the filter loss, mean over filters, at least 0")
    filter_queue: int = option(0, "images of earlier steps that count in the filter loss, too, at least 0")
    kept_parts: int = option(32, "filters whose parts become columns, those that contribute most, at least 1")
    augment: bool = option(True, "crop (half to all of the area) and flip images at random: parts must move")
    epochs: int = option(20, "passes over the training images, at least 1")
    batch_size: int = option(64, "images per step, over all workers, at least 2")
    optimiser: str = option("adamw", "sgd (Nesterov) or adamw")
    learning_rate: float = option(3e-4, "rate at the beginning of the cosine schedule, above 0")
    weight_decay: float = option(1e-4, "of convolutions and fully connected weights, at least 0")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.preset in PRESETS, f"preset must be one of {', '.join(PRESETS)}, got {self.preset!r}")
        require(self.eta is None or self.eta >= 0, f"eta must be at least 0, got {self.eta}")
        require(self.filter_weight >= 0, f"filter_weight must be at least 0, got {self.filter_weight}")
        require(self.filter_queue >= 0, f"filter_queue must be at least 0, got {self.filter_queue}")
        require(self.kept_parts >= 1, f"kept_parts must be at least 1, got {self.kept_parts}")
        require(
            self.layers is None or len(self.layers) == 1,
            f"layers must name one layer for an explainer network, got {len(self.layers or ())}",
        )

    @property
    def share_weight(self) -> float:
        """eta, that of the preset unless it is given. 20 is the recalled ratio of the paper's weights, which nobody has checked."""
        return self.eta if self.eta is not None else (0.1 if self.preset == "robust" else 20.0)
