"""`heatlas train --tune N`: search the loss weights of a head with optuna before it is trained.

The space is P-TAME's (its authors use Ax): learning rate 1e-5, 1e-4, 1e-3; weight decay log-uniform in 1e-7..1; cross-entropy, area and
variation of sum 1 with cross-entropy + area in [0.85, 1]; border 0, 0.3, 0.5; power 0.3, 0.5, 1; two objectives, ROAD's MoRF (down) and LeRF
(up), on held-out images. Ours: 10 % of the images for every trial, TPE as the sampler, and of the trials that no other beats in both the one
with the largest LeRF - MoRF is taken. Finished trials stand in `FILE.tune.json`, so that an interrupted search goes on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from ...engine.training.head_settings import HeadSettings
from ...errors import UsageError
from ...workers.training.agreement import resized
from ...workers.training.image_batches import decoded_batches
from ...workers.training.removal_curves import removal_confidences
from ...workers.training.train_rank import RankTraining
from ...workers.training.training_spec import TrainingDone, TrainingSpec
from ..settings.run import Settings
from ..sources.listing.detection import item_source
from ..sources.reading.confinement import check_data_root
from ..sources.reading.reader import FsspecReader
from ..storage.atomic_write import put, remove
from ..storage.backoff import with_retries
from ..storage.location import bytes_of, locate
from ..terminal_log import say
from ..text import counted
from .prepare import prepared

SHARE = 10
"""One in so many images is used by the search."""
FEWEST = 16
"""Images of a search, at least."""
MEASURED = 24
"""Held-out images by which a trial is judged, at most."""
TRIALS = ".tune.json"


@dataclass(frozen=True)
class Tuned:
    """What a search found."""

    settings: HeadSettings
    morf: float
    """Confidence without the most relevant pixels; lower is better."""
    lerf: float
    """Confidence without the least relevant pixels; higher is better."""
    trials: int

    def summary(self) -> str:
        names = ("learning_rate", "weight_decay", "cross_entropy", "area", "variation", "border", "power")
        chosen = ", ".join(f"{name.replace('_', ' ')} {getattr(self.settings, name):.4g}" for name in names)
        return f"tuned by {counted(self.trials, 'trial')}: {chosen}; MoRF {self.morf:.3f}, LeRF {self.lerf:.3f} on held-out images"


def tuned_settings(
    method: str, settings: Settings, training: HeadSettings, trials: int, *, auxiliary: str | None = None
) -> Tuned:
    """Search, and take the best.

    Args:
        method: `ttame` or `ptame`.
        settings: Model and images; `out` is the file that will be written.
        training: What is not searched.
        trials: How many, at least 2; those of an interrupted call count.
        auxiliary: P-TAME's network.

    Raises:
        UsageError: When optuna is not installed, or there are too few images.
    """
    if trials < 2:
        raise UsageError(f"--tune must be at least 2 trials, got {trials}")
    try:
        import optuna
    except ImportError as error:
        raise UsageError("--tune needs optuna: pip install 'heatlas[tune]'") from error
    spec, _ = prepared(method, settings, training, None, auxiliary)
    spec = replace(spec, training=tuple(part_of(spec.training)), holdout=spec.holdout[:MEASURED])
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        directions=["minimize", "maximize"], sampler=optuna.samplers.TPESampler(seed=settings.seed)
    )
    place = settings.out + TRIALS
    for trial in stored_trials(place, spec.identity):
        study.add_trial(
            optuna.trial.create_trial(params=trial["params"], distributions=space(optuna), values=trial["values"])
        )
    reader = FsspecReader(check_data_root(settings.data_root), code=item_source(settings.data))
    while len(study.trials) < trials:
        trial = study.ask(space(optuna))
        values = judged(replace(spec, settings=with_params(training, trial.params)), reader)
        study.tell(trial, values)
        done = [{"params": each.params, "values": list(each.values)} for each in study.trials]
        put(place, json.dumps({"identity": spec.identity, "trials": done}).encode())
        say(f"trial {len(study.trials)} of {trials}: MoRF {values[0]:.3f}, LeRF {values[1]:.3f}")
    best = max(study.best_trials, key=lambda trial: trial.values[1] - trial.values[0])
    return Tuned(with_params(training, best.params), best.values[0], best.values[1], len(study.trials))


def forget_trials(out: str) -> None:
    """Once the explainer is written."""
    remove(out + TRIALS)


def space(optuna: Any) -> dict[str, Any]:
    """What is searched; `rest` is the variation's share of the three losses, `entropy` the cross-entropy's share of the others."""
    distributions = optuna.distributions
    return {
        "learning_rate": distributions.CategoricalDistribution([1e-5, 1e-4, 1e-3]),
        "weight_decay": distributions.FloatDistribution(1e-7, 1.0, log=True),
        "rest": distributions.FloatDistribution(0.0, 0.15),
        "entropy": distributions.FloatDistribution(0.01, 0.99),
        "border": distributions.CategoricalDistribution([0.0, 0.3, 0.5]),
        "power": distributions.CategoricalDistribution([0.3, 0.5, 1.0]),
    }


def with_params(training: HeadSettings, params: Mapping[str, Any]) -> HeadSettings:
    """The settings of a trial."""
    both = 1 - params["rest"]
    return replace(
        training, learning_rate=params["learning_rate"], weight_decay=params["weight_decay"], variation=params["rest"],
        cross_entropy=both * params["entropy"], area=both * (1 - params["entropy"]), border=params["border"], power=params["power"],
    )  # fmt: skip


def part_of(samples: Any) -> Any:
    """The images of a search: the first of them, in the order in which images are held out, which is that of a digest."""
    count = max(FEWEST, len(samples) // SHARE)
    if len(samples) < FEWEST:
        raise UsageError(f"--tune needs at least {FEWEST} images to train on, got {len(samples)}")
    return samples[:count]


def judged(spec: TrainingSpec, reader: FsspecReader) -> tuple[float, float]:
    """Mean MoRF and LeRF of a training with these settings, on its held-out images."""
    rank = RankTraining(spec, reader)
    events = list(rank.run())
    student = rank.trainee.student
    if student is None or not isinstance(events[-1], TrainingDone):
        raise UsageError("only attention heads are tuned: ttame and ptame")
    rank.trainee.step.eval()
    values = []
    for batch in decoded_batches([spec.holdout], reader, rank.preprocess, {}):
        images = batch.to(rank.device)[0]
        with torch.no_grad():
            targets = rank.trainee.model(images).argmax(dim=1)
            maps = resized(student(images, targets), (images.shape[2], images.shape[3]))
        values += [
            removal_confidences(rank.trainee.model, image, own, int(target))
            for image, own, target in zip(images, maps, targets, strict=True)
        ]
    columns = torch.tensor(values).mean(dim=0)
    return float(columns[0]), float(columns[1])


def stored_trials(place: str, identity: str) -> list[dict[str, Any]]:
    """Finished trials of the same search.

    Raises:
        UsageError: When there are those of another one.
    """
    fs, path = locate(place)
    if not with_retries(lambda: fs.exists(path), f"look for {place}"):
        return []
    try:
        known = json.loads(with_retries(lambda: bytes_of(fs, path), f"read {place}"))
        trials, own = list(known["trials"]), known["identity"]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{place} is damaged: {error}; delete it to search anew") from error
    if own != identity:
        raise UsageError(
            f"{place} holds the trials of another search (other model, images or settings); delete it, or choose another --out"
        )
    return trials
