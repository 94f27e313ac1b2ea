"""AGF with a feature bank in the place of a classifier: class means, centres, pairs, and banks that say nothing."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from heatlas.engine.features.bank_classifier import BankClassifier
from heatlas.engine.features.bank_prototypes import PairPrototypes
from heatlas.engine.features.feature_bank import FeatureBank
from heatlas.engine.features.prototype_classifier import PrototypeClassifier, class_means, pair_prototypes
from heatlas.engine.method_fit import check_fit
from heatlas.engine.methods.agf import AGF
from heatlas.errors import ModelError, SettingsError
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from ..support.oracle_nets import images_like


def featured() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    ).eval()  # fmt: skip


@pytest.fixture
def images() -> Tensor:
    return images_like(3, 3, (24, 24), seed=2)


@torch.no_grad()
def bank_of(model: nn.Module, count: int = 9, classes: int = 3) -> FeatureBank:
    features = F.normalize(model(images_like(count, 3, (24, 24), seed=5)), dim=1)
    return FeatureBank(features, torch.arange(count) % classes)


def test_class_means_are_the_classes_of_a_linear_classifier(images: Tensor) -> None:
    model = featured()
    bank, targets = bank_of(model), torch.tensor([2, 0, 1])
    ours = AGF(BankClassifier(model, bank)).signed(images, targets)
    linear = AGF(PrototypeClassifier(model, class_means(bank.features, bank.labels))).signed(images, targets)
    torch.testing.assert_close(ours, linear, rtol=1e-3, atol=1e-4)


def test_a_classifier_with_a_bank_is_read_below_its_last_layer(images: Tensor) -> None:
    model, targets = featured(), torch.tensor([2, 0, 1])
    bank = bank_of(model)
    headed = nn.Sequential(*model, nn.Linear(8, 5)).eval()
    ours = AGF(BankClassifier(headed, bank)).signed(images, targets)
    torch.testing.assert_close(ours, AGF(BankClassifier(model, bank)).signed(images, targets))


def test_a_pair_is_an_image_and_its_nearest_other_entry(images: Tensor) -> None:
    model = featured()
    with torch.no_grad():
        own = F.normalize(model(images), dim=1)
    others = bank_of(model).features
    bank = FeatureBank(torch.cat([own, others]), torch.zeros(len(own) + len(others), dtype=torch.long))
    method = AGF(BankClassifier(model, bank), variant="pair")
    ours = method.signed(images, torch.zeros(3, dtype=torch.long))
    result = method.explain(images, 0)
    for row in range(3):
        rest = torch.cat([bank.features[:row], bank.features[row + 1 :]])
        prototypes = pair_prototypes(own[row], rest)
        place = int((rest @ own[row]).argmax())
        assert int(result.extras["prototype"][row]) == place + (place >= row)
        with torch.no_grad():
            prototypes[1] = bank.features.mean(dim=0)
        weights = 10 * prototypes
        linear = PrototypeClassifier(model, prototypes)
        with torch.no_grad():
            linear.prototypes.weight.copy_(weights)
        torch.testing.assert_close(
            ours[row : row + 1], AGF(linear).signed(images[row : row + 1], torch.tensor([0])), rtol=1e-3, atol=1e-4
        )


def test_two_images_that_are_the_same_get_the_same_map(images: Tensor) -> None:
    model = featured()
    method = AGF(BankClassifier(model, bank_of(model)), variant="pair")
    maps = method.signed(torch.stack([images[0], images[0]]), torch.tensor([0, 0]))
    torch.testing.assert_close(maps[0], maps[1], rtol=1e-4, atol=1e-5)


def test_an_entry_that_is_the_image_itself_is_no_neighbour() -> None:
    bank = FeatureBank(torch.eye(3)[:1].repeat(2, 1), torch.tensor([0, 1]))
    compared = PairPrototypes(bank).compare(torch.eye(3)[:1], torch.tensor([0]))
    assert compared.known.tolist() == [False]


def test_centres_stand_in_for_classes(images: Tensor) -> None:
    model = featured()
    bank = bank_of(model)
    method = AGF(BankClassifier(model, bank), centres=4)
    result = method.explain(images)
    prototypes = method.prototypes.prototypes.float()
    with torch.no_grad():
        nearest = (F.normalize(model(images), dim=1) @ prototypes.T).argmax(dim=1)
    assert [int(value) for value in result.extras["prototype"]] == nearest.tolist()
    linear = AGF(PrototypeClassifier(model, prototypes)).signed(images, nearest)
    torch.testing.assert_close(method.signed(images, torch.zeros(3, dtype=torch.long)), linear, rtol=1e-3, atol=1e-4)


def test_a_class_without_an_entry_gets_no_map(images: Tensor) -> None:
    model = featured()
    bank = bank_of(model)
    gap = FeatureBank(bank.features, 2 * bank.labels, num_classes=6)
    result = AGF(BankClassifier(model, gap)).explain(images, [2, 3, 5])
    assert result.statuses == ["ok", "constant_map", "constant_map"]


def test_a_run_is_told_beforehand_what_does_not_fit(images: Tensor) -> None:
    model = featured()
    one = BankClassifier(model, FeatureBank(bank_of(model).features, torch.zeros(9, dtype=torch.long)))
    with pytest.raises(ModelError, match=r"entries of one class only.*--agf.variant pair"):
        check_fit("agf", one, None, images[0])
    with pytest.raises(ModelError, match="9 different entries, so it has no 10 centres"):
        AGF(BankClassifier(model, bank_of(model)), centres=10)
    transformer = VisionTransformer(24, 8, 2, 2, 16, 32, num_classes=8).eval()
    bank = FeatureBank(F.normalize(torch.randn(4, 16), dim=1), torch.arange(4))
    with pytest.raises(ModelError, match="agf has no rule for"):
        AGF(BankClassifier(transformer, bank))
    with pytest.raises(ModelError, match=r"with a feature bank: write one \(heatlas bank\)"):
        AGF(nn.Sequential(*model, nn.Linear(8, 3)), variant="pair")
    with pytest.raises(SettingsError, match="centres has no effect with variant=pair"):
        AGF(one, variant="pair", centres=3)
    with pytest.raises(SettingsError, match="centres must be 0 or at least 2, got 1"):
        AGF(one, centres=1)
