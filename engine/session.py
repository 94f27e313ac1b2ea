"""Explains and measures a stream of images, several in flight, all their passes in shared batches.

Push images in, take finished ones out: so a shard worker can report every image before it is touched.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .. import statuses
from ..errors import SettingsError
from .explainer import Explainer
from .explanation import Explanation, check_target
from .layers.eval_mode import in_eval_mode
from .metrics import Subject, rank_pixels
from .metrics.chance_maps import CHANCE_MAPS, chance_metrics
from .metrics.choosing_metric import refuse_choosing_metric
from .metrics.evaluate import (
    Measurable,
    Measurement,
    MetricSet,
    ProbeJob,
    measure,
    measured_together,
    probe_jobs,
    values_of,
)
from .metrics.sanity import SANITY
from .metrics.sanity_check import RandomModel, SanityCheck
from .requests import Batched, Steps, Together
from .scheduler import Conversation, Scheduler
from .scoring.object_scenes import object_truth
from .scoring.whole_image import ClassOverview, overview_of
from .time_spent import WorkMeter


@dataclass(eq=False, kw_only=True)
class Explained(Explanation):
    """An image that has left the session; everything is on the host."""

    key: int
    metrics: dict[str, float | None] = field(default_factory=dict)
    """Every metric of the session; None where it is not defined for the image."""
    seconds: float = 0.0
    """Wall time since the image before left, so that the sum over images is the session's time."""
    chance: dict[str, dict[str, float | None]] | None = None
    """The metrics of each chance map; None for an image that is not in the sample."""
    overview: ClassOverview | None = None
    """What the model says of the whole image, where the session was asked for it; None for a given explanation."""


@dataclass(frozen=True, eq=False)
class Pushed:
    """An image as it was given to the session."""

    key: int
    image: Tensor
    truth: Tensor | None
    label: int | None
    sample: int
    """Stands for the image in random draws."""
    is_given: bool = False
    """Its explanation was there before."""


@dataclass(frozen=True)
class OverviewWanted:
    """What of a whole image is kept."""

    top_k: int = 5
    """Classes to list, at least 1; all where there are at most 100."""
    features: bool = True
    """Whether to look for the penultimate features."""


