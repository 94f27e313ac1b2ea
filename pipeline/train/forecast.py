"""What a training would cost, from two of its steps here; nothing is written."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors.torch import load, save

from ...workers.models.explainer_file import PARTS, StoredExplainer, explainer_bytes
from ...workers.training.checkpoint import TrainingState
from ...workers.training.image_batches import epoch_batches
from ...workers.training.train_rank import RankTraining
from ...workers.training.training_spec import TrainingDone
from ..settings.run import Settings
from ..sources.listing.detection import item_source
from ..sources.reading.confinement import check_data_root
from ..sources.reading.reader import FsspecReader
from .defaults import training_settings
from .prepare import prepared
from .train import head_facts

STEPS = 2
"""That are timed, after one that is not."""
LARGEST_BATCH = 16
"""Images of a step that is timed, at most."""
HEAD_PASSES = 4
"""Of the classifier for an image and epoch of a head: two forwards and a backward, which counts as two."""


@dataclass(frozen=True)
class TrainingForecast:
    """A training with the method's defaults over the images of a run."""

    images: int
    """Trained on."""
    holdout: int
    epochs: int
    passes_per_image: int
    """Of the classifier, in every epoch; a backward pass counted as two."""
    seconds_per_image: float
    """Of a training step, measured here; decoding goes on beside it."""
    seconds: float
    """Of the whole training, held-out images a forward each."""
    device: str

    @property
    def forwards(self) -> float:
        """Passes of the whole training."""
        return float(
            self.epochs * (self.passes_per_image * self.images + self.holdout * (2 if self.passes_per_image > 1 else 1))
        )


@contextmanager
def untrained_explainer(settings: Settings) -> Iterator[tuple[str, TrainingForecast]]:
    """A file with the explainer as it is before training, which costs as much to explain with as after it, and what the training costs.

    Args:
        settings: Of the run; its method is a trained one.

    Raises:
        UsageError: When such an explainer cannot be trained.
    """
    method = settings.method
    spec, identity = prepared(method, settings, training_settings(method, {}), None)
    reader = FsspecReader(check_data_root(settings.data_root), code=item_source(settings.data))
    rank = RankTraining(spec, reader)
    size = min(LARGEST_BATCH, spec.settings.batch_size)
    batches = epoch_batches(spec.training, max(2, min(size, len(spec.training))), spec.seed, 0)
    each = rank.time_steps((batches * (STEPS + 1))[: STEPS + 1])
    whole = spec.settings.epochs * (each * len(spec.training) + each * len(spec.holdout) / 2)
    passes = 1 if method == PARTS else HEAD_PASSES
    forecast = TrainingForecast(
        len(spec.training), len(spec.holdout), spec.settings.epochs, passes, each, whole, str(rank.device)
    )
    state = save({name: value.detach().cpu().contiguous() for name, value in rank.network.state_dict().items()})
    facts = {"layers": list(rank.trainee.layers), "training_images": len(spec.training)}
    if method == PARTS:
        facts |= rank.closing_facts(spec.training[:size], spec.holdout[:size])
    else:
        done = TrainingDone(state, 0, False, 0, rank.trainee.layers, TrainingState().curve, {})
        facts |= head_facts(spec, identity, done, load(state))
    stored = StoredExplainer(
        method, load(state), identity["model_digest"], identity["image_digest"], asdict(spec.settings), facts
    )
    with tempfile.TemporaryDirectory(prefix="heatlas-plan-") as folder:
        path = Path(folder) / "untrained.safetensors"
        path.write_bytes(explainer_bytes(stored, "plan"))
        yield str(path), forecast
