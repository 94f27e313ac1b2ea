"""Explains and measures a stream of images, several in flight, all their masked forwards in shared batches.

Push images in, take finished ones out: a shard worker can so announce every image before it is touched.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from .. import statuses
from ..errors import SettingsError
from .explainer import Explainer
from .explanation import Explanation
from .metrics import Subject, rank_pixels
from .metrics.chance_maps import FLOORS, floored
from .metrics.evaluate import Measurement, MetricSet
from .metrics.sanity import SANITY
from .metrics.sanity_check import RandomModel


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
    """In [0, 1], float32, on the CPU."""
    metrics: dict[str, float | None]
    """Every metric of the session; None where it is not defined for the image."""
    mask_counts: tuple[int, ...]
    n_forwards: int
    seconds: float
    """Wall time since the image before left, so that the sum over images is the session's time."""
    floors: dict[str, dict[str, float | None]] | None = None
    """The metrics of each floor's map; None for an image that is not in the sample."""
    surrogate_error: float | None = None
    """Expected RMS error of the map, by the surrogate itself; None where every mask was scored."""
    n_backwards: int = 0
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    """What else the method gives, on the CPU."""


@dataclass(eq=False)
class InFlight:
    """An image between push and pop: first its masks are scored, then its probes and further explanations."""

    key: int
    image: Tensor
    truth: Tensor | None
    label: int | None
    sample_seed: int
    pending: Any = None
    """What the explainer began; None where its map was given."""
    explanation: Explanation | None = None
    measured: Measurement | None = None
    floors: dict[str, Measurement] = field(default_factory=dict)
    sanity: dict[str, float | None] = field(default_factory=dict)
    sanity_passes: tuple[int, int] = (0, 0)

    @property
    def explained(self) -> bool:
        """Whether the explainer is done with it."""
        return self.pending is None or self.pending.done

    @property
    def measurements(self) -> list[Measurement]:
        """Of its own map and of its floors."""
        return [*([self.measured] if self.measured else []), *self.floors.values()]

    @property
    def done(self) -> bool:
        """Whether nothing of it is left in the scorer."""
        return all(one.done for one in self.measurements)

    def advance(self) -> None:
        """Queue what its further explanations need next."""
        for one in self.measurements:
            one.advance()

    @property
    def n_forwards(self) -> int:
        """Forwards spent on metrics."""
        return sum(one.n_forwards for one in self.measurements) + self.sanity_passes[0]

    @property
    def n_backwards(self) -> int:
        """Backwards spent on metrics."""
        return sum(one.n_backwards for one in self.measurements) + self.sanity_passes[1]


