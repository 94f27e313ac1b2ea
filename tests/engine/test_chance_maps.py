"""Chance maps: what the maps are, that they are measured as any map is, and that they change nothing else."""

from __future__ import annotations

import math

import pytest
import scipy.stats
import torch
from heatlas.engine.methods.sise import SISE
from heatlas.engine.metrics import METRICS, Subject, rank_pixels
from heatlas.engine.metrics.chance_maps import CHANCE_MAPS, chance_metrics, gaussian_map, random_map
from heatlas.engine.metrics.evaluate import MetricSet, measure, probe_jobs
from heatlas.engine.metrics.sanity_check import RandomModel, randomised
from heatlas.engine.scheduler import run
from heatlas.engine.session import Explained, ExplainSession

from ..support.oracle_nets import images_like, three_blocks

METRIC_NAMES = ("drop_pct", "increase", "ebpg", "bbox", "deletion_auc", "coherency", "layer_agreement")
SIZE = (24, 24)


def explain(
    images: torch.Tensor, *, order: list[int] | None = None, batch_size: int = 16, **options: int
) -> list[Explained]:
    """Every image under its own seed 100 + place, ordered by place."""
    session = ExplainSession(SISE(three_blocks(0), batch_size=batch_size), METRIC_NAMES, seed=3, **options)
    truth = torch.zeros(SIZE, dtype=torch.bool)
    truth[4:12, 6:20] = True
    result = []
    for place in order or range(len(images)):
        result += session.push(place, images[place], truth=truth, sample_seed=100 + place)
    return sorted([*result, *session.finish()], key=lambda entry: entry.key)


def test_a_random_map_belongs_to_seed_and_sample():
    entry = random_map((40, 50), seed=1, sample=7)
    assert torch.equal(entry, random_map((40, 50), seed=1, sample=7))
    assert not torch.equal(entry, random_map((40, 50), seed=2, sample=7))
    assert not torch.equal(entry, random_map((40, 50), seed=1, sample=8))
    assert 0 <= float(entry.min()) <= float(entry.max()) < 1
    assert scipy.stats.kstest(entry.flatten().numpy(), "uniform").pvalue > 0.001


def test_the_gaussian_lies_in_the_middle_and_is_a_quarter_wide():
    map_ = gaussian_map((8, 16))
    assert torch.equal(map_, map_.flip(0).flip(1))
    u, v = (4 - 1.5) / (8 / 4), (8 - 2.5) / (16 / 4)  # the centre of row 1, column 2, from the middle
    assert float(map_[1, 2]) == pytest.approx(math.exp(-(u**2 + v**2) / 2), abs=1e-6)
    assert map_.argmax().item() in (3 * 16 + 7, 3 * 16 + 8, 4 * 16 + 7, 4 * 16 + 8)


def test_chance_maps_have_the_metrics_that_need_no_method():
    names = {metric.name for metric in chance_metrics(METRICS.values())}
    assert names.isdisjoint({"coherency", "adcc", "max_sensitivity", "label_overlap", "layer_agreement"})
    assert {"drop_pct", "increase", "ebpg", "insertion_auc", "road", "infidelity", "entropy"} <= names


def test_chance_maps_of_the_sample_only_and_measured_like_any_map():
    images = images_like(3, 3, SIZE, seed=1)
    result = explain(images, chance_below=101)
    assert [result.chance is not None for result in result] == [True, False, False]

    chance = result[0].chance
    assert chance is not None
    assert list(chance) == ["random", "gaussian"]
    sise = SISE(three_blocks(0), batch_size=16)
    for name, values in chance.items():
        map_ = CHANCE_MAPS[name](SIZE, seed=3, sample=100)
        subject = Subject(images[0], map_, rank_pixels(map_[None])[0], result[0].target or 0, 0, None, 3, 100)
        wanted = MetricSet.of(("drop_pct", "increase", "ebpg", "bbox", "deletion_auc"))
        alone = run(measure(sise, wanted, subject, run(probe_jobs(wanted, subject))))
        truth = torch.zeros(SIZE, dtype=torch.bool)
        truth[4:12, 6:20] = True
        assert values == pytest.approx(alone.values(truth))


def test_chance_maps_change_no_score_and_cost_their_forwards_only():
    images = images_like(4, 3, SIZE, seed=1)
    plain, with_chance = explain(images), explain(images, chance_below=102)
    for entry, two in zip(plain, with_chance, strict=True):
        assert entry.metrics == pytest.approx(two.metrics, rel=1e-5, abs=1e-5)
    extra = [b.n_forwards - a.n_forwards for a, b in zip(plain, with_chance, strict=True)]
    deleted = 20  # steps, of which the last is scored too
    assert extra == [2 * (1 + deleted)] * 2 + [0, 0], "the whole image is scored once for all three maps"


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_chance_maps_do_not_depend_on_order_or_batch(batch_size: int):
    images = images_like(4, 3, SIZE, seed=1)
    first = explain(images, chance_below=200)
    again = explain(images, chance_below=200, order=[3, 1, 0, 2], batch_size=batch_size)
    for entry, two in zip(first, again, strict=True):
        for name in CHANCE_MAPS:
            assert (entry.chance or {})[name] == pytest.approx((two.chance or {})[name], rel=1e-5, abs=1e-5)


def test_an_image_without_a_map_has_no_chance():
    image = torch.full((1, 3, *SIZE), torch.nan)
    [result] = explain(image, chance_below=200, sanity_below=200)
    assert result.chance is None
    assert result.metrics["random_model_spearman"] is None


def test_sanity_of_the_sample_is_the_library_s_value():
    images = images_like(3, 3, SIZE, seed=1)
    result = explain(images, sanity_below=102)
    sise = SISE(three_blocks(0), batch_size=16)
    own, random = sise(images), RandomModel(sise, 3)
    expected = [
        run(random.compare(image, own.maps[place], int(own.targets[place]), 100 + place)).value
        for place, image in enumerate(images[:2])
    ]
    values = [result.metrics["random_model_spearman"] for result in result]
    assert values[2] is None
    for value, wanted in zip(values[:2], expected, strict=False):
        assert value == pytest.approx(wanted, abs=1e-6)
    assert any(value is not None for value in values)
    plain = explain(images)
    assert "random_model_spearman" not in plain[0].metrics
    assert result[0].n_forwards > plain[0].n_forwards
    assert result[2].n_forwards == plain[2].n_forwards


def test_a_random_model_without_a_map_has_no_correlation(monkeypatch: pytest.MonkeyPatch):
    own = SISE(three_blocks(0), batch_size=16)
    image = images_like(1, 3, SIZE, seed=1)[0]
    random = RandomModel(own, 3)
    silent = randomised(own.model, 3)
    for parameter in silent.parameters():
        parameter.data.zero_()
    monkeypatch.setattr("heatlas.engine.metrics.sanity_check.randomised", lambda model, seed: silent)
    check = run(random.compare(image, torch.rand(SIZE), 0))
    assert check.value is None
    assert check.n_forwards >= 1
