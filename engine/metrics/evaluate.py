"""The metrics of one map of one image: what they need is scored in shared batches, then they are measured.

Whose map it is does not matter: an explanation just made, a stored one, another method's, or a chance map.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ...errors import SettingsError, did_you_mean
from ..explainer import Explainer
from ..requests import Job, Score, Steps, Together
from ..scoring.masked_scorer import Scorer
from ..transfer import to_host
from . import METRIC_PRESETS, METRICS, Evidence, ExtraExplanations, Metric, Probe, Subject
from .extra_explanations import ExtraMaps, explain_more


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
        """Every kind of extra explanation once."""
        return list({extra.name: extra for metric in self.metrics for extra in metric.explains}.values())

    @property
    def layers(self) -> bool:
        """Whether one of them reads the block maps."""
        return any(metric.layers for metric in self.metrics)

    @property
    def undefined(self) -> dict[str, float | None]:
        """The values for an image without a map."""
        return {metric.name: None for metric in self.metrics}


@dataclass(eq=False)
class Measurement:
    """What the metrics of one map are computed from, all of it scored."""

    wanted: MetricSet
    subject: Subject
    probed: dict[str, ProbeJob]
    """Every probe by name."""
    extra: dict[str, ExtraMaps]
    """Every kind of extra explanation by name."""
    n_forwards: int
    """Forwards spent on it; probes that it shares with another measurement apart."""
    n_backwards: int

    def values(
        self,
        truth: Bool[Tensor, "height width"] | None = None,
        layer_maps: Float[Tensor, "layer height width"] | None = None,
    ) -> dict[str, float | None] | None:
        """Every metric, read from the device in one piece; None where it is not defined for the map, or asks for ground truth or block
        maps that are not there. None altogether where a score is not a number."""
        asked = [
            metric for metric in self.wanted.metrics
            if (metric.needs != "truth" or truth is not None) and (not metric.layers or layer_maps is not None)
        ]  # fmt: skip
        evidence = self._evidence(truth, layer_maps)
        numbers = [metric.measure(evidence)[0].double() for metric in asked]
        numbers += [probe.job.scores.isfinite().all().double() for probe in self.probed.values()]
        if not numbers:
            return self.wanted.undefined
        values = to_host(torch.stack(numbers))
        if not all(values[len(asked) :]):
            return None
        measured = {
            metric.name: None if value != value else value for metric, value in zip(asked, values, strict=False)
        }
        return {metric.name: measured.get(metric.name) for metric in self.wanted.metrics}

    def _evidence(self, truth: Tensor | None, layer_maps: Tensor | None) -> Evidence:
        noted = {name: probe.notes for name, probe in self.probed.items() if probe.notes is not None}
        return Evidence(
            maps=self.subject.map[None],
            order=self.subject.order[None],
            truth=None if truth is None else truth[None],
            probes={name: probe.job.scores[None] for name, probe in self.probed.items()},
            notes={name: notes[None] for name, notes in noted.items()},
            explained={name: extra.maps[None] for name, extra in self.extra.items()},
            layer_maps=None if layer_maps is None else layer_maps[None],
        )


@dataclass(frozen=True, eq=False)
class ProbeJob:
    """A probe of one map, to be scored or scored."""

    job: Job
    notes: Float[Tensor, " variant"] | None
    of_map: bool
    reads: Literal["confidence", "logit"]


def probe_jobs(wanted: MetricSet, subject: Subject) -> dict[str, ProbeJob]:
    """The probes of a map by name, to be scored."""
    made = dict[str, ProbeJob]()
    for probe in wanted.probes:
        variants = probe.make(subject)
        job = Job(probe.count, subject.target, variants.fill)
        made[probe.name] = ProbeJob(job, variants.notes, probe.of_map, probe.reads)
    return made


def measure(
    explainer: Explainer,
    wanted: MetricSet,
    subject: Subject,
    probes: Mapping[str, ProbeJob],
    shared: Mapping[str, ProbeJob] | None = None,
) -> Steps[Measurement]:
    """Score what the metrics of one map need.

    Args:
        explainer: Its scorer scores the probes; it makes the extra explanations.
        wanted: What to measure.
        subject: The image and its map.
        probes: Of this map, see `probe_jobs`.
        shared: Probes that another measurement has scored, because they do not depend on the map.
    """
    jobs = [probe.job for probe in probes.values()]
    answers = yield Together(
        [
            scored(explainer.scorer, subject, [probe.job for probe in probes.values() if probe.reads == "confidence"]),
            scored(explainer.logit_scorer, subject, [probe.job for probe in probes.values() if probe.reads == "logit"]),
            *(explain_more(explainer, kind, subject) for kind in wanted.explains),
        ]
    )
    extra = dict(zip((kind.name for kind in wanted.explains), answers[2:], strict=True))
    return Measurement(
        wanted,
        subject,
        {**(shared or {}), **probes},
        extra,
        sum(job.count for job in jobs) + sum(maps.n_forwards for maps in extra.values()),
        sum(maps.n_backwards for maps in extra.values()),
    )


def scored(scorer: Scorer, subject: Subject, jobs: Sequence[Job]) -> Steps[None]:
    """Score probes."""
    if jobs:
        yield Score(scorer, subject.image, jobs)


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
