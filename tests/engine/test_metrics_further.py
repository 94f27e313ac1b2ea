"""Metrics that explain more than the image: by hand on given maps, against captum, and through a whole session."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import scipy.stats
import torch
from captum.metrics import infidelity, sensitivity_max
from heatlas.engine.methods.sise import SISE
from heatlas.engine.metrics import METRICS, Subject, rank_pixels
from heatlas.engine.metrics.coherence import harmonic_mean
from heatlas.engine.metrics.sensitivity import draw_squares
from heatlas.engine.session import Explained, ExplainSession
from heatlas.errors import SettingsError
from torch import Tensor, nn

from ..support.metric_cases import SumModel, measure, measure_with
from ..support.oracle_nets import images_like, three_blocks

FURTHER = ("coherency", "adcc", "max_sensitivity", "infidelity", "label_overlap", "road", "layer_agreement")


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return three_blocks(0)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return images_like(4, 3, (24, 24), seed=1)


def session_of(
    model: nn.Module, images: Tensor, metrics=FURTHER, *, batch_size=16, seed=0, keys=None, **push
) -> dict[int, Explained]:
    session = ExplainSession(SISE(model, batch_size=batch_size), metrics, seed=seed)
    left = []
    for key in range(len(images)) if keys is None else keys:
        left += session.push(key, images[key], sample_seed=key, **{name: value[key] for name, value in push.items()})
    return {entry.key: entry for entry in left + session.finish()}


def alike(one: Explained, other: Explained) -> None:
    """The same up to float32's last digits: a convolution's rounding may depend on a row's place in the batch."""
    for name, value in one.metrics.items():
        assert (value is None) == (other.metrics[name] is None), name
        if value is not None:
            assert value == pytest.approx(other.metrics[name], rel=1e-3, abs=1e-4), name


# by hand


def test_coherency_is_pearson_brought_to_0_1():
    first, second = torch.rand(3, 5, 6), torch.rand(3, 5, 6)
    expected = [
        (scipy.stats.pearsonr(a.ravel(), b.ravel()).statistic + 1) / 2
        for a, b in zip(first.numpy(), second.numpy(), strict=True)
    ]

    assert measure("coherency", first, explained=second[:, None]) == pytest.approx(expected, abs=1e-6)
    assert measure("coherency", first, explained=first[:, None]) == pytest.approx([1, 1, 1])
    assert measure("coherency", first, explained=1 - first[:, None]) == pytest.approx([0, 0, 0], abs=1e-6)


@pytest.mark.parametrize("name", ["coherency", "max_sensitivity", "label_overlap"])
def test_a_further_explanation_without_a_map_leaves_no_value(name: str):
    count = sum(entry.count for entry in METRICS[name].explains)
    maps = torch.rand(1, count, 4, 4)
    maps[0, -1] = torch.nan

    assert math.isnan(measure(name, torch.rand(1, 4, 4), explained=maps)[0])


def test_adcc_by_hand():
    images = torch.full((1, 1, 2, 2), 1.0)
    maps = torch.tensor([[[0.0, 1.0], [0.5, 0.5]]])
    whole, masked = (1 / (1 + math.exp(-total)) for total in (4.0, 2.0))
    parts = [1.0, 1 - 0.5, masked / whole]

    value = measure_with(SumModel(), "adcc", images, maps, explained=maps[:, None])[0]
    assert value == pytest.approx(scipy.stats.hmean(parts), abs=1e-6)
    assert 0 <= value <= 1
    # the authors' published code returns 3 * (1/a + 1/b + 1/c), which is not a mean and exceeds 1
    assert 3 * sum(1 / part for part in parts) > 9


def test_a_harmonic_mean_with_a_zero_is_zero_and_with_a_gap_is_undefined():
    values = harmonic_mean(torch.tensor([[0.5, 0.5, 0.0], [1.0, 1.0, 1.0], [0.5, torch.nan, 0.0]], dtype=torch.float64))

    assert values[:2].tolist() == [0, 1]
    assert values[2].isnan()


def test_max_sensitivity_is_the_largest_relative_change():
    maps = torch.tensor([[[3.0, 4.0], [0.0, 0.0]]])
    moved = maps[:, None].expand(1, 10, 2, 2).clone()
    moved[0, 3, 1, 0] += 0.5
    moved[0, 7, 1, 1] -= 1.5

    assert measure("max_sensitivity", maps, explained=moved) == pytest.approx([1.5 / 5])


def test_label_overlap_by_hand():
    label = torch.arange(20.0).view(4, 5)  # top 20 %: 16 17 18 19
    prediction = label.clone()
    prediction[0, 0], prediction[0, 1] = 30, 40  # top 20 %: 0 1 18 19

    assert measure("label_overlap", label[None], explained=torch.stack([label, prediction])[None]) == pytest.approx(
        [2 / 6]
    )


