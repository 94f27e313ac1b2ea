"""What an actor needs to know to build its model: plain values that survive pickling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ...engine.scoring.scoring_options import Scoring
from ..targets import PREDICTED, TargetRule

if TYPE_CHECKING:
    from ..models.load import ModelSpec

DECODE_THREADS, MOST_DECODE_THREADS = 2, 16
"""Of a worker on CPUs, where decoding takes time from the forwards; and at most, of one beside an accelerator."""


@dataclass(frozen=True, kw_only=True)
class WorkerSpec:
    """Model, method and limits of a run, the same for all of its workers."""

    model: ModelSpec
    target: TargetRule = PREDICTED
    """Which classes of each image are explained."""
    method: str = "sise"
    method_settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the method's settings class; what is missing is its default."""
    scoring: Scoring = field(default_factory=Scoring)
    """Batch, number format, budget and meaning of confidence. Its `images` are those of the run's largest shard: no method is given
    more at once, so that small shards are not padded."""
    correct_shift: tuple[float, float] = (0.0, 0.0)
    """Pixels down and right by which maps are moved back."""
    metrics: tuple[str, ...] = ()
    seed: int = 0
    chance_below: int = 0
    """Samples whose `seed_of(id)` is less get the metrics of chance maps too; 0 for none."""
    sanity_below: int = 0
    """Samples whose `seed_of(id)` is less are explained once more with randomised weights; 0 for none."""
    top_k: int = 5
    """Classes listed of every image, at least 1; all where there are at most 100."""
    features: bool = True
    """Whether the penultimate features of every image are kept."""
    threads: int = 1
    """CPU threads of torch; they change the last bits of floats and so belong to the run's fingerprint."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    expected: Mapping[str, Any] = field(default_factory=dict)
    """What the model must be, see `model_facts`; compared before the first image."""
    tried_on: str | None = None
    """The device, as rows name it, for which precision, forward and batch were chosen; None where no trial chose them, or where any
    will do. Workers on another refuse to start."""
    max_error_rate: float = 1.0
    """Share of failed images, in [0, 1], above which a worker refuses to commit; 1 switches the breaker off."""
    decode_threads: int = DECODE_THREADS
    """Threads that decode images ahead of the device, at least 1."""
