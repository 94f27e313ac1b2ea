"""The metrics of one map of one image: what they need is scored in shared batches, then they are measured.

Whose map it is does not matter: an explanation just made, a stored one, another method's, or a chance map.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...errors import SettingsError, did_you_mean
from ..explainer import Explainer
from ..requests import Batched, Job, Score, Steps, Together
from ..scoring.masked_scorer import Scorer
from ..scoring.object_scenes import OTHER_OBJECT, ObjectTarget, object_scene, resized_to
from ..transfer import to_host
from . import METRIC_PRESETS, METRICS, Evidence, ExtraExplanations, Metric, Probe, Subject
from .extra_explanations import ExtraMaps, explain_more
from .protocol import Reads

MEASURED_TOGETHER = 16
"""Images whose metrics an accelerator computes at once: alone each would launch a thousand operations."""


def measured_together(values: Tensor) -> int:
    """Images whose metrics are computed at once where these values are: one on a CPU, where more gain nothing."""
    return 1 if values.device.type == "cpu" else MEASURED_TOGETHER


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
    def dense(self) -> bool:
        """Whether one of them is for dense models only."""
        return any(metric.dense for metric in self.metrics)

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
    scene: Int[Tensor, "height width"] | None = None
    """Of a dense model the class of every pixel of the image; None unless a metric asks for it."""

    def values(
        self,
        truth: Bool[Tensor, "height width"] | None = None,
        layer_maps: Float[Tensor, "layer height width"] | None = None,
    ) -> dict[str, float | None] | None:
        """Every metric of this image alone, see `values_of`."""
        return values_of([Measurable(self, truth, layer_maps)])[0]


@dataclass(frozen=True, eq=False)
class Measurable:
    """A measurement with what else its metrics may read."""

    measurement: Measurement
    truth: Bool[Tensor, "height width"] | None = None
    layer_maps: Float[Tensor, "layer height width"] | None = None

    @property
    def key(self) -> Hashable:
        """What measurements that are computed together have in common."""
        parts = (self.truth, self.layer_maps, self.measurement.scene)
        shapes = [None if part is None else part.shape for part in parts]
        return (id(self.measurement.wanted), self.measurement.subject.map.shape, *shapes)


def values_of(items: Sequence[Measurable]) -> list[dict[str, float | None] | None]:
    """Every metric of several images, read from the device in one piece.

    Args:
        items: Of one `key`.

    Returns:
        For each image the metrics; None where one is not defined for the map, or asks for ground truth, block maps or scenes that are not
        there. None altogether where a score is not a number.
    """
    first = items[0]
    wanted = first.measurement.wanted
    asked = [
        metric for metric in wanted.metrics
        if (metric.needs != "truth" or first.truth is not None) and (not metric.layers or first.layer_maps is not None)
        and (not metric.dense or first.measurement.scene is not None)
    ]  # fmt: skip
    evidence = evidence_of(items)
    numbers = [metric.measure(evidence).double() for metric in asked]
    numbers += [scores.isfinite().all(dim=1).double() for scores in evidence.probes.values()]
    if not numbers:
        return [wanted.undefined for _ in items]
    return [_read(wanted, asked, row) for row in to_host(torch.stack(numbers, dim=1))]


def _read(wanted: MetricSet, asked: Sequence[Metric], row: Sequence[float]) -> dict[str, float | None] | None:
    if not all(row[len(asked) :]):
        return None
    measured = {metric.name: None if value != value else value for metric, value in zip(asked, row, strict=False)}
    return {metric.name: measured.get(metric.name) for metric in wanted.metrics}


def evidence_of(items: Sequence[Measurable]) -> Evidence:
    """What several images' metrics are computed from, side by side."""
    measured = [item.measurement for item in items]
    first = measured[0]
    noted = [name for name, probe in first.probed.items() if probe.notes is not None]
    return Evidence(
        maps=torch.stack([each.subject.map for each in measured]),
        order=torch.stack([each.subject.order for each in measured]),
        truth=stacked([item.truth for item in items]),
        probes={name: torch.stack([each.probed[name].job.scores for each in measured]) for name in first.probed},
        notes={name: stacked([each.probed[name].notes for each in measured]) for name in noted},  # pyright: ignore[reportArgumentType]
        explained={name: torch.stack([each.extra[name].maps for each in measured]) for name in first.extra},
        layer_maps=stacked([item.layer_maps for item in items]),
        targets=torch.tensor([each.subject.target for each in measured], device=first.subject.map.device),
        scenes=stacked([each.scene for each in measured]),
    )