# captum


def test_infidelity_against_captum():
    image, map_ = torch.rand(3, 16, 12), torch.rand(16, 12)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2)
    ).eval()
    squares = draw_squares(Subject(image, map_, rank_pixels(map_[None])[0], 0, 0, sample=5))

    def perturb(inputs: Tensor) -> tuple[Tensor, Tensor]:
        masks = squares[:, None].expand_as(inputs).to(inputs.dtype)
        return masks / 3, inputs * (1 - masks)  # three channels carry the same map, so that the product sums it once

    expected = infidelity(
        lambda batch: network(batch).softmax(dim=1), perturb, image[None], map_.expand(1, 3, -1, -1).contiguous(), target=0,
        n_perturb_samples=10, normalize=True,
    )  # fmt: skip
    value = measure_with(network, "infidelity", image[None], map_[None], samples=[5])

    assert value == pytest.approx(expected.tolist(), rel=1e-3, abs=1e-9)
    assert value[0] > 0
    assert value == pytest.approx(
        measure_with(network, "infidelity", image[None], 8 * map_[None], samples=[5]), rel=1e-4
    )


def test_infidelity_of_a_map_that_tells_the_losses_is_0():
    """A score that adds up over pixels, in its linear range, and a map of each pixel's share."""
    image = torch.rand(1, 1, 14, 14, generator=torch.Generator().manual_seed(2))
    right, wrong = (
        measure_with(SumModel(1e-3), "infidelity", image, map_)[0] for map_ in (image[:, 0], 1 - image[:, 0])
    )

    assert right < 1e-8
    assert right < wrong / 100


def test_squares_lie_inside_and_are_drawn_by_the_sample():
    map_ = torch.rand(30, 20)
    drawn = [
        draw_squares(Subject(torch.rand(3, 30, 20), map_, rank_pixels(map_[None])[0], 0, 0, sample=k))
        for k in (1, 1, 2)
    ]
    for mask in drawn[0]:
        rows, columns = mask.any(dim=1).sum(), mask.any(dim=0).sum()
        assert rows == columns
        assert 1 <= rows <= round(20 * 10 / 28)
        assert mask.sum() == rows * columns

    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def explain(sise: SISE, inputs: Tensor | tuple[Tensor, ...], target: int | Tensor) -> Tensor | tuple[Tensor, ...]:
    """As captum calls an explainer: a tuple for a tuple."""
    return (sise(inputs[0], target).maps,) if isinstance(inputs, tuple) else sise(inputs, target).maps


def always(draws: Tensor, inputs: Tensor) -> Tensor:
    return draws


def test_max_sensitivity_against_captum(model: nn.Module, images: Tensor):
    explained = session_of(model, images[:2], ("max_sensitivity",))
    sise = SISE(model, batch_size=16)
    for key, entry in explained.items():
        map_ = entry.map
        assert map_ is not None
        subject = Subject(images[key], map_, rank_pixels(map_[None])[0], entry.target or 0, 0, sample=key)
        draws = torch.stack([image for image, _ in METRICS["max_sensitivity"].explains[0].make(subject)])
        assert float((draws - images[key]).abs().max()) <= 0.02 + 1e-6
        expected = sensitivity_max(
            partial(explain, sise),
            images[key : key + 1],
            partial(always, draws),
            n_perturb_samples=10,
            target=entry.target,
        )
        assert entry.metrics["max_sensitivity"] == pytest.approx(expected.item(), rel=1e-5)


# the session


def test_further_maps_are_those_of_the_explainer(model: nn.Module, images: Tensor):
    sise = SISE(model, batch_size=16)
    labels = [0, 1, 2, None]
    for key, entry in session_of(model, images, label=labels).items():
        assert entry.status == "ok"
        assert entry.map is not None
        again = sise(images[key : key + 1] * entry.map, entry.target).maps[0]
        expected = (np.corrcoef(entry.map.flatten(), again.flatten())[0, 1] + 1) / 2
        assert entry.metrics["coherency"] == pytest.approx(expected, abs=1e-6)
        if labels[key] in (None, entry.prediction):
            assert entry.metrics["label_overlap"] is None
        else:
            label = rank_pixels(sise(images[key : key + 1], labels[key]).maps)[0, : round(0.2 * 576)]
            own = rank_pixels(entry.map[None])[0, : round(0.2 * 576)]
            shared = len(set(label.tolist()) & set(own.tolist()))
            assert entry.metrics["label_overlap"] == pytest.approx(shared / (2 * round(0.2 * 576) - shared))


