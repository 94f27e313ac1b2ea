"""Times forwards and compares maps on this process's device, for the trial that chooses how a run computes."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from statistics import fmean

import torch
from torch import Tensor

from ...engine.scoring.budget import Budget
from ...engine.scoring.memory_errors import is_out_of_memory
from ...engine.scoring.pace_trial import AskedPace, PaceTrial, choose_pace
from ...engine.scoring.precision import has_bf16, resolved_precision
from ...engine.scoring.scoring_options import FORWARDS, ForwardKind, Scoring
from ...engine.session import Explained, ExplainSession
from ...errors import SampleError
from ..protocols import SampleReader
from ..samples import Sample
from ..training.agreement import weighted_jaccard
from .build import ModelEngine, build_engine
from .process_state import restore_process_state
from .shard_attempt import seed_of
from .spec import WorkerSpec

TIMED_SECONDS = 0.5
"""Of forwards for one rate, at least; or one batch."""
COMPARED_IMAGES = 8
BUDGET_IMAGES = 4
"""By which a budget is timed."""
COMPARED_SECONDS = 30.0
"""After which no further image is explained in float32."""


class EngineOnTrial:
    """The engine's own scorer and method, timed.

    Args:
        engine: Over the run's model.
        images: Network inputs on its device, at least 1; the first is the example for rates.
        seeds: Of the images, for methods that draw.
        clock: Seconds; the device has finished what it was given before it is read.
    """

    def __init__(
        self,
        engine: ModelEngine,
        images: Sequence[Tensor],
        seeds: Sequence[int] | None = None,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self._engine = engine
        self._images = list(images)
        self._seeds = list(range(len(images))) if seeds is None else list(seeds)
        self._clock = clock
        self._device = images[0].device
        self._exact: list[Tensor | None] | None = None
        self.image_seconds: float | None = None
        self.image_forwards: float | None = None

    @property
    def name(self) -> str:
        return self._engine.device

    @property
    def precisions(self) -> Sequence[str]:
        names = ["fp32"]
        if resolved_precision("tf32", self._device) == "tf32" and torch.cuda.get_device_capability(self._device) >= (
            8,
            0,
        ):
            names.append("tf32")
        return [*names, "bf16"] if has_bf16(self._device) else names

    @property
    def forwards(self) -> Sequence[ForwardKind]:
        return [kind for kind in FORWARDS if kind != "cuda_graph" or self._device.type == "cuda"]

    @property
    def compared(self) -> int:
        return sum(exact is not None for exact in self._exact or ())

    def rate(self, precision: str, forward: ForwardKind, batch_size: int) -> float | None:
        scorer = self._engine.explainer(self._scoring(precision, forward, batch_size)).scorer
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore"
                )  # a stand-in that is not possible is as fast as the plain forward, which is to be found out
                scorer.warm_up(self._images[0], full=True)
                rows, begun = 0, self._now()
                while rows == 0 or self._now() - begun < TIMED_SECONDS:
                    rows += scorer.warm_up(self._images[0], full=True)
                seconds = self._now() - begun
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            seconds = 0.0
            rows = 0
        fits = rows and min(scorer.micro_batch, scorer.batch_size) >= batch_size
        del scorer
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return rows / max(seconds, 1e-9) if fits else None

    def agreement(self, precision: str, batch_size: int) -> float | None:
        if self._exact is None:
            self.explain_exactly(batch_size)
        exact = self._exact or []
        maps = [
            explained.map for explained in self._explained(self._scoring(precision, "eager", batch_size), len(exact))
        ]
        pairs = [(own, other) for own, other in zip(maps, exact, strict=True) if own is not None and other is not None]
        if not pairs:
            return None
        return float(torch.cat([weighted_jaccard(own[None], other[None]) for own, other in pairs]).mean())

    def image_seconds_with(self, budget: Budget, precision: str, forward: ForwardKind, batch_size: int) -> float:
        scoring = replace(self._scoring(precision, forward, batch_size), budget=budget)
        session, images = ExplainSession(self._engine.explainer(scoring)), self._images[:BUDGET_IMAGES]
        begun = 0.0
        for _ in range(2):  # the first round warms up
            begun = self._now()
            for place, image in enumerate(images):
                session.push(place, image, sample_seed=self._seeds[place])
            session.finish()
        return (self._now() - begun) / len(images)

    def explain_exactly(self, batch_size: int) -> None:
        """Explain as many images in float32 as there is time for, which also tells what an image takes."""
        begun = self._now()
        exact = list(self._explained(self._scoring("fp32", "eager", batch_size), len(self._images), COMPARED_SECONDS))
        self._exact = [explained.map for explained in exact]
        self.image_seconds = (self._now() - begun) / len(exact)
        self.image_forwards = fmean(explained.n_forwards + 2 * explained.n_backwards for explained in exact)

    def _explained(self, scoring: Scoring, count: int, patience: float = math.inf) -> Iterator[Explained]:
        """One image after another, so that each fills the same batches whatever else is compared."""
        session, begun = ExplainSession(self._engine.explainer(scoring)), self._now()
        for place in range(count):
            if place and self._now() - begun > patience:
                return
            yield from session.push(place, self._images[place], sample_seed=self._seeds[place])
            yield from session.finish()

    def _scoring(self, precision: str, forward: ForwardKind, batch_size: int) -> Scoring:
        return replace(self._engine.scoring, precision=precision, forward=forward, batch_size=batch_size)

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return self._clock()


def try_paces(
    spec: WorkerSpec, reader: SampleReader, samples: Sequence[Sample], asked: AskedPace, images: float
) -> PaceTrial | None:
    """Choose how the run computes, on this process's device.

    Args:
        spec: Of the run's workers, as far as it is settled.
        reader: Bytes of the images.
        samples: A few of the data set; those that cannot be read are passed over.
        asked: What the user decided.
        images: That each worker has before it.

    Returns:
        None where none of the samples can be read.
    """
    with restore_process_state():
        built = build_engine(replace(spec, tried_on=None), reader)
        assert isinstance(built, ModelEngine)
        inputs, seeds = [], []
        for sample in samples[:COMPARED_IMAGES]:
            try:
                inputs.append(built.on_device(built.prepare(sample, reader).image))
            except SampleError:
                continue
            seeds.append(seed_of(sample.id))
        if not inputs:
            return None
        device = EngineOnTrial(built, inputs, seeds)
        device.explain_exactly(spec.scoring.batch_size)
        return choose_pace(device, asked, images=images)
