"""`torchvision:NAME[@WEIGHTS]`: torchvision's classification architectures with published or local weights."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import torchvision.models
import torchvision.models.segmentation
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model, get_model_weights, list_models

from ...errors import ModelError, did_you_mean
from ..images.preprocess import preprocess_from_preset, segmentation_note
from ..protocols import SampleReader
from .built_model import FamilyModel
from .weights import WEIGHT_SUFFIXES, StateDict, fit, read_weights

_AUXILIARY = {"googlenet": "aux1.", "inception_v3": "AuxLogits."}
"""Architectures with auxiliary heads for training, which files may leave out, and that normalise their input anew."""


def torchvision_names() -> list[str]:
    """Every classification architecture that torchvision ships, sorted."""
    return list_models(module=torchvision.models)


def segmentation_names() -> list[str]:
    """Every segmentation architecture that torchvision ships, sorted."""
    return list_models(module=torchvision.models.segmentation)


def load_torchvision(name: str, reader: SampleReader | None = None) -> FamilyModel:
    """Build an architecture with weights; an untrained one explains nothing, so without `@WEIGHTS` it is `@DEFAULT`.

    Args:
        name: `NAME`, `NAME@DEFAULT`, `NAME@ENUM_NAME`, or `NAME@FILE` with a `.safetensors`, `.pth` or `.pt` file. The
            number of classes is read from the file's last layer; with 1000 classes they are taken for ImageNet's. From a file without
            a last layer the model gives features.
        reader: Reads weights at remote URIs.

    Returns:
        The module, its preprocessing (of a file: that of the architecture's default weights), its class names.

    Raises:
        ModelError: For unknown architectures or weights, no connection, or weights that do not fit.
    """
    architecture, _, weights = name.partition("@")
    known = [*torchvision_names(), *segmentation_names()]
    if architecture not in known:
        hint = did_you_mean(architecture, known) or "; see torchvision.models.list_models()"
        raise ModelError(f"unknown torchvision classification model {architecture!r}{hint}")
    if weights.lower().endswith(WEIGHT_SUFFIXES):
        return _from_file(architecture, weights, reader)
    return _published(architecture, _enum_entry(architecture, weights or "DEFAULT"))


def _published(architecture: str, entry: WeightsEnum) -> FamilyModel:
    try:
        module = get_model(architecture, weights=entry, progress=False)
    except (OSError, RuntimeError) as error:  # urllib's errors are OSErrors; a damaged download is a RuntimeError
        raise ModelError(
            f"cannot download the weights {entry} of {architecture} ({error}); without a connection give a local file: "
            f"torchvision:{architecture}@/path/to/weights.safetensors (or .pth)"
        ) from error
    preprocess = preprocess_from_preset(entry.transforms())
    notes = (*_own_normalisation(module, architecture), *segmentation_note(entry.transforms()))
    return FamilyModel(module, preprocess, _categories(entry), f"transforms of {entry}", notes=notes)


def _own_normalisation(module: nn.Module, architecture: str) -> tuple[str, ...]:
    """Inception's and GoogLeNet's published weights want another mean and std than their transforms give, and convert."""
    if not getattr(module, "transform_input", False):
        return ()
    return (
        f"{architecture} changes mean and std of its input itself (transform_input=True, as torchvision's published weights have it): masked "
        "pixels are zero before that",
    )


def _from_file(architecture: str, uri: str, reader: SampleReader | None) -> FamilyModel:
    file = read_weights(uri, reader, outer=architecture not in segmentation_names())
    weights = _present_names(file.tensors)
    module, headless = _built(architecture, weights)
    fit(module, weights, uri)
    default = get_model_weights(architecture).DEFAULT  # pyright: ignore[reportAttributeAccessIssue]
    preprocess = preprocess_from_preset(default.transforms())
    image_size = getattr(module, "image_size", preprocess.size[0])
    if image_size != preprocess.size[0]:
        preprocess = replace(preprocess, size=(image_size, image_size), resize_to=None)
    categories = _categories(default)
    fits = categories is not None and not headless and len(categories) == _class_count(module, weights)
    origin = f"transforms of {default}, because a file does not say"
    notes = (*file.notes, *_own_normalisation(module, architecture), *segmentation_note(default.transforms()))
    return FamilyModel(module, preprocess, categories if fits else None, origin, headless=headless, notes=notes)


_SPELLINGS = (
    (re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)"), r"\1\2"),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_1\."), r"\1.0."),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_2\."), r"\1.3."),
)
"""Names in files that torchvision publishes, and as its modules have them now: `norm.1` of DenseNet, `mlp.linear_1` of ViT."""


def _present_names(weights: StateDict) -> StateDict:
    renamed = {}
    for name, tensor in weights.items():
        for old, new in _SPELLINGS:
            name = old.sub(new, name)
        renamed[name] = tensor
    return renamed


def _built(architecture: str, weights: StateDict) -> tuple[nn.Module, bool]:
    """The empty architecture, with as many classes (and for ViT, positions) as the weights have; whether it is without its last layer."""
    options: dict[str, Any] = _options(architecture, weights)
    module = get_model(architecture, weights=None, **options)
    last = _last_weight(module).removesuffix(".weight")
    if not any(name.startswith(f"{last}.") for name in weights) and isinstance(module.get_submodule(last), nn.Linear):
        module.set_submodule(last, nn.Identity())
        return module, True
    classes = _class_count(module, weights)
    if classes == module.state_dict()[_last_weight(module)].shape[0]:
        return module, False
    return get_model(architecture, weights=None, num_classes=classes, **options), False


def _options(architecture: str, weights: StateDict) -> dict[str, Any]:
    if architecture in segmentation_names():
        has_auxiliary = any(name.startswith("aux_classifier.") for name in weights)
        return {"weights_backbone": None} | ({"aux_loss": True} if has_auxiliary else {})
    if architecture in _AUXILIARY:
        has_auxiliary = any(name.startswith(_AUXILIARY[architecture]) for name in weights)
        return {"aux_logits": has_auxiliary, "transform_input": True, "init_weights": False}
    positions, patches = weights.get("encoder.pos_embedding"), weights.get("conv_proj.weight")
    if positions is not None and patches is not None and positions.ndim == 3 and patches.ndim == 4:
        return {"image_size": patches.shape[-1] * math.isqrt(positions.shape[1] - 1)}
    return {}


def _class_count(module: nn.Module, weights: StateDict) -> int:
    """Outputs of the last layer in the file, or in the module where the file lacks that layer."""
    name = _last_weight(module)
    own: Tensor = module.state_dict()[name]
    given = weights.get(name, own)
    return (given if given.ndim == own.ndim else own).shape[0]


def _last_weight(module: nn.Module) -> str:
    """The name of the classifier's weight: in every torchvision classifier the last one registered."""
    return [name for name in module.state_dict() if name.endswith(".weight")][-1]


def _enum_entry(architecture: str, name: str) -> WeightsEnum:
    entries = get_model_weights(architecture)
    short = name.rpartition(".")[2]  # ResNet50_Weights.IMAGENET1K_V2 is taken too
    if short in entries.__members__:
        return entries[short]
    known = list(entries.__members__)
    raise ModelError(
        f"{architecture} has no weights {name!r}{did_you_mean(name, known)}; it has {', '.join(known)}, or give a local "
        f"file that ends in {', '.join(WEIGHT_SUFFIXES)}"
    )


def _categories(entry: WeightsEnum) -> tuple[str, ...] | None:
    names = entry.meta.get("categories")
    return tuple(names) if names else None
