"""`heatlas layers`: the block-end layers of a model, as records and as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import ModelError, SettingsError, did_you_mean

if TYPE_CHECKING:
    from torch import nn

    from ...workers.models.load import FeatureModel

LARGEST = 4096
"""Pixels; a network runs once on an input of this height and width, and larger ones do not fit into most machines."""


def layer_records(model: str, size: int | None = None, *, untrained: bool = False) -> dict[str, Any]:
    """Plan the model's layers.

    Args:
        model: Model spec, as in the settings. The layers of a model without a classifier are named as they are with a feature bank,
            behind the prefix `model.`.
        size: Height and width of the network's input; None for the model's own.
        untrained: Build a torchvision architecture with random weights, so that nothing is downloaded.

    Returns:
        `model`, `input` (height, width), `how` and `layers` (name, channels, size), low to high.

    Raises:
        ModelError: If the model cannot be loaded or takes no such input.
        NoBlocksError: If it has no spatial hierarchy.
    """
    import torch

    from ...engine.layers.blocks import block_layers

    if size is not None and not 1 <= size <= LARGEST:
        raise SettingsError(f"--size must be between 1 and {LARGEST} pixels, got {size}")
    module, channels, own_size = random_weights(model) if untrained else loaded(model)
    height, width = own_size if size is None else (size, size)
    plan = block_layers(module, torch.zeros(1, channels, height, width))
    layers = [{"name": layer.name, "channels": layer.channels, "size": list(layer.size)} for layer in plan]
    return {"model": model, "input": [height, width], "how": plan.how, "layers": layers}


def loaded(model: str) -> tuple[nn.Module, int, tuple[int, int]]:
    """The model with its weights, its channels and input size."""
    from ...workers.models.load import FeatureModel, ModelSpec, load_either

    built = load_either(ModelSpec(spec=model))
    module = with_some_bank(built) if isinstance(built, FeatureModel) else built.module
    return module, built.preprocess.channels, built.preprocess.size


def with_some_bank(model: FeatureModel) -> nn.Module:
    """The classifier that a feature bank makes of the model; its layers are the same with any bank."""
    import torch

    from ...engine.features.bank_classifier import BankClassifier
    from ...engine.features.feature_bank import FeatureBank

    entries = torch.full((2, model.width), model.width**-0.5)
    return BankClassifier(model.module, FeatureBank(entries, torch.arange(2))).eval()


def random_weights(model: str) -> tuple[nn.Module, int, tuple[int, int]]:
    """A torchvision architecture with random weights, for which the layers are the same."""
    from torchvision.models import get_model, get_model_weights

    from ...workers.models.torchvision import torchvision_names

    kind, _, name = model.partition(":")
    if kind != "torchvision" or "@" in name:
        raise SettingsError(
            f"--untrained builds torchvision:NAME with random weights, got {model!r}; leave it out to load the model"
        )
    if name not in torchvision_names():
        hint = did_you_mean(name, torchvision_names()) or "; see torchvision.models.list_models()"
        raise ModelError(f"unknown torchvision classification model {name!r}{hint}")
    # these two would spend a minute on initialising, and warn that they do
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    side = get_model_weights(name).DEFAULT.transforms().crop_size[0]  # pyright: ignore[reportAttributeAccessIssue]
    return get_model(name, weights=None, **options).eval(), 3, (side, side)


HOW = {
    "traced": "from the traced graph",
    "hooks": "by hooks, because the model cannot be traced",
    "named": "as named",
}


def block_table(records: dict[str, Any]) -> str:
    """The records for people: one layer a line, low to high."""
    height, width = records["input"]
    rows = [("layer", "channels", "size")]
    rows += [(layer["name"], str(layer["channels"]), "{} x {}".format(*layer["size"])) for layer in records["layers"]]
    wide = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"{name:<{wide[0]}}  {channels:>{wide[1]}}  {size:>{wide[2]}}" for name, channels, size in rows]
    maps = sum(layer["channels"] for layer in records["layers"])
    head = f"{records['model']}: {len(rows) - 1} block-end layers for {height} x {width} input, found {HOW[records['how']]}"
    return "\n".join(
        [
            head,
            "",
            *lines,
            "",
            f"{maps} feature maps in all; SISE masks the image with those whose gradient is large enough (sise.mu)",
        ]
    )
