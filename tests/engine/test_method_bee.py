"""BEE: paths that add up, captum's path integral, families of baselines, the bandit against SciPy, and a metric that may not judge its choice."""

from __future__ import annotations

from pathlib import Path

import captum.attr
import numpy as np
import pytest
import torch
from heatlas.engine.given_maps import evaluate_maps
from heatlas.engine.layers.blocks import block_layers
from heatlas.engine.layers.capture import capture_layers, logits_with_layer
from heatlas.engine.methods.activation_baselines import FAMILIES, blurred, draw_baseline, kept_share
from heatlas.engine.methods.baseline_bandit import Bandit, rank_in
from heatlas.engine.methods.bee import BEE
from heatlas.engine.methods.bee_select import PROBE_COUNTS, BEESelect
from heatlas.engine.metrics import METRICS
from heatlas.engine.metrics.choosing_metric import family_of
from heatlas.engine.session import ExplainSession
from heatlas.errors import SettingsError
from safetensors.torch import save_file
from scipy.optimize import minimize
from torch import Tensor, nn
from torchvision.models import resnet18

from ..support.oracle_nets import images_like


def net() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, padding=1), nn.Tanh(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 8), nn.Tanh(), nn.Linear(8, 3),
    ).eval()  # fmt: skip


@pytest.fixture
def images() -> Tensor:
    return images_like(2, 3, (16, 16), seed=3)


def drawn_paths(method: BEE, images: Tensor, family: str) -> tuple[Tensor, Tensor, Tensor]:
    [maps] = method.gradients.values(images)[1]
    baselines = method.baselines(images, maps, [4, 5], family, 0)
    return maps, baselines, method.path_map(images, torch.tensor([0, 2]), maps, baselines, family)


@pytest.mark.parametrize("family", FAMILIES[:4])
def test_a_path_adds_up_to_the_difference_of_the_logits(family: str, images: Tensor) -> None:
    model = net().double()
    maps, baselines, signed = drawn_paths(BEE(model, layer="2", steps=50), images.double(), family)
    rise = (model[3:](maps) - model[3:](baselines))[torch.arange(2), torch.tensor([0, 2])]
    torch.testing.assert_close(signed.sum((1, 2)), rise, rtol=0.01, atol=1e-6)


