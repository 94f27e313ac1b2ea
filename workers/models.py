"""From what the user calls a model to one that is loaded, checked and ready to be explained."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor, nn

from ..engine.errors import ModelError, did_you_mean
from .factory_models import load_factory
from .found_model import FoundModel
from .hf_models import load_hf
from .input_channels import refuse_channels
from .ports import SampleReader
from .preprocess import Preprocess, with_overrides
from .program_models import SUFFIXES, load_program
from .timm_models import load_timm
from .torchvision_models import load_torchvision, torchvision_names
from .weights import model_digest

_FAMILIES: dict[str, Callable[[str, SampleReader | None], FoundModel]] = {
    "torchvision": load_torchvision,
    "timm": load_timm,
    "hf": load_hf,
}
"""Loaders by prefix; each takes what follows the colon. Anything else with a colon is a Python factory, or the path of a program."""
_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*(@.+)?")
_FORMS = (
    "torchvision:NAME[@WEIGHTS], timm:NAME[@WEIGHTS], hf:FOLDER_OR_NAME, package.module:factory[@WEIGHTS], or the path of a "
    "TorchScript file (.pt) or an exported program (.pt2)"
)


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Which model, and the user's preprocessing; plain values that travel to workers. None keeps what the model says."""

    spec: str
    """`torchvision:NAME[@WEIGHTS]`, `timm:NAME[@WEIGHTS]`, `hf:FOLDER_OR_NAME`, a path, or `package.module:factory[@WEIGHTS]`."""
    size: tuple[int, int] | None = None
    resize: str | None = None
    resize_to: int | None = None
    interpolation: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    channels: int | None = None

    def overrides(self) -> dict[str, object]:
        """The preprocess settings by name, None where the model decides."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "spec"}


@dataclass(frozen=True)
class LoadedModel:
    """A model that maps images to logits `(batch, class)`, or `(batch, class, height, width)` where it is dense."""

    module: nn.Module
    """On the CPU, in eval mode."""
    preprocess: Preprocess
    class_names: tuple[str, ...] | None
    """One name per class, None where nobody says."""
    num_classes: int
    """At least 2."""
    digest: str
    """Sha256 (hex) of weights and preprocessing."""
    origins: dict[str, str] = field(default_factory=dict)
    """Where each preprocess setting comes from, in words, by name."""
    dense: bool = False
    """Whether it gives every pixel its class."""


def load_model(spec: ModelSpec, reader: SampleReader | None = None) -> LoadedModel:
    """Load the model, settle its preprocessing, and run it once on zeros to see that it is a classifier.

    Args:
        spec: Model and preprocessing.
        reader: Reads weights at remote URIs (`s3://...`); local files need none.

    Raises:
        ModelError: When the model is unknown, cannot be loaded, or does not return logits `(batch, class)`.
        SettingsError: When a preprocess setting is out of its range.
    """
    found = _load(spec, reader)
    module, class_names = found.module.eval(), found.class_names
    preprocess = with_overrides(found.preprocess, spec.overrides())
    refuse_channels(module, preprocess, spec.spec)
    classes, dense = _outputs(module, preprocess, spec.spec)
    if class_names is not None and len(class_names) != classes:
        raise ModelError(f"{spec.spec} returns {classes} classes but names {len(class_names)}; they must agree")
    digest = model_digest(module, preprocess, found.code)
    return LoadedModel(module, preprocess, class_names, classes, digest, origins_of(found, preprocess, spec), dense)


def origins_of(found: FoundModel, preprocess: Preprocess, spec: ModelSpec) -> dict[str, str]:
    """Who decided each preprocess setting: the user, the model, or one of the user's others."""
    origins = {}
    for name, given in spec.overrides().items():
        if given is not None:
            origins[name] = f"setting preprocess.{name}"
        elif getattr(preprocess, name) != getattr(found.preprocess, name):
            origins[name] = "follows from the settings"
        else:
            origins[name] = found.origin
    return origins


def remote_file(spec: str) -> str | None:
    """The URI of a model or of weights that are read from elsewhere; None where everything is local."""
    place = spec if is_program(spec) else spec.partition("@")[2]
    return place if "://" in place else None


def is_program(spec: str) -> bool:
    """Whether the spec is the path of a model saved as a program."""
    family = spec.partition(":")[0]
    return spec.lower().endswith(SUFFIXES) and family not in _FAMILIES and _FACTORY.fullmatch(spec) is None


def _load(model: ModelSpec, reader: SampleReader | None) -> FoundModel:
    spec = model.spec
    family, colon, rest = spec.partition(":")
    if colon and family in _FAMILIES:
        return _FAMILIES[family](rest, reader)
    if is_program(spec):
        return load_program(spec, reader, model.overrides())
    if _FACTORY.fullmatch(spec):
        return load_factory(spec, reader)
    if spec.partition("@")[0] in torchvision_names():
        hint = f"; did you mean 'torchvision:{spec}'?"
    else:
        hint = did_you_mean(family, _FAMILIES)
    raise ModelError(f"{spec!r} names no model{hint}; write {_FORMS}")


def _outputs(module: nn.Module, preprocess: Preprocess, spec: str) -> tuple[int, bool]:
    """Number of classes, and whether every pixel gets them."""
    shape = (1, preprocess.channels, *preprocess.size)
    try:
        with torch.no_grad():
            output = module(torch.zeros(shape))
    except Exception as error:
        raise ModelError(
            f"{spec} does not run on an input of shape {shape}: {' '.join(str(error).split())}. Set preprocess.size (and, for "
            "other channels, preprocess.mean and preprocess.std) to what the model was trained with"
        ) from error
    logits = output.get("out") if isinstance(output, Mapping) else output  # torchvision's segmentation models
    if not isinstance(logits, Tensor) or (logits is not output and logits.ndim != 4):
        raise ModelError(
            f"{spec} returns a {type(output).__name__}, not a tensor of logits (batch, class); wrap it so that it returns only "
            "the logits"
        )
    if logits.ndim not in (2, 4) or logits.shape[0] != 1 or logits.shape[1] < 2:
        raise ModelError(f"{spec} must return logits of shape (batch, class), or (batch, class, height, width) of a dense model, with at "
                         f"least 2 classes; for a batch of 1 it returned {tuple(logits.shape)}")  # fmt: skip
    if not torch.isfinite(logits).all():
        raise ModelError(
            f"{spec} returns logits that are not finite for an input of zeros; its weights are damaged or incomplete"
        )
    return logits.shape[1], logits.ndim == 4
