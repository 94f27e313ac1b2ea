"""What a family of models gives back when it has built one."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ..images.preprocess import Preprocess

UNSTATED = "default, because the model does not say"


@dataclass(frozen=True)
class FamilyModel:
    """A model as its family found it, before the user's settings."""

    module: nn.Module
    preprocess: Preprocess
    class_names: tuple[str, ...] | None = None
    """One name per class, None where nobody says."""
    origin: str = UNSTATED
    """Where the preprocessing comes from, in words."""
    code: str = ""
    """Stands for what the module computes where its weights do not tell it; goes into the digest."""
    headless: bool = False
    """Whether it is known to give features instead of logits."""
    notes: tuple[str, ...] = ()
    """What was chosen or dropped on the way, for the user to read."""
    source: str = ""
    """Sha256 (hex) of the user's code that builds it; empty where there is none."""
    multi_label: bool = False
    """Whether it says that several classes may be true at once."""