@pytest.mark.parametrize("family", ["normal", "blur"])
def test_it_is_captum_s_path_integral_of_what_lies_behind_the_layer(family: str, images: Tensor) -> None:
    model = net().double()
    maps, baselines, signed = drawn_paths(BEE(model, layer="2"), images.double(), family)
    oracle = captum.attr.IntegratedGradients(model[3:]).attribute(
        maps, baselines, target=torch.tensor([0, 2]), n_steps=10, method="riemann_middle"
    )
    torch.testing.assert_close(signed, oracle.sum(1), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("family", ["uniform", "constant"])
def test_the_released_way_adds_products_of_gradient_and_activation(family: str, images: Tensor) -> None:
    model = net().double()
    maps, baselines, signed = drawn_paths(BEE(model, layer="2", path="released"), images.double(), family)
    shares = [0, 1 / 3, 2 / 3, 1] if family == "uniform" else [0, 0.25, 0.5, 0.75, 1]
    expected = torch.zeros_like(signed)
    for share in shares:
        point = (baselines + share * (maps - baselines)).requires_grad_()
        score = model[3:](point)[torch.arange(2), torch.tensor([0, 2])].sum()
        slope, value = torch.autograd.grad(score, point)[0], point.detach()
        expected += (slope * value if family == "uniform" else slope.relu() * value.relu()).sum(1)
    torch.testing.assert_close(signed, expected)


def test_more_rows_than_images_go_on_behind_a_layer() -> None:
    torch.manual_seed(0)
    model, images = resnet18(num_classes=4).eval(), images_like(2, 3, (64, 64), seed=2)
    plan = block_layers(model, images[:1], layers=["layer3"])
    result = block_layers(model, images[:1])
    for each in (plan, type(result)(result[-1:], result.how)):
        logits, [maps] = capture_layers(model, each, images)
        stacked = torch.stack([maps, 0.5 * maps, 0 * maps], dim=1).flatten(0, 1).detach()
        rows = logits_with_layer(model, each, images, stacked)
        torch.testing.assert_close(rows[::3], logits, rtol=1e-4, atol=1e-5)
        halves = logits_with_layer(model, each, images, 0.5 * maps.detach())
        torch.testing.assert_close(rows[1::3], halves, rtol=1e-4, atol=1e-5)


def test_baselines_keep_to_their_channels() -> None:
    maps = torch.randn(5, 7, 9, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 6)[:, None, None]
    low, high = maps.amin((1, 2)), maps.amax((1, 2))
    made = {
        family: draw_baseline(family, maps, 224, torch.Generator().manual_seed(1), maps[None] + 1)
        for family in FAMILIES
    }
    for family in ("normal", "uniform"):
        torch.testing.assert_close(made[family].amin((1, 2)), low)
        torch.testing.assert_close(made[family].amax((1, 2)), high)
        assert abs(float(torch.corrcoef(torch.stack([made[family].flatten(), maps.flatten()]))[0, 1])) < 0.6
    assert bool((made["constant"] == made["constant"][:, :1, :1]).all())
    assert bool(((made["constant"][:, 0, 0] >= low) & (made["constant"][:, 0, 0] <= high)).all())
    assert float(made["blur"].std()) < float(maps.std())
    torch.testing.assert_close(made["train"], maps + 1)
    torch.testing.assert_close(blurred(torch.ones(1, 7, 9), 3.0), torch.ones(1, 7, 9))
    torch.testing.assert_close(blurred(maps, 1e-3), maps)
    assert kept_share() == pytest.approx(0.00635, abs=5e-6)


def test_stored_activations_are_those_of_the_layer(tmp_path: Path, images: Tensor) -> None:
    good, bad, other = (str(tmp_path / f"{name}.safetensors") for name in ("good", "bad", "other"))
    save_file({"activations": torch.rand(3, 4, 8, 8)}, good)
    save_file({"activations": torch.rand(3, 4, 5, 5)}, bad)
    save_file({"values": torch.rand(3)}, other)
    result = BEE(net(), layer="2", families=("train",), activations=good).explain(images)
    assert result.statuses == ["ok", "ok"]
    with pytest.raises(SettingsError, match=r"families has train, which draws among stored activations"):
        BEE(net(), families=("train",))
    with pytest.raises(SettingsError, match=r"activations are \(4, 5, 5\) each, those of the layer \(4, 8, 8\)"):
        BEE(net(), layer="2", families=("train",), activations=bad).explain(images)
    with pytest.raises(SettingsError, match=r"has no tensor 'activations'; it holds values"):
        BEE(net(), families=("train",), activations=other)
    with pytest.raises(SettingsError, match=r"is no file"):
        BEE(net(), families=("train",), activations=str(tmp_path / "nowhere"))


def test_baselines_that_agree_are_stable(images: Tensor) -> None:
    """One draw of one family has nothing to differ from; several have."""
    entry = BEE(net(), layer="2", families=("constant",), draws=1).explain(images)
    several = BEE(net(), layer="2", draws=3).explain(images)
    assert [float(value) for value in entry.extras["baseline_instability"] if value is not None] == [0, 0]
    assert all(float(value) > 0.01 for value in several.extras["baseline_instability"] if value is not None)
    assert [tuple(value.shape) for value in several.extras["baseline_std"] if value is not None] == [(8, 8)] * 2


@pytest.mark.parametrize("won", [True, False])
def test_the_posterior_s_mean_is_its_maximum(won: bool) -> None:
    draw = np.random.default_rng(0)
    mean, precision, context = draw.normal(size=5), draw.uniform(0.5, 3, size=5), draw.normal(size=5)
    bandit = Bandit(mean[None].copy(), precision[None].copy())
    bandit.learn(0, context, won)

    def loss(weights: np.ndarray) -> float:
        return float(
            0.5 * (precision * (weights - mean) ** 2).sum() + np.log1p(np.exp(-(1 if won else -1) * weights @ context))
        )

    best = minimize(loss, mean, method="BFGS", options={"gtol": 1e-9}).x
    np.testing.assert_allclose(bandit.means[0], best, atol=1e-6)
    chance = 1 / (1 + np.exp(-best @ context))
    np.testing.assert_allclose(bandit.precisions[0], precision + context**2 * chance * (1 - chance), rtol=1e-5)


def test_an_arm_that_wins_is_drawn_more_often() -> None:
    draw, context = np.random.default_rng(0), np.array([0.6, 0.8, 1.0])
    bandit = Bandit.fresh(3, 3)
    for _ in range(40):
        arm = bandit.choose(context, draw)
        bandit.learn(arm, context, won=arm == 1)
    assert sum(bandit.choose(context, draw) == 1 for _ in range(100)) > 60


def test_a_rank_counts_ties_half() -> None:
    assert rank_in([], 3.0, higher_is_better=True) == 0.5
    assert rank_in([1, 2, 2, 4], 2, higher_is_better=True) == 0.5
    assert rank_in([1, 2, 3], 0.5, higher_is_better=False) == 1.0


@pytest.mark.parametrize("metric", ["deletion_auc", "insertion_auc"])
@pytest.mark.parametrize("arms", ["bandit", "uniform"])
def test_the_map_that_is_kept_is_the_best_of_the_draws(metric: str, arms: str, images: Tensor) -> None:
    model = net()
    result = BEESelect(model, layer="2", draws=5, metric=metric, arms=arms, steps=3).explain(images, 1)
    entry = BEESelect(model, layer="2", draws=1, metric=metric, arms=arms, steps=3).explain(images, 1)
    measured = evaluate_maps(model, images, result.maps, 1, metrics=[metric]).values[metric]
    for place in range(2):
        kept, first = (float(result.extras[name][place]) for name in ("selected_value", "first_value"))  # pyright: ignore[reportArgumentType]
        assert kept == pytest.approx(float(measured[place]), abs=1e-5)
        assert kept <= first if metric == "deletion_auc" else kept >= first
        assert float(entry.extras["first_value"][place]) == pytest.approx(first, abs=1e-5)  # pyright: ignore[reportArgumentType]


def test_the_metric_that_chose_and_its_family_are_refused() -> None:
    method = BEESelect(net(), metric="deletion_auc")
    for name in ("deletion_auc", "insertion_auc"):
        with pytest.raises(
            SettingsError, match=rf"{name} cannot evaluate maps of bee_select, which chooses .* by deletion_auc"
        ):
            ExplainSession(method, [name, "entropy"])
    ExplainSession(method, ["drop_pct", "entropy"])
    ExplainSession(BEE(net()), ["deletion_auc"])
    assert set(family_of("drop_pct")) == {"drop_pct", "increase", "average_gain_pct"}


@pytest.mark.parametrize("name", PROBE_COUNTS)
def test_the_declared_forwards_of_a_choice_are_the_metric_s(name: str) -> None:
    each = sum(probe.count for probe in METRICS[name].probes if probe.of_map)
    once = sum(probe.count for probe in METRICS[name].probes if not probe.of_map)
    assert PROBE_COUNTS[name] == (each, once)


def test_a_warmed_up_posterior_is_where_another_starts(tmp_path: Path, images: Tensor) -> None:
    model, file = net(), str(tmp_path / "bandit.safetensors")
    method = BEESelect(model, layer="2", draws=4, metric="drop_pct", steps=2)
    warm = method.warm_up(images)
    assert float(warm.precisions.max()) > 1
    warm.save(file)
    frozen = BEESelect(model, layer="2", draws=4, metric="drop_pct", steps=2, bandit=file, frozen=True)
    np.testing.assert_allclose(frozen.start_posterior.means, warm.means, atol=1e-6)
    before = frozen.start_posterior.copy()
    assert frozen.explain(images).statuses == ["ok", "ok"]
    np.testing.assert_array_equal(frozen.start_posterior.means, before.means)
    with pytest.raises(SettingsError, match=r"means must be \(1, 33\), got \(4, 33\)"):
        BEESelect(model, families=("blur",), bandit=file)
