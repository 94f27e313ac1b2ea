"""AGF of models without a classifier: prototypes as classes, pairs of images, and what the randomised model leaves of it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from heatlas.engine.features.prototype_classifier import PrototypeClassifier, class_means, pair_prototypes
from heatlas.engine.methods.agf import AGF
from heatlas.engine.session import ExplainSession
from heatlas.errors import SettingsError
from torch import Tensor, nn
from torchvision.models import resnet18

from ..support.oracle_nets import images_like


def featured() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    ).eval()  # fmt: skip


@pytest.fixture
def images() -> Tensor:
    return images_like(3, 3, (24, 24), seed=2)


def test_logits_are_cosines_and_the_walk_goes_through_the_length(images: Tensor) -> None:
    model = featured()
    with torch.no_grad():
        features = model(images)
    classifier = PrototypeClassifier(model, features)
    expected = 10 * F.cosine_similarity(features[:, None], features[None], dim=2)
    torch.testing.assert_close(classifier(images), expected, rtol=1e-4, atol=1e-4)
    result = AGF(classifier).explain(images)
    assert result.targets.tolist() == [0, 1, 2]
    assert result.statuses == ["ok"] * 3


def test_swapping_two_prototypes_turns_the_map_s_sign_around(images: Tensor) -> None:
    model = featured()
    with torch.no_grad():
        features = model(images)
    first = AGF(PrototypeClassifier(model, features[:2])).signed(images[2:], torch.tensor([0]))
    same = AGF(PrototypeClassifier(model, features[[1, 0]])).signed(images[2:], torch.tensor([1]))
    torch.testing.assert_close(first, same, rtol=1e-3, atol=1e-4)
    other = AGF(PrototypeClassifier(model, features[:2])).signed(images[2:], torch.tensor([1]))
    assert float(((first > 0) != (other > 0)).float().mean()) > 0.02


def test_a_pair_of_equal_images_gets_equal_maps(images: Tensor) -> None:
    model = featured()
    with torch.no_grad():
        features = model(images)
    prototypes = pair_prototypes(features[0], features[1:])
    nearest = F.cosine_similarity(features[:1], features[1:]).argmax() + 1
    torch.testing.assert_close(prototypes[0], F.normalize(features[nearest], dim=0))
    method = AGF(PrototypeClassifier(model, prototypes))
    maps = method.signed(torch.stack([images[0], images[0]]), torch.tensor([0, 0]))
    torch.testing.assert_close(maps[0], maps[1], rtol=1e-4, atol=1e-5)


def test_a_residual_network_without_its_head() -> None:
    torch.manual_seed(0)
    model = resnet18().eval()
    model.fc = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    image = images_like(1, 3, (64, 64), seed=2)
    prototypes = class_means(torch.randn(9, 512), torch.arange(9) % 3)
    assert AGF(PrototypeClassifier(model, prototypes)).explain(image).statuses == ["ok"]


def test_the_randomised_model_gives_another_map(images: Tensor) -> None:
    """Adebayo's check: with all weights drawn anew the map is not what it was."""
    model = nn.Sequential(featured(), nn.Linear(8, 3)).eval()
    nn.init.normal_(model[1].weight)
    session = ExplainSession(AGF(model), ["gini"], sanity_below=100)
    rows = [*session.push(0, images[0], sample_seed=3), *session.finish()]
    value = rows[0].metrics["random_model_spearman"]
    assert value is not None
    assert value < 0.8


def test_prototypes_that_are_none_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"two or more, got \(1, 4\)"):
        PrototypeClassifier(featured(), torch.ones(1, 4))
    with pytest.raises(SettingsError, match="length above 0"):
        PrototypeClassifier(featured(), torch.zeros(2, 4))
    with pytest.raises(SettingsError, match="class 1 has no entry"):
        class_means(torch.ones(2, 4), torch.tensor([0, 2]))
