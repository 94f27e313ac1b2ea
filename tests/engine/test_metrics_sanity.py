"""The model randomisation test: the copy is random and reproducible, the model stays, and the correlation is scipy's."""

from __future__ import annotations

import math

import pytest
import scipy.stats
import torch
from heatlas.engine.methods.sise import SISE
from heatlas.engine.metrics.ranking import average_ranks, spearman
from heatlas.engine.metrics.sanity_check import RandomModel, randomised
from heatlas.engine.scheduler import run
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ..support.oracle_nets import architecture, images_like, three_blocks


def sanity(sise: SISE, images: torch.Tensor, seed: int) -> torch.Tensor:
    """`random_model_spearman` of every image; NaN where it is not defined."""
    own, random = sise(images), RandomModel(sise, seed)
    results = [
        run(random.compare(image, own.maps[place], int(own.targets[place]))).value
        if own.statuses[place] == "ok"
        else None
        for place, image in enumerate(images)
    ]
    return torch.tensor([torch.nan if value is None else value for value in results], dtype=torch.float64)


def test_every_weight_is_drawn_anew_and_keeps_its_scale():
    model = architecture("resnet18")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = randomised(model, seed=3)

    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), f"{name} of the model itself changed"
    large = [name for name, trained in model.named_parameters() if trained.numel() > 1000]
    assert len(large) > 10
    with torch.no_grad():
        for name in large:
            trained, drawn = model.get_parameter(name), random.get_parameter(name)
            assert not torch.allclose(trained, drawn), name
            assert abs(float(torch.corrcoef(torch.stack([trained.flatten(), drawn.flatten()]))[0, 1])) < 0.2, name
            assert float(drawn.std()) == pytest.approx(float(trained.std()), rel=0.15), name


def test_the_same_seed_gives_the_same_weights():
    model = three_blocks(0)
    first, again, other = (list(randomised(model, seed=seed).parameters()) for seed in (1, 1, 2))

    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_it_is_the_correlation_with_the_random_model_s_map():
    images, sise = images_like(3, 3, (24, 24), seed=1), SISE(three_blocks(0), batch_size=16)
    values = sanity(sise, images, 5)
    own = sise(images)
    random = SISE(randomised(sise.model, 5), batch_size=16)(images, own.targets)

    for value, mine, theirs, status in zip(values.tolist(), own.maps, random.maps, random.statuses, strict=True):
        if status == "ok":
            assert value == pytest.approx(scipy.stats.spearmanr(mine.flatten(), theirs.flatten()).statistic, abs=1e-9)
        else:
            assert math.isnan(value)
    assert not values.isnan().all()


def test_an_image_without_a_map_has_no_value_and_costs_no_other_its_own():
    images, sise = images_like(3, 3, (24, 24), seed=1), SISE(three_blocks(0), batch_size=16)
    broken = images.clone()
    broken[1] = torch.nan
    values, usual = sanity(sise, broken, 5), sanity(sise, images, 5)

    assert values[1].isnan()
    assert torch.allclose(values[[0, 2]], usual[[0, 2]], atol=1e-4, equal_nan=True)


@settings(max_examples=50, deadline=None)
@given(
    hnp.arrays(float, (3, 12), elements=st.integers(0, 4).map(float)),
    hnp.arrays(float, (3, 12), elements=st.integers(0, 4).map(float)),
)
def test_ranks_and_spearman_against_scipy(first, second):
    assert average_ranks(torch.tensor(first)).tolist() == scipy.stats.rankdata(first, axis=1).tolist()
    for value, entry, two in zip(
        spearman(torch.tensor(first), torch.tensor(second)).tolist(), first, second, strict=True
    ):
        if entry.min() == entry.max() or two.min() == two.max():
            assert math.isnan(value)
        else:
            assert value == pytest.approx(scipy.stats.spearmanr(entry, two).statistic, abs=1e-12)


def test_spearman_of_what_is_not_finite_is_not_defined():
    assert spearman(torch.tensor([[1.0, torch.nan, 2.0]]), torch.tensor([[1.0, 2.0, 3.0]])).isnan().all()
