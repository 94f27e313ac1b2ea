"""Fewer forwards for the same map: what a budget is, what it may not change, and how near the maps stay."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from heatlas.engine.methods.sise import SISE
from heatlas.engine.scoring.budget import LEAST_FORWARDS, LEAST_MASKS, check_budget, masks_allowed
from heatlas.engine.session import Explained, ExplainSession
from heatlas.errors import SettingsError
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import spearmanr
from torch import Tensor, nn

from ..support.photographs import IMAGES, NEEDS_DATA, trained

BATCH = 8


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(3)
    layers: list[nn.Module] = []
    for before, after in ((3, 24), (24, 32), (32, 48)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 4)).eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def run(model: nn.Module, images: Tensor, budget: str | int | float, batch_size: int = BATCH) -> list[Explained]:
    session = ExplainSession(SISE(model, batch_size=batch_size, budget=budget), ["drop_pct"])
    left = [entry for key, image in enumerate(images) for entry in session.push(key, image)]
    return left + session.finish()


@pytest.mark.unchecked_types
@pytest.mark.parametrize("budget", [0, -3, 1, 8, True, 0.0, 1.5, -0.1, float("nan"), "fats", None])
def test_what_is_no_budget_is_refused_with_the_range(budget: object):
    with pytest.raises(SettingsError, match="budget must be 'exact', 'balanced', 'fast', forwards per image") as caught:
        check_budget(budget)  # pyright: ignore[reportArgumentType]
    assert repr(budget) in str(caught.value)
    assert ("did you mean 'fast'?" in str(caught.value)) == (budget == "fats")
    assert ("write 1.0 for all of them" in str(caught.value)) == (budget == 1 and budget is not True)


@given(masks=st.integers(1, 5000), budget=st.integers(LEAST_FORWARDS, 5000) | st.floats(1e-6, 1) | st.sampled_from(["exact", "balanced", "fast"]))  # fmt: skip
def test_a_budget_is_never_exceeded(masks: int, budget: str | int | float):
    allowed = masks_allowed(check_budget(budget), masks)
    share = {"exact": 1.0, "balanced": 0.25, "fast": 0.1}.get(budget, 1.0) if isinstance(budget, str) else budget
    limit = budget if isinstance(budget, int) else share * (masks + 1)
    assert 1 <= allowed <= masks
    assert allowed + 1 <= limit or allowed == min(masks, LEAST_MASKS)


def test_a_budget_of_all_masks_is_exact(model: nn.Module, images: Tensor):
    exact = run(model, images, "exact")
    for budget in (1.0, 10_000):
        for entry, other in zip(exact, run(model, images, budget), strict=True):
            assert entry.map is not None
            assert other.map is not None
            assert torch.equal(entry.map, other.map)
            assert (other.n_forwards, other.surrogate_error) == (entry.n_forwards, None)


@pytest.mark.parametrize("budget", ["balanced", "fast", 20, 0.4])
def test_no_image_takes_more_forwards_than_the_model_runs_or_the_budget_has(
    model: nn.Module, images: Tensor, budget: str | int | float
):
    probes = 2  # of drop_pct: the whole image is known, two variants at most
    for entry in run(model, images, budget):
        share = {"balanced": 0.25, "fast": 0.1}.get(budget, 0.0) if isinstance(budget, str) else budget
        limit = budget if isinstance(budget, int) else max(share * (sum(entry.mask_counts) + 1), LEAST_FORWARDS)
        assert entry.status == "ok"
        assert LEAST_FORWARDS <= entry.n_forwards <= limit + probes
        assert entry.surrogate_error is not None
        assert 0 < entry.surrogate_error < 1


def test_neighbours_change_nothing(model: nn.Module, images: Tensor):
    together = run(model, images, 0.3)
    for key, entry in enumerate(together):
        alone = run(model, images[key : key + 1], 0.3)[0]
        assert entry.map is not None
        assert alone.map is not None
        assert torch.equal(entry.map, alone.map)
        assert (entry.n_forwards, entry.surrogate_error, entry.metrics) == (alone.n_forwards, alone.surrogate_error, alone.metrics)  # fmt: skip
    called = SISE(model, batch_size=BATCH, budget=0.3)(images)
    assert torch.equal(called.maps, torch.stack([entry.map for entry in together if entry.map is not None]))


def test_rounds_of_several_images_share_batches(model: nn.Module, images: Tensor):
    batches = []
    hook = model.register_forward_hook(lambda _, inputs, __: batches.append(len(inputs[0])))
    left = run(model, images.repeat(4, 1, 1, 1), 0.3)
    hook.remove()
    scored = sum(entry.n_forwards - 1 for entry in left)
    assert batches.count(BATCH) <= scored / BATCH + 8, (
        "at the end, six rounds and the probes may each leave a short batch"
    )


def test_a_score_that_is_no_number_is_a_status(model: nn.Module, images: Tensor):
    class Sick(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = model

        def forward(self, inputs: Tensor) -> Tensor:
            logits = self.body(inputs)
            return logits if len(inputs) == 1 else logits * float("nan")

    result = run(Sick(), images[:2], 0.3)
    assert [record.status for record in result] == ["non_finite"] * 2
    assert result[0].error == "the score of a mask is not finite"


@NEEDS_DATA
def test_maps_of_photographs_stay_near():
    """Means over more images are in docs/budget.md; a single image must not be lost."""
    network = trained()
    with (IMAGES / "labels.csv").open(newline="") as lines:
        names = [row["file"] for row in csv.DictReader(lines)][::150]
    mean, std = torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    for name in names:
        pixels = np.array(Image.open(IMAGES / name).convert("RGB").resize((128, 128)))
        image = ((torch.from_numpy(pixels).permute(2, 0, 1) / 255 - mean) / std)[None]
        full = SISE(network)(image).maps[0].double().numpy()
        near = SISE(network, budget="balanced")(image).maps[0].double().numpy()
        assert spearmanr(full.ravel(), near.ravel()).statistic > 0.85
        assert np.minimum(full, near).sum() / np.maximum(full, near).sum() > 0.75
