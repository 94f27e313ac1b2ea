"""Every method on a small network, ready to explain."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from heatlas.engine.explainer import Explainer
from heatlas.engine.layers.eval_mode import in_eval_mode
from heatlas.engine.methods.registry import bind_method, entries, find_method
from heatlas.engine.scoring.scoring_options import Scoring
from heatlas.engine.training.attention_head import AttentionHead
from heatlas.engine.training.auxiliary import Auxiliary, AuxiliaryReader
from heatlas.engine.training.feature_reader import FeatureReader
from heatlas.engine.training.model_split import split_model
from heatlas.engine.training.part_network import PartNetwork
from heatlas.engine.training.trained_head import TrainedHead
from heatlas.engine.training.trained_parts import TrainedParts
from torch import nn
from torchvision.models import VisionTransformer

from ..support.oracle_nets import images_like

NAMES = list(entries())


SIZE = (24, 24)


CLASSES = 4


SHORT: dict[str, dict[str, Any]] = {
    "rise": {"masks": 60},
    "integrated_gradients": {"steps": 4},
    "occlusion": {"positions": 4},
    "bee": {"steps": 3, "draws": 1},
    "bee_select": {"steps": 3, "draws": 3, "metric": "drop_pct"},
    "feature_cam": {"edges": "sobel"},
    "expected_gradients": {"samples": 3},
    "lima": {"grid": 4, "pending": 3},
    "fovex": {"fixations": 2, "steps": 8, "step_size": 0.7},
    "consensus": {"of": ("grad_cam", "layer_cam", "occlusion")},
}
"""Settings that make a method cheap; every other has its defaults."""


PACKED = [name for name in NAMES if find_method(name).packed]


def cnn() -> nn.Module:
    torch.manual_seed(3)
    blocks: list[nn.Module] = []
    for before, after in ((3, 6), (6, 8), (8, 10)):
        blocks += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    model = nn.Sequential(*blocks[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, CLASSES))
    nn.init.normal_(model[-1].weight)  # pyright: ignore[reportArgumentType]  (so that classes differ)
    return model.eval()


def transformer() -> nn.Module:
    torch.manual_seed(0)
    model = VisionTransformer(SIZE[0], 8, 2, 2, 16, 32, num_classes=CLASSES)
    nn.init.normal_(model.heads[0].weight)  # pyright: ignore[reportArgumentType]  (torchvision's starts at zero)
    return model.eval()


def model_for(name: str) -> nn.Module:
    return transformer() if find_method(name).architecture == "vit" else cnn()


def last_linear(model: nn.Module) -> nn.Linear:
    return [module for module in model.modules() if isinstance(module, nn.Linear)][-1]


def bound(name: str, model: nn.Module, scoring: Scoring = Scoring(batch_size=16), **more: Any) -> Explainer:  # noqa: B008  (frozen)
    return trained(bind_method(name, model, scoring=scoring, **{**SHORT.get(name, {}), **more}))


def trained(explainer: Explainer) -> Explainer:
    """With a network of random weights, where the method needs a trained one."""
    if not explainer.declared.trained:
        return explainer
    return replace(explainer, trained=untrained(explainer.declared.name, explainer.model))  # pyright: ignore[reportCallIssue]


def untrained(name: str, model: nn.Module) -> TrainedHead | TrainedParts | None:
    """What `heatlas train` would have begun with; None for methods that need nothing."""
    if not find_method(name).trained:
        return None
    torch.manual_seed(5)
    with in_eval_mode(model):
        if name == "explainer_network":
            split = split_model(model, torch.zeros(3, *SIZE))
            network = PartNetwork(split)
            network.calibrate(split.read(images_like(5, 3, SIZE, seed=1))[0])
            return TrainedParts(network.state_dict(), split.layer, (2, 0, 1), (1.0, 1.0))
        auxiliary = Auxiliary(cnn(), torch.ones(3), torch.zeros(3)) if name == "ptame" else None
        example = torch.zeros(3, *SIZE)
        reader = FeatureReader(model, example) if auxiliary is None else AuxiliaryReader(model, auxiliary, example)
    head = AttentionHead(reader.channels, CLASSES).eval()
    return TrainedHead(head, reader.names, auxiliary=auxiliary)