def stacked(parts: Sequence[Tensor | None]) -> Tensor | None:
    """Side by side; None where one is not there."""
    present = [part for part in parts if part is not None]
    return torch.stack(present) if len(present) == len(parts) else None


@dataclass(frozen=True, eq=False)
class ProbeJob:
    """A probe of one map, to be scored or scored."""

    job: Job
    notes: Float[Tensor, " variant"] | None
    of_map: bool
    reads: Reads


def probe_jobs(wanted: MetricSet, subject: Subject) -> Steps[dict[str, ProbeJob]]:
    """The probes of a map by name, to be scored."""
    made = dict[str, ProbeJob]()
    for probe in wanted.probes:
        if probe.together is None:
            variants = probe.make(subject)
        else:
            variants = yield Batched(probe.together, subject, subject.image.shape, measured_together(subject.map))
        # what reads the ground truth is told of an object by its scene, see `overlaps`
        target = int(subject.target) if probe.reads == "truth" else subject.target
        job = Job(probe.count, target, variants.fill)
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
    answers = yield Together(
        [
            scored(explainer.scorer, subject, [probe.job for probe in probes.values() if probe.reads == "confidence"]),
            scored(explainer.logit_scorer, subject, [probe.job for probe in probes.values() if probe.reads == "logit"]),
            overlaps(explainer, subject, [probe.job for probe in probes.values() if probe.reads == "truth"]),
            *(explain_more(explainer, kind, subject) for kind in wanted.explains),
        ]
    )
    extra = dict(zip((kind.name for kind in wanted.explains), answers[3:], strict=True))
    is_dense = explainer.confidence.scene is not None
    is_overlap_scored = is_dense and subject.truth is not None
    return Measurement(
        wanted,
        subject,
        {**(shared or {}), **probes},
        extra,
        sum(probe.job.count for probe in probes.values() if probe.reads != "truth" or is_overlap_scored)
        + sum(maps.n_forwards for maps in extra.values()),
        sum(maps.n_backwards for maps in extra.values()),
        class_scene(explainer, subject) if wanted.dense and is_dense else None,
    )


def scored(scorer: Scorer, subject: Subject, jobs: Sequence[Job]) -> Steps[None]:
    """Score probes."""
    if jobs:
        yield Score(scorer, subject.image, jobs)


def overlaps(explainer: Explainer, subject: Subject, jobs: Sequence[Job]) -> Steps[None]:
    """Score probes by the IoU of the target's pixels with the ground truth; -1 where there is none or the model is not dense."""
    if jobs and subject.truth is not None and explainer.confidence.scene is not None:
        image = subject.image.view_as(
            subject.image
        )  # of its own, because several objects of one image may be in flight
        explainer.truth_scorer.take_scene(image, truth_scene(explainer, subject, subject.truth))
        yield Score(explainer.truth_scorer, image, jobs)
        return
    for job in jobs:
        job.scores, job.waiting = torch.full((job.count,), -1.0, device=subject.image.device), 0


def class_scene(explainer: Explainer, subject: Subject) -> Int[Tensor, "height width"] | None:
    """The class of every pixel of an image of a dense model, at the map's size."""
    scene = explainer.scorer.scene_of(subject.image)
    return None if scene is None else resized_to(scene, subject.map)


def truth_scene(
    explainer: Explainer, subject: Subject, truth: Bool[Tensor, "height width"]
) -> Int[Tensor, "height width"]:
    """Ground truth as `truth_overlap` reads it: 1 where it is, and -1 on other objects of the target's class where one is explained."""
    marked, scene = truth.to(torch.int16), explainer.scorer.scene_of(subject.image)
    if scene is None or not isinstance(subject.target, ObjectTarget):
        return marked
    others = resized_to(object_scene(scene, subject.target), marked) == OTHER_OBJECT
    return torch.where(others & ~truth, OTHER_OBJECT, marked).to(torch.int16)


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
