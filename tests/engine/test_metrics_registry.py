"""What the registry promises about every metric: a definition that can be read, a cost, presets that exist."""

from __future__ import annotations

import re

import pytest
import torch
from heatlas.engine.metrics import METRIC_PRESETS, METRICS
from heatlas.engine.metrics.protocol import Metric
from heatlas.engine.random import sample_generator
from hypothesis import given
from hypothesis import strategies as st

SPECIFIED = {
    "drop_pct", "increase", "average_gain_pct", "insertion_auc", "deletion_auc", "road", "coherency", "complexity_l1", "adcc",
    "entropy", "gini", "max_sensitivity", "infidelity", "ebpg", "miou", "bbox", "pointing_hit", "relevance_rank_accuracy",
    "border_share", "centroid_x", "centroid_y", "spread", "n_components", "top_area", "layer_agreement", "label_overlap",
    "single_deletion_rho", "iou_half", "bbox_iou_half", "ins_iou", "del_iou", "outside_context", "context_share", "context_class",
}  # fmt: skip


def test_every_specified_metric_is_there():
    assert set(METRICS) == SPECIFIED


@pytest.mark.parametrize("metric", METRICS.values(), ids=list(METRICS))
def test_every_metric_says_what_it_is(metric: Metric):
    assert re.fullmatch(rf"{metric.name}/v[1-9]\d*", metric.definition)
    assert metric.formula.endswith((".", ")")) or len(metric.formula) > 40
    assert len(metric.formula) <= 200
    assert metric.unit
    assert metric.source
    assert metric.range[0] < metric.range[1]
    assert metric.better in ("higher", "lower", "neither")
    assert (metric.forwards + metric.explanations > 0) == (metric.needs == "model")
    assert (metric.baseline != "none") <= (metric.needs == "model")


def test_presets():
    assert set(METRIC_PRESETS) == {"paper", "standard", "full", "dense"}
    assert METRIC_PRESETS["paper"] == ("drop_pct", "increase", "ebpg", "miou", "bbox")
    assert set(METRIC_PRESETS["paper"]) < set(METRIC_PRESETS["standard"]) < set(METRIC_PRESETS["full"])
    assert set(METRIC_PRESETS["full"]) | set(METRIC_PRESETS["dense"]) == set(METRICS)
    assert not [name for name in METRIC_PRESETS["full"] if METRICS[name].dense]
    for names in METRIC_PRESETS.values():
        assert len(set(names)) == len(names)


def test_the_standard_preset_is_cheap():
    standard = [METRICS[name] for name in METRIC_PRESETS["standard"]]
    probes = {probe.name: probe.count for metric in standard for probe in metric.probes}

    assert sum(metric.explanations for metric in standard) == 0
    assert sum(probes.values()) <= 50


@given(st.integers(0, 2**64), st.integers(0, 2**128), st.sampled_from(["", "road", "infidelity"]))
def test_draws_repeat(seed: int, sample: int, purpose: str):
    first, again = (torch.rand(4, generator=sample_generator(seed, sample, purpose)) for _ in range(2))

    assert torch.equal(first, again)


def test_draws_of_different_seeds_samples_and_purposes_differ():
    drawn = [
        torch.rand(4, generator=sample_generator(*key)) for key in ((0, 1, ""), (1, 0, ""), (0, 0, ""), (0, 0, "road"))
    ]

    assert len({tuple(entry.tolist()) for entry in drawn}) == 4


def test_draws_refuse_a_negative_seed():
    with pytest.raises(ValueError, match="at least 0, got 0 and -3"):
        sample_generator(0, -3)
