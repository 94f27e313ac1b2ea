"""Explains and measures a stream of images, several in flight, all their masked forwards in shared batches.

Push images in, take finished ones out: a shard worker can so announce every image before it is touched.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from . import statuses
from .errors import SettingsError, did_you_mean
from .further import FurtherMaps
from .metrics import METRIC_PRESETS, METRICS, Evidence, Metric, Subject, rank_pixels
from .scorer import Job
from .sise import SISE, Explanation, Pending


@dataclass(eq=False)
class Explained:
    """An image that has left the session; everything is on the host."""

    key: int
    status: str
    error: str | None
    prediction: int | None
    target: int | None
    score: float | None
    logit: float | None
    map: Float[Tensor, "height width"] | None
    """S / B, in [0, 1], float32, on the CPU."""
    metrics: dict[str, float | None]
    """Every metric of the session; None where it is not defined for the image."""
    mask_counts: tuple[int, ...]
    n_forwards: int
    seconds: float
    """Wall time since the image before left, so that the sum over images is the session's time."""


@dataclass(eq=False)
class InFlight:
    """An image between push and pop: first its masks are scored, then its probes and further explanations."""

    key: int
    image: Tensor
    truth: Tensor | None
    label: int | None
    sample_seed: int
    pending: Pending
    explanation: Explanation | None = None
    order: Tensor | None = None
    probes: dict[str, Job] = field(default_factory=dict)
    notes: dict[str, Tensor] = field(default_factory=dict)
    further: dict[str, FurtherMaps] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether nothing of it is left in the scorer."""
        return all(job.done for job in self.probes.values()) and all(maps.done for maps in self.further.values())

    @property
    def n_forwards(self) -> int:
        """Forwards spent on metrics."""
        return sum(job.count for job in self.probes.values()) + sum(maps.n_forwards for maps in self.further.values())


class ExplainSession:
    """Explains images one after another with shared batches.

    Args:
        sise: The explainer; its scorer also scores the metrics' probes.
        metrics: Names from `METRICS`; a metric that needs ground truth is None for images without.
        seed: Of the metrics' random draws, at least 0; with each image's own seed it fixes them.

    Raises:
        SettingsError: When a metric is unknown or the seed is negative.
    """

    def __init__(self, sise: SISE, metrics: Sequence[str] = (), *, seed: int = 0):
        if seed < 0:
            raise SettingsError(f"seed must be at least 0, got {seed}")
        self.sise = sise
        self.seed = seed
        self.metrics = [find_metric(name) for name in metrics]
        self._probes = list({probe.name: probe for metric in self.metrics for probe in metric.probes}.values())
        self._explains = list({one.name: one for metric in self.metrics for one in metric.explains}.values())
        self._keep_layers = sise.keep_layers or any(metric.layers for metric in self.metrics)
        self._masking: deque[InFlight] = deque()
        self._probing: deque[InFlight] = deque()
        self._left = time.perf_counter()

    @property
    def alive(self) -> tuple[int, ...]:
        """Keys of the images in flight, oldest first."""
        return tuple(one.key for one in (*self._probing, *self._masking))

    def push(
        self,
        key: int,
        image: Float[Tensor, "channel height width"],
        *,
        target: int | None = None,
        truth: Bool[Tensor, "height width"] | None = None,
        label: int | None = None,
        sample_seed: int | None = None,
    ) -> list[Explained]:
        """Take an image in and return those that are finished, in the order they were pushed.

        Args:
            key: Comes back with the image.
            image: In network-input space.
            target: The class to explain; None for the predicted one.
            truth: Ground truth; None where there is none.
            label: The image's class in the data set, which some metrics compare with the prediction.
            sample_seed: Stands for the image in the metrics' random draws, at least 0: a digest of its id. The key by default.

        Raises:
            TargetError: When `target` is no class of the model; nothing was taken in.
        """
        device = next((parameter.device for parameter in self.sise.model.parameters()), image.device)
        image = image.to(device, non_blocking=True)
        pending = self.sise.begin(image, target)
        own = key if sample_seed is None else sample_seed
        self._masking.append(InFlight(key, image, None if truth is None else truth.to(device), label, own, pending))
        return self._advance()

    def finish(self) -> list[Explained]:
        """Score what is queued and return every image still in flight."""
        finished: list[Explained] = []
        while self._masking or self._probing:
            self.sise.scorer.flush()
            finished += self._advance()
        return finished

    def reset(self) -> None:
        """Forget everything in flight."""
        self.sise.scorer.reset()
        self._masking.clear()
        self._probing.clear()

    def _advance(self) -> list[Explained]:
        while self._masking and self._masking[0].pending.done:
            self._probing.append(self._masking[0])
            self._start_metrics(self._masking.popleft())
        finished: list[Explained] = []
        while self._probing and self._probing[0].done:
            finished.append(self._leave(self._probing.popleft()))
        return finished

    def _start_metrics(self, one: InFlight) -> None:
        found = one.explanation = self.sise.complete(one.pending, keep_layers=self._keep_layers)
        if found.map is None or found.target is None or found.prediction is None:
            return
        one.order = rank_pixels(found.map[None])[0]
        subject = Subject(
            one.image, found.map, one.order, found.target, found.prediction, one.label, self.seed, one.sample_seed
        )  # fmt: skip
        for probe in self._probes:
            variants = probe.make(subject)
            one.probes[probe.name] = Job(probe.count, found.target, variants.fill)
            if variants.notes is not None:
                one.notes[probe.name] = variants.notes
        if one.probes:
            self.sise.scorer.submit(*one.probes.values(), like=one.image)
        for wanted in self._explains:
            one.further[wanted.name] = FurtherMaps(self.sise, wanted, subject)

    def _leave(self, one: InFlight) -> Explained:
        found = one.explanation
        if found is None:
            raise RuntimeError(f"image {one.key} left before it was explained")
        values = self._measure(one, found)
        heat = None if found.map is None else found.map.cpu()
        now, before = time.perf_counter(), self._left
        self._left = now
        return Explained(
            one.key, found.status, found.error, found.prediction, found.target, found.score, found.logit, heat, values,
            found.mask_counts, found.n_forwards + one.n_forwards, now - before,
        )  # fmt: skip

    def _measure(self, one: InFlight, found: Explanation) -> dict[str, float | None]:
        if found.map is None or one.order is None:
            return {metric.name: None for metric in self.metrics}
        scores = {name: job.scores[None] for name, job in one.probes.items()}
        if not all(bool(values.isfinite().all()) for values in scores.values()):
            found.status, found.error, found.map = statuses.NON_FINITE, "a metric's score is not finite", None
            return {metric.name: None for metric in self.metrics}
        truth = None if one.truth is None else one.truth[None]
        evidence = Evidence(
            maps=found.map[None],
            order=one.order[None],
            truth=truth,
            probes=scores,
            notes={name: notes[None] for name, notes in one.notes.items()},
            explained={name: further.maps[None] for name, further in one.further.items()},
            layer_maps=None if found.layer_maps is None else found.layer_maps[None],
        )
        asked = [metric for metric in self.metrics if metric.needs != "truth" or truth is not None]
        if not asked:
            return {metric.name: None for metric in self.metrics}
        values = torch.stack([metric.measure(evidence)[0].double() for metric in asked]).tolist()
        measured = {metric.name: None if value != value else value for metric, value in zip(asked, values, strict=True)}
        return {metric.name: measured.get(metric.name) for metric in self.metrics}


def find_metric(name: str) -> Metric:
    """The metric of that name.

    Raises:
        SettingsError: When there is none.
    """
    if name not in METRICS:
        raise SettingsError(
            f"unknown metric {name!r}{did_you_mean(name, [*METRICS, *METRIC_PRESETS])}; "
            f"give a preset ({', '.join(METRIC_PRESETS)}) or names out of {', '.join(METRICS)}"
        )
    return METRICS[name]
