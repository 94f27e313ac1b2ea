"""Measures one metric on hand-made maps, with a model so small that its answers can be worked out on paper."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from heatlas.engine.metrics import METRICS, Evidence, Subject, rank_pixels
from heatlas.engine.requests import Job
from heatlas.engine.scoring.masked_scorer import Scorer
from heatlas.engine.scoring.scoring_options import Scoring
from torch import Tensor, nn


class SumModel(nn.Module):
    """Two classes with logits (scale * the sum of all values, 0): p of class 0 is a sigmoid of what can be seen."""

    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.scale = scale

    def forward(self, images: Tensor) -> Tensor:
        total = self.scale * images.flatten(1).sum(dim=1)
        return torch.stack([total, torch.zeros_like(total)], dim=1)


class MeanModel(nn.Module):
    """Two classes whose probabilities are exactly (mean, 1 - mean) of images with values in (0, 1)."""

    def forward(self, images: Tensor) -> Tensor:
        mean = images.flatten(1).mean(dim=1).clamp(1e-6, 1 - 1e-6)
        return torch.stack([mean.log(), (1 - mean).log()], dim=1)


def measure(
    name: str,
    maps: Tensor,
    *,
    truth: Tensor | None = None,
    explained: Tensor | None = None,
    layer_maps: Tensor | None = None,
) -> list[float]:
    """The metric on maps `(batch, height, width)`, which needs no forwards."""
    metric = METRICS[name]
    further = {} if explained is None else {explain.name: explained for explain in metric.explains}
    return metric.measure(
        Evidence(maps, rank_pixels(maps), truth, explained=further, layer_maps=layer_maps)
    ).tolist()  # fmt: skip


def measure_with(
    model: nn.Module,
    name: str,
    images: Tensor,
    maps: Tensor,
    *,
    batch_size: int = 8,
    samples: Sequence[int] | None = None,
    explained: Tensor | None = None,
    seed: int = 0,
    precision: str = "fp32",
) -> list[float]:
    """The metric of class 0 on images and their maps, its probes scored by the packed scorer."""
    metric = METRICS[name]
    scorer = Scorer(model, Scoring(batch_size=batch_size, precision=precision))
    made = []
    for place, (image, map_) in enumerate(zip(images, maps, strict=True)):
        subject = Subject(
            image, map_, rank_pixels(map_[None])[0], 0, 0, None, seed, samples[place] if samples else place
        )
        variants = {probe.name: probe.make(subject) for probe in metric.probes}
        jobs = {probe.name: Job(probe.count, 0, variants[probe.name].fill) for probe in metric.probes}
        if jobs:
            scorer.submit(*jobs.values(), like=image)
        made.append((variants, jobs))
    scorer.flush()
    values = []
    for place, (variants, jobs) in enumerate(made):
        evidence = Evidence(
            maps[place : place + 1],
            rank_pixels(maps[place : place + 1]),
            probes={key: job.scores[None] for key, job in jobs.items()},
            notes={key: variant.notes[None] for key, variant in variants.items() if variant.notes is not None},
            explained={}
            if explained is None
            else {variant.name: explained[place : place + 1] for variant in metric.explains},
        )
        values += metric.measure(evidence).tolist()
    return values


def variants_of(name: str, probe: int, image: Tensor, map_: Tensor, *, sample: int = 0, seed: int = 0) -> Tensor:
    """What a metric's probe shows the model, `(variant, channel, height, width)`."""
    made = METRICS[name].probes[probe]
    out = image.new_full((made.count, *image.shape), torch.nan)
    made.make(Subject(image, map_, rank_pixels(map_[None])[0], 0, 0, None, seed, sample)).fill(0, out)
    return out