class ExplainSession:
    """Explains images one after another with shared batches.

    Args:
        explainer: Its scorer also scores the metrics' probes.
        metrics: Names from `METRICS`; a metric that needs ground truth is None for images without.
        seed: Of the metrics' random draws, at least 0; with each image's own seed it fixes them.
        chance_below: Images whose own seed is less get the metrics of a random map and of a centred Gaussian beside their own.
        sanity_below: Images whose own seed is less are explained once more with randomised weights (`random_model_spearman`).
        overview: Give what the model says of the whole image beside the explanation. Where the method makes a forward of the unmasked
            image, as nearly all do, that costs none.
        meter: Is charged with the work.

    Raises:
        SettingsError: When a metric is unknown or is the one that the method chooses its maps by, or the seed is negative.
    """

    def __init__(
        self,
        explainer: Explainer,
        metrics: Sequence[str] = (),
        *,
        seed: int = 0,
        chance_below: int = 0,
        sanity_below: int = 0,
        overview: OverviewWanted | None = None,
        meter: WorkMeter | None = None,
    ):
        if seed < 0:
            raise SettingsError(f"seed must be at least 0, got {seed}")
        self.seed = seed
        self.metrics = MetricSet.of(metrics)
        declared = explainer.declared
        refuse_choosing_metric(declared.name, declared.selected_by(explainer), metrics)
        self.explainer = explainer
        self._keeping = explainer.keeping(explainer.keep_layers or self.metrics.layers)
        self._overview = overview
        if overview is not None:
            self._keeping = self._keeping.noting(features=overview.features)
        self._chance_metrics = MetricSet(chance_metrics(self.metrics.metrics))
        self._chance_below = chance_below
        self._sanity_below = sanity_below
        self._random = RandomModel(explainer, seed)
        self._scheduler = Scheduler(meter or WorkMeter())
        self._in_flight: deque[tuple[int, Conversation]] = deque()
        self._left = time.perf_counter()
        self._eval_mode, self._holds = ExitStack(), False

    @property
    def alive(self) -> tuple[int, ...]:
        """Keys of the images in flight, oldest first."""
        return tuple(key for key, _ in self._in_flight)

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
            target: The class to explain, or one object of it (`ObjectTarget`); None for the predicted one.
            truth: Ground truth; None where there is none. For an object only what of it touches the object counts.
            label: The image's class in the data set, which some metrics compare with the prediction.
            sample_seed: Stands for the image in random draws, at least 0: a digest of its id. The key by default.
            given: What an earlier session said of the image, map and all: then only the metrics are computed, for its target
                and not for `target`. Its forwards do not count again. Without a prediction it is a map that somebody else made, and the
                model is asked first.

        Raises:
            TargetError: When `target` is no class of the model; nothing was taken in.
            ValueError: When the given map does not have the image's size; nothing was taken in.
        """
        device = next((parameter.device for parameter in self.explainer.model.parameters()), image.device)
        image = image.to(device, non_blocking=True)
        own = key if sample_seed is None else sample_seed
        truth = None if truth is None else object_truth(truth.to(device, non_blocking=True), target)
        pushed = Pushed(key, image, truth, label, own, given is not None)
        with self._held():
            explaining = self._keeping.start(image, target, own) if given is None else self._stored(given, image, own)
            self._in_flight.append((key, self._scheduler.start(self._work(pushed, explaining))))
            self._scheduler.advance()
            return self._finished()

    def finish(self) -> list[Explained]:
        """Score what is queued and return every image still in flight."""
        finished: list[Explained] = []
        with self._held():
            while self._in_flight:
                self._scheduler.flush()
                finished += self._finished()
        return finished

    def reset(self) -> None:
        """Forget everything in flight."""
        self._scheduler.reset()
        self._in_flight.clear()
        self._let_go()

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Keep the model in eval mode while images are in flight, and give it back as it came when the last has left or one breaks."""
        if not self._holds:
            self._eval_mode.enter_context(in_eval_mode(self.explainer.model))
            self._holds = True
        try:
            yield
        except BaseException:
            self._let_go()
            raise
        if not self._in_flight:
            self._let_go()

    def _let_go(self) -> None:
        self._eval_mode.close()
        self._holds = False

    def _finished(self) -> list[Explained]:
        finished: list[Explained] = []
        while self._in_flight and self._in_flight[0][1].done:
            finished.append(self._in_flight.popleft()[1].result)
            now, before = time.perf_counter(), self._left
            self._left, finished[-1].seconds = now, now - before
        return finished

    def _work(self, pushed: Pushed, explaining: Steps[Explanation]) -> Steps[Explained]:
        """An image's way through the session: explained, measured, and off to the host."""
        explanation = yield from explaining
        if self._overview is not None and explanation.whole is None and not pushed.is_given:
            seen = yield self._keeping.rows_of(self._keeping.read_logits, pushed.image, None, pushed.sample)
            explanation.whole, explanation.n_forwards = seen.whole, explanation.n_forwards + 1
        measured, values, chance = None, None, {}
        measures = bool(self.metrics.metrics) or pushed.sample < max(self._chance_below, self._sanity_below)
        target, prediction = explanation.target, explanation.prediction
        if measures and explanation.map is not None and target is not None and prediction is not None:
            order = yield from ranked(explanation.map)
            subject = Subject(
                pushed.image,
                explanation.map,
                order,
                target,
                prediction,
                pushed.label,
                self.seed,
                pushed.sample,
                pushed.truth,
            )
            measured = yield from self._measure(subject)
            values = yield from computed(Measurable(measured.own, pushed.truth, explanation.layer_maps))
            for name, each in measured.chance.items():
                chance[name] = (yield from computed(Measurable(each, pushed.truth))) or each.wanted.undefined
        return self._leaving(pushed, explanation, measured, values, chance)

    def _stored(self, given: Explanation, image: Tensor, sample: int) -> Steps[Explanation]:
        """A conversation about an explanation that is there already; its passes do not count again.

        Raises:
            ValueError: When its map does not have the image's size.
            TargetError: When its target is no class of the model.
        """
        map_ = given.map
        if map_ is not None and map_.shape != image.shape[1:]:
            raise ValueError(
                f"the given map is {tuple(map_.shape)}, its image {tuple(image.shape[1:])}; they must be the same"
            )
        own = None if map_ is None else map_.to(image.device)
        if own is None or given.prediction is not None:
            return finished(replace(given, map=own, n_forwards=0, n_backwards=0))
        if given.target is not None:
            check_target(given.target, self.explainer.class_count(image))
        return self._completed(own, image, given.target, sample)

    def _completed(self, map_: Tensor, image: Tensor, target: int | None, sample: int) -> Steps[Explanation]:
        """What the model says of an image beside a map of it."""
        said = yield self.explainer.rows_of(self.explainer.read_logits, image, target, sample)
        return said.explanation(map_)

    def _measure(self, subject: Subject) -> Steps[ImageMetrics]:
        """The metrics of the image's own map, of chance maps and of a random model's, all in flight together."""
        own = yield from probe_jobs(self.metrics, subject)
        shared = {name: probe for name, probe in own.items() if not probe.of_map}
        names = list(CHANCE_MAPS) if subject.sample < self._chance_below else []
        checks = []
        if subject.sample < self._sanity_below:
            checks = [self._random.compare(subject.image, subject.map, subject.target, subject.sample)]
        measured = yield Together(
            [
                measure(self.explainer, self.metrics, subject, own),
                *(self._measure_chance(name, subject, shared) for name in names),
                *checks,
            ]
        )
        chance = dict(zip(names, measured[1 : 1 + len(names)], strict=True))
        return ImageMetrics(measured[0], chance, measured[-1] if checks else None)

    def _measure_chance(self, name: str, subject: Subject, shared: dict[str, ProbeJob]) -> Steps[Measurement]:
        size = (subject.map.shape[0], subject.map.shape[1])
        map_ = CHANCE_MAPS[name](size, seed=self.seed, sample=subject.sample).to(subject.map)
        chance = replace(subject, map=map_, order=(yield from ranked(map_)))
        made = yield from probe_jobs(self._chance_metrics, chance)
        jobs = {name: probe for name, probe in made.items() if name not in shared}
        return (yield from measure(self.explainer, self._chance_metrics, chance, jobs, shared))

    def _leaving(
        self,
        pushed: Pushed,
        explanation: Explanation,
        measured: ImageMetrics | None,
        own: dict[str, float | None] | None,
        chance: dict[str, dict[str, float | None]],
    ) -> Explained:
        values = dict[str, float | None](self.metrics.undefined)
        if self._sanity_below:
            values[SANITY] = None
        facts: dict[str, Any] = {}
        if measured is not None:
            facts = {
                "n_forwards": explanation.n_forwards + measured.n_forwards,
                "n_backwards": explanation.n_backwards + measured.n_backwards,
            }
            if own is None:
                facts |= {"status": statuses.NON_FINITE, "error": "a metric's score is not finite", "map": None}
            else:
                values |= own
                if measured.sanity is not None:
                    values[SANITY] = measured.sanity.value
        overview = None
        if explanation.whole is not None and self._overview is not None:
            overview = overview_of(
                explanation.whole, self.explainer.confidence, label=pushed.label, top_k=self._overview.top_k
            )
        left = replace(
            explanation,
            layer_maps=None,
            whole=None,
            extras={name: extra.cpu() for name, extra in explanation.extras.items()},
            **facts,
        )
        left.map = None if left.map is None else left.map.cpu()
        return Explained(**vars(left), key=pushed.key, metrics=values, chance=chance or None, overview=overview)


