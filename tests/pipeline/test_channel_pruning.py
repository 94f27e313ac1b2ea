"""Channels removed from a network: which go, what stays, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from heatlas.errors import ModelError, UsageError
from heatlas.pipeline.edge.channel_pruning import count_parameters, fine_tuned, prune_channels, refuse_zero_masks
from torch import nn
from torch.nn.utils import prune

WEAK = [0, 2, 5]
"""Channels of the first convolution whose weights, and those that read them, are near 0."""


def network() -> Any:
    """Two convolutions of 6 and 8 channels, and 3 classes."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 3),
    )  # fmt: skip
    with torch.no_grad():
        net[0].weight[WEAK] *= 1e-3
        net[2].weight[:, WEAK] *= 1e-3
    return net.eval()


def test_the_weakest_channels_go_and_the_classes_stay() -> None:
    whole = network()
    pruned: Any = prune_channels(whole, (3, 24, 24), 0.5)
    assert [pruned[place].out_channels for place in (0, 2)] == [3, 4]
    assert pruned[-1].out_features == 3
    assert count_parameters(pruned) < count_parameters(whole) / 2
    assert torch.equal(pruned[0].weight, whole[0].weight[[1, 3, 4]])
    assert whole[0].out_channels == 6, "the model itself stays as it is"
    assert not pruned.training


def test_a_network_without_channels_to_remove_is_refused() -> None:
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)).eval()
    with pytest.raises(ModelError, match="removes no channel"):
        prune_channels(network, (3, 24, 24), 0.5)


def test_zero_masks_are_refused() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    refuse_zero_masks(network, "net")
    prune.ln_structured(network[0], "weight", 0.5, n=2, dim=0)
    with pytest.raises(UsageError, match=r"is pruned by masks .*zeros take as many bytes"):
        refuse_zero_masks(network, "net")


@pytest.mark.parametrize(
    ("trainer", "text"),
    [
        (lambda network: network.no_such, "--trainer failed with AttributeError"),
        (lambda network: 3, "it returned a int"),
    ],
)
def test_a_trainer_that_fails_is_told(trainer, text: str) -> None:
    with pytest.raises(ModelError, match=text):
        fine_tuned(trainer, nn.Linear(2, 2))
