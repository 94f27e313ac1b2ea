"""Repaired heads and the gradient penalty against definitions and other people's code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from heatlas.engine.repair.linear_head import find_head, fit_head, head_features, main_directions, projected_head
from heatlas.engine.repair.right_reasons import gradient_penalty
from heatlas.errors import ModelError
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn


def test_a_projected_head_is_the_head_of_projected_features():
    torch.manual_seed(0)
    features, weight, bias = torch.randn(9, 6), torch.randn(4, 6), torch.randn(4)
    directions, reference = torch.randn(2, 6), torch.randn(6)
    basis = torch.linalg.svd(directions, full_matrices=False).Vh
    projected = features - (features - reference) @ basis.T @ basis
    new_weight, new_bias = projected_head(weight, bias, directions, reference)
    torch.testing.assert_close(features @ new_weight.T + new_bias, projected @ weight.T + bias, atol=1e-5, rtol=1e-5)


def test_a_fitted_head_is_scikit_learns():
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 120)
    features = random.normal(0, 1, (120, 5)) * [1, 5, 0.2, 1, 1] + labels[:, None] * [1, 0, 0.1, 0, 0.3] + 3
    weight, bias = fit_head(torch.tensor(features, dtype=torch.float32), torch.tensor(labels), 3, 0.01)
    oracle = LogisticRegression(C=1 / (0.01 * 120), max_iter=2000, tol=1e-8)
    scaler = StandardScaler().fit(features)
    oracle.fit(scaler.transform(features), labels)
    ours = (torch.tensor(features, dtype=torch.float32) @ weight.T + bias).softmax(dim=1).numpy()
    # scikit-learn does not penalise the bias, and neither do we
    np.testing.assert_allclose(ours, oracle.predict_proba(scaler.transform(features)), atol=2e-3)


def test_directions_of_a_mark_that_moves_features_alike():
    torch.manual_seed(1)
    along = nn.functional.normalize(torch.randn(8), dim=0)
    differences = 3 * along + 0.01 * torch.randn(40, 8)
    [direction] = main_directions(differences, 1)
    assert float(direction @ along) > 0.999
    several = main_directions(differences, 3)
    torch.testing.assert_close(several @ several.T, torch.eye(3), atol=1e-4, rtol=0)


def test_the_head_is_found_and_what_it_is_given():
    torch.manual_seed(2)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5), nn.ReLU())
    head, images = nn.Linear(5, 2), torch.randn(3, 3, 8, 8)
    model = nn.Sequential(body, head).eval()
    assert find_head(model, images) is head
    torch.testing.assert_close(head_features(model, head, images, batch=2), body(images).detach())
    with pytest.raises(ModelError, match="does not return the output of a linear layer"):
        find_head(nn.Sequential(body, head, nn.Softmax(dim=1)), images)


def test_the_penalty_of_a_linear_model_by_hand():
    """Of a loss w.x the gradient is w, so the penalty is the cosine of |w| (channels summed) and the region."""
    weight = torch.tensor([[[1.0, 2.0], [0.0, 2.0]], [[1.0, -2.0], [0.0, 0.0]]])
    images = torch.zeros(3, 2, 2, 2, requires_grad=True)
    regions = torch.zeros(3, 2, 2, dtype=torch.bool)
    regions[0, 0] = True  # top row, where |sum of channels| is 2 and 0; elsewhere 0 and 2
    regions[1, 0, 0] = regions[1, 1, 1] = True
    losses = (images * weight).flatten(1).sum(dim=1)
    value = gradient_penalty(losses, images, regions)
    expected = (2 / (8**0.5 * 2**0.5) + 4 / (8**0.5 * 2**0.5)) / 2
    assert float(value.detach()) == pytest.approx(expected, abs=1e-6)
    assert float(gradient_penalty(losses, images, torch.zeros_like(regions)).detach()) == 0