@dataclass(frozen=True, eq=False)
class ImageMetrics:
    """All that was measured of one image."""

    own: Measurement
    chance: dict[str, Measurement]
    """By chance map."""
    sanity: SanityCheck | None

    @property
    def n_forwards(self) -> int:
        """Forwards spent on metrics."""
        return sum(each.n_forwards for each in self._all)

    @property
    def n_backwards(self) -> int:
        """Backwards spent on metrics."""
        return sum(each.n_backwards for each in self._all)

    @property
    def _all(self) -> list[Measurement | SanityCheck]:
        return [self.own, *self.chance.values(), *([] if self.sanity is None else [self.sanity])]


def finished(explanation: Explanation) -> Steps[Explanation]:
    """A conversation that has nothing to ask."""
    yield from ()
    return explanation


def ranked(map_: Tensor) -> Steps[Tensor]:
    """Flat pixel indices of a map, most relevant first, several images' in one sort."""
    return (yield Batched(ranked_together, map_, map_.shape, measured_together(map_)))


def ranked_together(maps: list[Tensor]) -> list[Tensor]:
    """The order of every map."""
    return list(rank_pixels(torch.stack(maps)))


def computed(item: Measurable) -> Steps[dict[str, float | None] | None]:
    """The metrics of a map, several images' together."""
    limit = measured_together(item.measurement.subject.map)
    return (yield Batched(values_of, item, item.key, limit))
