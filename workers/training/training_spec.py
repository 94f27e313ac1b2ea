"""What a rank needs to know to train: plain values that survive pickling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ...engine.training.head_settings import HeadSettings
from ...engine.training.part_settings import PartSettings
from ..samples import Sample

if TYPE_CHECKING:
    import numpy as np

    from ..models.load import ModelSpec


@dataclass(frozen=True, kw_only=True)
class TrainingSpec:
    """Model, settings and images of a training, the same for all of its ranks."""

    model: ModelSpec
    settings: HeadSettings | PartSettings
    """Of an attention head, or of an explainer network."""
    training: tuple[Sample, ...]
    holdout: tuple[Sample, ...]
    """Images that are not trained on, at least 1."""
    shared_row: bool = False
    teacher: Mapping[str, TeacherMap] = field(default_factory=dict)
    """Maps to imitate, by sample id; empty where the classifier itself teaches."""
    auxiliary: str = ""
    """P-TAME's auxiliary network by name; empty without one."""
    auxiliary_digest: str = ""
    """That it must have."""
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 1
    identity: str = ""
    """Digest of what decides the result: a checkpoint of another training is refused."""
    checkpoint_steps: int = 200
    """Steps between two checkpoints within an epoch; there is one after every epoch, too."""


@dataclass(frozen=True)
class TeacherMap:
    """Another method's map of a sample."""

    target: int
    map: np.ndarray
    """`(height, width)` float16 in [0, 1]; one size for all."""


@dataclass(frozen=True)
class EpochDone:
    """An epoch is over."""

    epoch: int
    """From 1."""
    training_loss: float
    holdout_loss: float
    terms: Mapping[str, float]
    """Of the training loss, unweighted."""
    images_per_second: float
    best: bool
    """Whether no earlier epoch had a smaller held-out loss."""


@dataclass(frozen=True)
class CheckpointMade:
    """A file from which the same training continues."""

    data: bytes
    epoch: int
    step: int


@dataclass(frozen=True)
class TrainingDone:
    """The head of the best epoch."""

    state: bytes
    """Safetensors of its weights."""
    epoch: int
    """Which epoch that was."""
    stopped_early: bool
    skipped: int
    """Images that could not be read, in the first epoch."""
    layers: tuple[str, ...]
    curve: Sequence[Mapping[str, Any]]
    """One entry an epoch."""
    agreement: Mapping[str, float]
    """Of a student with its teacher on the images that were not trained on; empty without a teacher."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else the file says of the network."""


TrainingEvent = EpochDone | CheckpointMade | TrainingDone
