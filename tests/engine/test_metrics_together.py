"""Metrics computed for several images at once say of each what they say of it alone."""

from __future__ import annotations

import pytest
import torch
from heatlas.engine import session as session_module
from heatlas.engine.methods.registry import bind_method
from heatlas.engine.metrics import Subject, evaluate, rank_pixels, spelt_out
from heatlas.engine.metrics.imputation import impute, solve
from heatlas.engine.metrics.removal import imputed, imputed_together
from heatlas.engine.session import ExplainSession

from ..support.oracle_nets import three_blocks

COUNT = 5


def measured(metrics: list[str], *, chance_below: int = 0) -> list[tuple]:
    explainer = bind_method("grad_cam", three_blocks(0), batch_size=16)
    images = torch.rand(COUNT, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    session = ExplainSession(explainer, spelt_out(metrics), chance_below=chance_below)
    result = []
    for key, image in enumerate(images):
        truth = image[0] > 0.5 if key % 2 else None  # images with and without ground truth never share a batch
        result += session.push(key, image, truth=truth, label=key % 3, sample_seed=key)
    result += session.finish()
    return [(result.key, result.status, result.metrics, result.chance) for result in result]


def agree(one: dict[str, float | None], other: dict[str, float | None]) -> bool:
    """Null in the same places, and numbers apart by rounding only."""
    assert {name for name in one if one[name] is None} == {name for name in other if other[name] is None}
    return {name: value for name, value in one.items() if value is not None} == pytest.approx(
        {name: value for name, value in other.items() if value is not None}, rel=1e-4, abs=1e-6
    )


@pytest.mark.parametrize(("metrics", "chance_below"), [(["standard"], 3), (["full"], 0)])
def test_values_do_not_depend_on_how_many_images_share_a_batch(monkeypatch, metrics, chance_below):
    alone = measured(metrics, chance_below=chance_below)
    monkeypatch.setattr(evaluate, "measured_together", lambda values: 2)
    monkeypatch.setattr(session_module, "measured_together", lambda values: 2)
    together = measured(metrics, chance_below=chance_below)

    assert [row[:2] for row in together] == [row[:2] for row in alone]
    for entry, other in zip(alone, together, strict=True):
        assert agree(entry[2], other[2])
        assert (entry[3] is None) == (other[3] is None)
        for name, values in (entry[3] or {}).items():
            assert agree(values, (other[3] or {})[name])


def test_the_direct_solver_agrees_with_conjugate_gradients():
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(3, 40, 33, generator=generator, dtype=torch.float64)
    removed = torch.rand(3, 40, 33, generator=generator) < torch.tensor([0.2, 0.6, 0.95])[:, None, None]
    removed[1, 5:30, 4:28] = True
    direct, solved = impute(image, removed)
    stepwise, converged = solve(image.expand(3, -1, -1, -1), removed[:, None].double(), 2000)

    assert solved.tolist() == converged.tolist() == [True] * 3
    for place in range(3):
        hole = removed[place]
        torch.testing.assert_close(direct[place][:, hole], stepwise[place][:, hole], atol=1e-4, rtol=1e-4)


def subject_of(seed: int) -> Subject:
    generator = torch.Generator().manual_seed(seed)
    map_ = torch.rand(20, 16, generator=generator)
    return Subject(torch.randn(3, 20, 16, generator=generator), map_, rank_pixels(map_[None])[0], 0, 0, sample=seed)


def test_road_of_several_images_is_road_of_each():
    subjects = [subject_of(seed) for seed in range(3)]
    for subject, together in zip(subjects, imputed_together(subjects), strict=True):
        alone = imputed(subject)
        shape = (8, *subject.image.shape)
        first, second = torch.empty(shape), torch.empty(shape)
        alone.fill(0, first)
        together.fill(0, second)
        torch.testing.assert_close(first, second)
        assert torch.equal(torch.as_tensor(alone.notes), torch.as_tensor(together.notes))
