"""The training loop of one rank. With several ranks torch.distributed averages their gradients; then every rank holds the same network."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ...errors import DataError, RunError
from ..models.load import load_model
from ..protocols import SampleReader
from ..samples import Sample
from .agreement import Agreement, MeanMaps, resized
from .checkpoint import TrainingState, checkpoint_bytes, own_state, restore
from .image_batches import TrainingBatch, decoded_batches, epoch_batches, share_of
from .student_metrics import MEASURED, map_metrics
from .trainees import build_trainee
from .training_spec import CheckpointMade, EpochDone, TrainingDone, TrainingEvent, TrainingSpec

FIRST = 64
"""Images by which statistics begin, where a network has any."""
LOOKED_AT = 256
"""Training images that say what its filters are for."""


class RankTraining:
    """One rank's model, network and optimiser.

    Args:
        spec: What is trained.
        reader: Bytes of images.
        rank: Of this process, from 0.
        world: Number of ranks; above 1 a process group must be there.
    """

    def __init__(self, spec: TrainingSpec, reader: SampleReader, rank: int = 0, world: int = 1):
        torch.set_num_threads(spec.threads)
        self.spec, self.reader, self.rank, self.world = spec, reader, rank, world
        self.device = torch.device("cuda" if spec.device != "cpu" and torch.cuda.is_available() else "cpu")
        loaded = load_model(spec.model, reader)
        self.preprocess, settings = loaded.preprocess, spec.settings
        self.steps = len(epoch_batches(spec.training, settings.batch_size, spec.seed, 0))
        total = settings.epochs * self.steps
        self.trainee = build_trainee(spec, loaded, self.device, total, reader)
        self.network = self.trainee.network
        self.optimiser, self.schedule = self.trainee.optimiser(total)
        step = self.trainee.step
        self.parallel: nn.Module = DistributedDataParallel(step) if world > 1 else step
        self.state = TrainingState()
        self.best: dict[str, Tensor] = {}

    def run(self, checkpoint: bytes | None = None) -> Iterator[TrainingEvent]:
        """Train to the end, or from where a checkpoint stands.

        Raises:
            DataError: When no image of a step can be read.
            RunError: When the loss is not finite, or the checkpoint is of another training.
        """
        spec = self.spec
        if checkpoint is not None:
            self._restore(checkpoint)
        elif self.trainee.begin is not None:
            self.trainee.begin(next(self._images(spec.training[:FIRST])))
        stopped = False
        while self.state.epoch < spec.settings.epochs and not stopped:
            yield from self._epoch()
            patience = spec.settings.patience
            stopped = bool(patience) and self.state.epoch - self.state.best_epoch >= patience
        self.network.load_state_dict(self.best)
        state = save({name: value.detach().cpu().contiguous() for name, value in self.best.items()})
        yield TrainingDone(
            state, self.state.best_epoch, stopped and self.state.epoch < spec.settings.epochs, self.state.skipped, self.trainee.layers,
            self.state.curve, self._agreement(), self._closing(),
        )  # fmt: skip

    def _restore(self, checkpoint: bytes) -> None:
        self.state, self.best = restore(checkpoint, self.network, self.optimiser, self.trainee.step)
        self.best = {name: value.to(self.device) for name, value in self.best.items()}
        done = self.state.epoch * self.steps + self.state.step
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # torch warns of steps before the optimiser's first: those were in another process
            for _ in range(min(done, self.spec.settings.epochs * self.steps - 1)):
                self.schedule.step()

    def _epoch(self) -> Iterator[TrainingEvent]:
        spec, state = self.spec, self.state
        batches = epoch_batches(spec.training, spec.settings.batch_size, spec.seed, state.epoch)
        own = [share_of(batch, self.rank, self.world) for batch in batches[state.step :]]
        begun, seen = time.perf_counter(), 0
        self.trainee.step.train()
        for batch in decoded_batches(own, self.reader, self.preprocess, dict(spec.teacher)):
            self._train_on(batch)
            seen += len(batch.samples)
            state.step += 1
            if state.step % spec.checkpoint_steps == 0 and state.step < self.steps and self.rank == 0:
                yield self._checkpoint()
        seconds = time.perf_counter() - begun
        yield self._close_epoch(self.world * seen / max(seconds, 1e-9))
        if self.rank == 0:
            yield self._checkpoint()

    def _train_on(self, batch: TrainingBatch) -> None:
        state = self.state
        if state.epoch == 0:
            state.skipped += batch.skipped
        if len(batch.samples) < 2:
            raise DataError(
                f"of {len(batch.samples) + batch.skipped} images of a training step {batch.skipped} cannot be read; a step needs at "
                "least 2: check the images, or raise batch_size"
            )
        loss, terms = self.parallel(*batch.to(self.device))
        if not bool(loss.isfinite()):
            raise RunError(
                f"the loss of epoch {state.epoch + 1}, step {state.step + 1} is not finite; lower learning_rate"
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        if state.epoch * self.steps + state.step + 1 < self.spec.settings.epochs * self.steps:
            self.schedule.step()
        for name, value in {"loss": loss.detach(), **terms}.items():
            state.sums[name] = state.sums.get(name, 0.0) + float(value)

    def _close_epoch(self, rate: float) -> EpochDone:
        state = self.state
        names = sorted(state.sums)
        sums = self._mean_over_ranks([state.sums[name] for name in names])
        means = {name: value / self.steps for name, value in zip(names, sums, strict=True)}
        self._share_buffers()
        holdout = self._holdout_loss()
        state.epoch, state.step, state.sums = state.epoch + 1, 0, {}
        best = holdout < state.best_loss or not self.best
        if best:
            state.best_loss, state.best_epoch = holdout, state.epoch
            self.best = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        training = means.pop("loss")
        state.curve.append({"epoch": state.epoch, "training_loss": training, "holdout_loss": holdout, **means})
        return EpochDone(state.epoch, training, holdout, means, rate, best)

    def _share_buffers(self) -> None:
        """Give every rank the first one's running statistics, so that all measure, and keep, the same network."""
        if self.world > 1:
            for buffer in self.trainee.step.buffers():
                dist.broadcast(buffer, src=0)

    def _holdout_loss(self) -> float:
        """Mean loss over the images that are not trained on, whole batches of this rank's share."""
        total, count = 0.0, 0
        self.trainee.step.eval()
        with torch.no_grad():
            for batch in self._holdout_batches():
                if batch.samples:
                    loss, _ = self.trainee.step(*batch.to(self.device))
                    total, count = total + float(loss) * len(batch.samples), count + len(batch.samples)
        self.trainee.step.train()
        total, images = (self.world * value for value in self._mean_over_ranks([total, float(count)]))
        if not images:
            raise DataError("no image that was held out can be read; check the images, or raise holdout")
        return total / images

    def _holdout_batches(self, every: bool = False) -> Iterator[TrainingBatch]:
        """This rank's share of the held-out images, or all of them."""
        size = self.spec.settings.batch_size
        own = self.spec.holdout if every else self.spec.holdout[self.rank :: self.world]
        few: Sequence[Sequence[Sample]] = [own[start : start + size] for start in range(0, len(own), size)]
        return decoded_batches(few, self.reader, self.preprocess, dict(self.spec.teacher))

    def _mean_over_ranks(self, values: list[float]) -> list[float]:
        if self.world == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor)
        return (tensor / self.world).tolist()

    def _checkpoint(self) -> CheckpointMade:
        data = checkpoint_bytes(
            self.state, self.network, self.best, self.optimiser, self.spec.identity, own_state(self.trainee.step)
        )
        return CheckpointMade(data, self.state.epoch, self.state.step)

    def _agreement(self) -> dict[str, float]:
        """Of the best head with its teacher on all held-out images; the first rank finds it out."""
        if not self.spec.teacher or self.rank > 0 or self.trainee.student is None:
            return {}
        means = MeanMaps(self.spec.teacher[sample.id] for sample in self.spec.training)
        agreement, left = Agreement(), MEASURED
        self.trainee.step.eval()
        with torch.no_grad():
            for batch in self._holdout_batches(every=True):
                images, targets, teacher = batch.to(self.device)
                if targets is None or teacher is None or not batch.samples:
                    continue
                student = resized(self.trainee.student(images, targets), (teacher.shape[1], teacher.shape[2]))
                of_class = np.stack([means.of(int(target)) for target in targets])
                mean = torch.from_numpy(of_class)
                agreement.add(student.cpu(), mean, teacher.cpu())
                maps = {"student": student, "class_mean": mean.to(student), "teacher": teacher}
                for place in range(min(left, len(images))):
                    agreement.add_metrics(
                        map_metrics(
                            self.trainee.model, images[place], int(targets[place]),
                            {name: values[place] for name, values in maps.items()}, self._truth(batch, place),
                        )
                    )  # fmt: skip
                left = max(0, left - len(images))
        return dict(agreement.summary())

    def _closing(self) -> dict[str, Any]:
        """What the network says of itself in the end; the first rank finds it out."""
        return {} if self.rank > 0 else self.closing_facts(self.spec.training[:LOOKED_AT], self.spec.holdout)

    def closing_facts(self, training: Sequence[Sample], holdout: Sequence[Sample]) -> dict[str, Any]:
        """What the network says of itself, by these images; heads say nothing."""
        if self.trainee.closing is None:
            return {}
        return dict(self.trainee.closing(self._images(training), self._images(holdout)))

    def time_steps(self, batches: Sequence[Sequence[Sample]]) -> float:
        """Seconds of a training step for each of its images, decoding apart; the first batch does not count. The network is trained by it."""
        decoded = list(decoded_batches(batches, self.reader, self.preprocess, dict(self.spec.teacher)))
        if self.trainee.begin is not None:
            self.trainee.begin(decoded[0].to(self.device)[0])
        self.trainee.step.train()
        self._train_on(decoded[0])
        begun = time.perf_counter()
        for batch in decoded[1:]:
            self._train_on(batch)
        return (time.perf_counter() - begun) / max(1, sum(len(batch.samples) for batch in decoded[1:]))

    def _images(self, samples: Sequence[Sample]) -> Iterator[Tensor]:
        """Images of these samples, batch by batch, those that can be read.

        Raises:
            DataError: When a whole batch cannot.
        """
        size = self.spec.settings.batch_size
        batches = [samples[start : start + size] for start in range(0, len(samples), size)]
        for batch in decoded_batches(batches, self.reader, self.preprocess, {}):
            if not batch.samples:
                raise DataError(f"none of {len(batches[0])} images can be read; check the images")
            yield batch.to(self.device)[0]

    def _truth(self, batch: TrainingBatch, place: int) -> Tensor | None:
        truth = batch.truths[place]
        return None if truth is None or not bool(truth.any()) else truth.to(self.device)
