"""The metrics of one map of one image: what they need is scored in shared batches, then they are measured.

Whose map it is does not matter: an explanation just made, a stored one, another method's, or a floor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ...errors import SettingsError, did_you_mean
from ..explainer import Explainer
from ..scoring.masked_scorer import Job
from . import METRIC_PRESETS, METRICS, Evidence, ExtraExplanations, Metric, Probe, Subject
from .extra_explanations import FurtherMaps


@dataclass(frozen=True)
class MetricSet:
    """Metrics that are measured together, so that what they share is paid once."""

    metrics: tuple[Metric, ...]

    @classmethod
    def of(cls, names: Iterable[str]) -> MetricSet:
        """The metrics of these names.

        Raises:
            SettingsError: When there is none of a name.
        """
        return cls(tuple(find_metric(name) for name in names))

    @cached_property
    def probes(self) -> Sequence[Probe]:
        """Every probe once."""
        return list({probe.name: probe for metric in self.metrics for probe in metric.probes}.values())

    @cached_property
    def explains(self) -> Sequence[ExtraExplanations]:
        """Every kind of further explanation once."""
        return list({one.name: one for metric in self.metrics for one in metric.explains}.values())

    @property
    def layers(self) -> bool:
        """Whether one of them reads the block maps."""
        return any(metric.layers for metric in self.metrics)

    @property
    def undefined(self) -> dict[str, float | None]:
        """The values for an image without a map."""
        return {metric.name: None for metric in self.metrics}


class Measurement:
    """The metrics of one map, in flight or done. Making it queues the probes and begins the further explanations.

    Args:
        explainer: Its scorer scores the probes; it makes the further explanations.
        wanted: What to measure.
        subject: The image and its map.
        scored: Probes by name that need no second scoring, because they do not depend on the map.
    """

    def __init__(
        self, explainer: Explainer, wanted: MetricSet, subject: Subject, scored: Mapping[str, Job] | None = None
    ):
        self._wanted = wanted
        self._subject = subject
        self._notes: dict[str, Tensor] = {}
        self._shared = {probe.name: scored[probe.name] for probe in wanted.probes if scored and probe.name in scored}
        self._own = {probe.name: self._job(probe) for probe in wanted.probes if probe.name not in self._shared}
        if self._own:
            explainer.scorer.submit(*self._own.values(), like=subject.image)
        self._further = {one.name: FurtherMaps(explainer, one, subject) for one in wanted.explains}

    @property
    def done(self) -> bool:
        """Whether nothing of it is left in the scorer."""
        jobs = (*self._own.values(), *self._shared.values())
        return all(job.done for job in jobs) and all(maps.done for maps in self._further.values())

    def advance(self) -> None:
        """Queue what the further explanations need next, and make maps of what is scored."""
        for maps in self._further.values():
            maps.advance()

    @property
    def n_forwards(self) -> int:
        """Forwards spent on it, probes shared with another measurement apart."""
        return sum(job.count for job in self._own.values()) + sum(maps.n_forwards for maps in self._further.values())

    @property
    def n_backwards(self) -> int:
        """Backwards spent on it."""
        return sum(maps.n_backwards for maps in self._further.values())

    @property
    def of_image(self) -> dict[str, Job]:
        """The probes whose scores another map of the same image and target may use too."""
        return {
            probe.name: self._own[probe.name]
            for probe in self._wanted.probes
            if not probe.of_map and probe.name in self._own
        }

    @property
    def finite(self) -> bool:
        """Whether every score is a number; only once `done`."""
        return all(bool(job.scores.isfinite().all()) for job in (*self._own.values(), *self._shared.values()))

    def values(
        self,
        truth: Bool[Tensor, "height width"] | None = None,
        layer_maps: Float[Tensor, "layer height width"] | None = None,
    ) -> dict[str, float | None]:
        """Every metric once `done`; None where it is not defined for the map, or asks for ground truth or block maps that are not there."""
        asked = [
            metric for metric in self._wanted.metrics
            if (metric.needs != "truth" or truth is not None) and (not metric.layers or layer_maps is not None)
        ]  # fmt: skip
        if not asked or not self.finite:
            return self._wanted.undefined
        evidence = self._evidence(truth, layer_maps)
        found = torch.stack([metric.measure(evidence)[0].double() for metric in asked]).tolist()
        measured = {metric.name: None if value != value else value for metric, value in zip(asked, found, strict=True)}
        return {metric.name: measured.get(metric.name) for metric in self._wanted.metrics}

    def _job(self, probe: Probe) -> Job:
        variants = probe.make(self._subject)
        if variants.notes is not None:
            self._notes[probe.name] = variants.notes
        return Job(probe.count, self._subject.target, variants.fill)

    def _evidence(self, truth: Tensor | None, layer_maps: Tensor | None) -> Evidence:
        return Evidence(
            maps=self._subject.map[None],
            order=self._subject.order[None],
            truth=None if truth is None else truth[None],
            probes={name: job.scores[None] for name, job in {**self._own, **self._shared}.items()},
            notes={name: notes[None] for name, notes in self._notes.items()},
            explained={name: further.maps[None] for name, further in self._further.items()},
            layer_maps=None if layer_maps is None else layer_maps[None],
        )


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