@pytest.mark.parametrize("batch_size", [1, 2, 7, 64])
def test_batch_size_neighbours_and_order_do_not_matter(model: nn.Module, images: Tensor, batch_size: int):
    metrics, labels = tuple(METRICS), [0, 1, 2, 3]
    truth = torch.zeros(4, 24, 24, dtype=torch.bool)
    truth[:, 4:12, 6:20] = True
    together = session_of(model, images, metrics, batch_size=batch_size, label=labels, truth=truth)
    back = session_of(model, images, metrics, batch_size=batch_size, label=labels, truth=truth, keys=[2, 0, 3, 1])
    alone = session_of(model, images, metrics, batch_size=batch_size, label=labels, truth=truth, keys=[2])
    usual = session_of(model, images, metrics, label=labels, truth=truth)

    for key, entry in together.items():
        assert list(entry.metrics) == list(METRICS)
        alike(entry, back[key])
        alike(entry, usual[key])
    alike(alone[2], together[2])


def test_draws_belong_to_seed_and_sample(model: nn.Module, images: Tensor):
    drawn = ("max_sensitivity", "road", "infidelity")
    first, again, reseeded = (session_of(model, images[:1], drawn, seed=seed)[0].metrics for seed in (0, 0, 1))

    assert first == again
    assert all(first[name] != reseeded[name] for name in drawn)


def test_the_seed_of_a_sample_is_not_its_place(model: nn.Module, images: Tensor):
    sise = SISE(model, batch_size=16)
    values = []
    for key in (0, 9):
        session = ExplainSession(sise, ("max_sensitivity",))
        values += [entry.metrics for entry in (*session.push(key, images[0], sample_seed=4), *session.finish())]

    assert values[0] == values[1]


def test_what_a_metric_costs_is_what_it_declares(model: nn.Module, images: Tensor):
    plain = session_of(model, images[:1], ())[0]
    for name in ("deletion_auc", "road", "infidelity", "drop_pct"):
        spent = session_of(model, images[:1], (name,))[0].n_forwards - plain.n_forwards
        assert spent == METRICS[name].forwards
    assert METRICS["max_sensitivity"].explanations == 10
    spent = session_of(model, images[:1], ("max_sensitivity",))[0].n_forwards - plain.n_forwards
    assert 10 <= spent <= 10 * (1 + 24), "each explanation is one forward and at most one per feature map"


def test_the_image_s_own_map_is_not_explained_again(model: nn.Module, images: Tensor):
    plain = session_of(model, images[:1], ())[0]
    other = (plain.prediction or 0) + 1
    label = session_of(model, images[:1], ("label_overlap",), label=[other])[0]
    target = session_of(model, images[:1], (), target=[other])[0]

    assert label.n_forwards == plain.n_forwards + target.n_forwards


def test_a_label_that_is_no_class_costs_its_metric_only(model: nn.Module, images: Tensor):
    left = session_of(model, images[:2], ("label_overlap", "drop_pct"), label=[10_000, None])

    assert [entry.status for entry in left.values()] == ["ok", "ok"]
    assert left[0].metrics["label_overlap"] is None
    assert left[0].metrics["drop_pct"] is not None


def test_one_bad_image_costs_its_own_row_only(model: nn.Module, images: Tensor):
    broken = images.clone()
    broken[1] = torch.nan
    left, usual = session_of(model, broken, tuple(METRICS)), session_of(model, images, tuple(METRICS))

    assert left[1].status == "non_finite"
    assert set(left[1].metrics.values()) == {None}
    for key in (0, 2, 3):
        alike(left[key], usual[key])


def test_metrics_are_numbers_or_none(model: nn.Module, images: Tensor):
    truth = [None, torch.zeros(24, 24, dtype=torch.bool), torch.ones(24, 24, dtype=torch.bool), None]
    for key, entry in session_of(model, images, tuple(METRICS), truth=truth).items():
        assert all(value is None or math.isfinite(value) for value in entry.metrics.values())
        for name, metric in METRICS.items():
            value = entry.metrics[name]
            if value is None:
                assert (metric.needs == "truth" and key != 2) or name == "label_overlap" or metric.dense
            else:
                assert metric.range[0] - 1e-9 <= value <= metric.range[1] + 1e-9, name


def test_reset_forgets_further_explanations(model: nn.Module, images: Tensor):
    session = ExplainSession(SISE(model, batch_size=64), FURTHER)
    session.push(0, images[0])
    assert session.alive == (0,)
    session.reset()

    assert session.alive == ()
    assert session.finish() == []
    fresh = session.push(1, images[1], sample_seed=1) + session.finish()
    alike(fresh[0], session_of(model, images, FURTHER, batch_size=64, keys=[1])[1])


def test_a_negative_seed_is_refused(model: nn.Module):
    with pytest.raises(SettingsError, match="seed must be at least 0, got -1"):
        ExplainSession(SISE(model), (), seed=-1)