class ExplainSession:
    """Explains images one after another with shared batches.

    Args:
        explainer: Its scorer also scores the metrics' probes.
        metrics: Names from `METRICS`; a metric that needs ground truth is None for images without.
        seed: Of the metrics' random draws, at least 0; with each image's own seed it fixes them.
        floors_below: Images whose own seed is less get the metrics of a random map and of a centred Gaussian beside their own.
        sanity_below: Images whose own seed is less are explained once more with randomised weights (`random_model_spearman`).

    Raises:
        SettingsError: When a metric is unknown or the seed is negative.
    """

    def __init__(
        self,
        explainer: Explainer,
        metrics: Sequence[str] = (),
        *,
        seed: int = 0,
        floors_below: int = 0,
        sanity_below: int = 0,
    ):
        if seed < 0:
            raise SettingsError(f"seed must be at least 0, got {seed}")
        self.explainer = explainer
        self.seed = seed
        self.metrics = MetricSet.of(metrics)
        self._floored = MetricSet(floored(self.metrics.metrics))
        self._floors_below = floors_below
        self._sanity_below = sanity_below
        self._random = RandomModel(explainer, seed)
        self._keep_layers = explainer.keep_layers or self.metrics.layers
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
        given: Explanation | None = None,
    ) -> list[Explained]:
        """Take an image in and return those that are finished, in the order they were pushed.

        Args:
            key: Comes back with the image.
            image: In network-input space.
            target: The class to explain; None for the predicted one.
            truth: Ground truth; None where there is none.
            label: The image's class in the data set, which some metrics compare with the prediction.
            sample_seed: Stands for the image in the metrics' random draws, at least 0: a digest of its id. The key by default.
            given: What an earlier session said of the image, map and all: then only the metrics are computed, for its target
                and not for `target`. Its forwards do not count again.

        Raises:
            TargetError: When `target` is no class of the model; nothing was taken in.
            ValueError: When the given map does not have the image's size; nothing was taken in.
        """
        device = next((parameter.device for parameter in self.explainer.model.parameters()), image.device)
        image = image.to(device, non_blocking=True)
        own = key if sample_seed is None else sample_seed
        one = InFlight(key, image, None if truth is None else truth.to(device, non_blocking=True), label, own)
        if given is None:
            one.pending = self.explainer.begin(image, target, own)
        else:
            one.explanation = replace(given, map=fitting(given.map, image), n_forwards=0, n_backwards=0)
        self._masking.append(one)
        return self._advance()

    def finish(self) -> list[Explained]:
        """Score what is queued and return every image still in flight."""
        finished: list[Explained] = []
        while self._masking or self._probing:
            self.explainer.flush()
            finished += self._advance()
        return finished

    def reset(self) -> None:
        """Forget everything in flight."""
        self.explainer.reset()
        self._masking.clear()
        self._probing.clear()

    def _advance(self) -> list[Explained]:
        while sum(self.explainer.advance(one.pending) for one in self._masking if one.pending is not None):
            pass  # a round queued for one image may have filled the batch that another's was waiting for
        while self._masking and self._masking[0].explained:
            self._probing.append(self._masking[0])
            self._start_metrics(self._masking.popleft())
        for one in self._probing:
            one.advance()
        finished: list[Explained] = []
        while self._probing and self._probing[0].done:
            finished.append(self._leave(self._probing.popleft()))
        return finished

    def _start_metrics(self, one: InFlight) -> None:
        if one.pending is not None:
            one.explanation = self.explainer.complete(one.pending, keep_layers=self._keep_layers)
        found = one.explanation
        if found is None or found.map is None or found.target is None or found.prediction is None:
            return
        subject = Subject(
            one.image, found.map, rank_pixels(found.map[None])[0], found.target, found.prediction, one.label, self.seed, one.sample_seed
        )  # fmt: skip
        one.measured = Measurement(self.explainer, self.metrics, subject)
        if one.sample_seed < self._floors_below:
            one.floors = {name: self._floor(name, subject, one.measured) for name in FLOORS}
        if one.sample_seed < self._sanity_below:
            one.sanity[SANITY], one.sanity_passes = self._random.spearman(
                one.image, found.map, found.target, one.sample_seed
            )

    def _floor(self, name: str, subject: Subject, own: Measurement) -> Measurement:
        size = (subject.map.shape[0], subject.map.shape[1])
        heat = FLOORS[name](size, seed=self.seed, sample=subject.sample).to(subject.map)
        floor = replace(subject, map=heat, order=rank_pixels(heat[None])[0])
        return Measurement(self.explainer, self._floored, floor, own.of_image)

    def _leave(self, one: InFlight) -> Explained:
        found = one.explanation
        if found is None:
            raise RuntimeError(f"image {one.key} left before it was explained")
        values = self._measure(one, found)
        floors = {name: floor.values(one.truth) for name, floor in one.floors.items()}
        heat = None if found.map is None else found.map.cpu()
        now, before = time.perf_counter(), self._left
        self._left = now
        return Explained(
            one.key, found.status, found.error, found.prediction, found.target, found.score, found.logit, heat, values,
            found.mask_counts, found.n_forwards + one.n_forwards, now - before, floors or None,
            found.surrogate_error, found.n_backwards + one.n_backwards, {name: extra.cpu() for name, extra in found.extras.items()},
        )  # fmt: skip

    def _measure(self, one: InFlight, found: Explanation) -> dict[str, float | None]:
        sanity: dict[str, float | None] = {SANITY: None} if self._sanity_below else {}
        if one.measured is None:
            return {**self.metrics.undefined, **sanity}
        if not one.measured.finite:
            found.status, found.error, found.map = statuses.NON_FINITE, "a metric's score is not finite", None
            return {**self.metrics.undefined, **sanity}
        return {**one.measured.values(one.truth, found.layer_maps), **sanity, **one.sanity}


def fitting(heat: Tensor | None, image: Tensor) -> Tensor | None:
    """A given map on the image's device.

    Raises:
        ValueError: When it does not have the image's size.
    """
    if heat is None:
        return None
    if heat.shape != image.shape[1:]:
        raise ValueError(
            f"the given map is {tuple(heat.shape)}, its image {tuple(image.shape[1:])}; they must be the same"
        )
    return heat.to(image.device)
