"""From what the user calls a model to one that is loaded, checked and ready to be explained."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace

import torch
from torch import nn

from ...engine.features.bank_classifier import BankClassifier
from ...engine.training.auxiliary import Auxiliary
from ...errors import ModelError, did_you_mean
from ..images.own_processor import processor_name
from ..images.preprocess import Preprocess, with_overrides
from ..object_names import PREFIX
from ..protocols import SampleReader
from .bank_file import bank_for
from .behaviour import LOGIT, TWO_CLASSES, TWO_MAPS, adapt_classifier, plain_module
from .built_model import FamilyModel
from .checks import class_count, feature_width
from .explainer_file import StoredExplainer, explainer_for
from .exported import SUFFIXES, load_program
from .factory import load_factory
from .given_model import load_given
from .huggingface import load_hf
from .input_channels import check_channels
from .logit_probe import probe_logits
from .onnx_file import SUFFIX as ONNX_SUFFIX
from .onnx_file import load_onnx
from .timm import load_timm
from .weights import model_digest


def _load_torchvision(name: str, reader: SampleReader | None) -> FamilyModel:
    from .torchvision import (
        load_torchvision,
    )  # here, because torchvision takes a second to import, which a factory need not wait for

    return load_torchvision(name, reader)


_FAMILIES: dict[str, Callable[[str, SampleReader | None], FamilyModel]] = {
    "torchvision": _load_torchvision,
    "timm": load_timm,
    "hf": load_hf,
    PREFIX: load_given,
}
"""Loaders by prefix; each takes what follows the colon. Anything else with a colon is a Python factory, or the path of a program."""
_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*(@.+)?")
_SAFE = ("torchvision:", "timm:", "heatlas.pipeline.demo.network:")
"""What the name of an auxiliary network may begin with."""
_FORMS = (
    "torchvision:NAME[@WEIGHTS], timm:NAME[@WEIGHTS], hf:FOLDER_OR_NAME, package.module:factory[@WEIGHTS], or the path of a "
    "TorchScript file (.pt), an exported program (.pt2) or an ONNX file (.onnx)"
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
    channel_order: str | None = None
    levels: tuple[float, float] | None = None
    clip_levels: bool | None = None
    level_kind: str | None = None
    bands: tuple[int, ...] | None = None
    bank: str | None = None
    """Path or URI of a feature bank that stands in for a classifier."""
    explainer: str | None = None
    """Path or URI of an explainer that was trained for this model."""

    def overrides(self) -> dict[str, object]:
        """The preprocess settings by name, None where the model decides."""
        return {
            setting.name: getattr(self, setting.name)
            for setting in fields(self)
            if setting.name not in ("spec", "bank", "explainer")
        }


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
    """Sha256 (hex) of weights and preprocessing, and of the bank where there is one."""
    origins: dict[str, str] = field(default_factory=dict)
    """Where each preprocess setting comes from, in words, by name."""
    dense: bool = False
    """Whether it gives every pixel its class."""
    explainer: StoredExplainer | None = None
    """What `heatlas train` made for this model, where one is named."""
    bank_digest: str = ""
    """Sha256 (hex) of the bank alone; empty without one."""
    notes: tuple[str, ...] = ()
    """What was chosen or dropped on the way, for the user to read."""
    multi_label: bool = False
    """Whether the model says that several classes may be true at once."""
    logits: tuple[float | None, ...] = ()
    """What it computes for two fixed images, see `probe_logits`."""
    source: str = ""
    """Sha256 (hex) of the user's code that builds it; empty where there is none."""


@dataclass(frozen=True)
class FeatureModel:
    """A model that gives features, whatever else it returns."""

    module: nn.Module
    """On the CPU, in eval mode."""
    preprocess: Preprocess
    digest: str
    """Sha256 (hex) of weights and preprocessing."""
    width: int
    """Numbers in a feature."""
    origins: dict[str, str] = field(default_factory=dict)


def load_model(spec: ModelSpec, reader: SampleReader | None = None) -> LoadedModel:
    """Load the model, settle its preprocessing, and run it once on zeros to see that it is a classifier, or with a bank becomes one.

    Args:
        spec: Model, preprocessing and bank.
        reader: Reads weights and banks at remote URIs (`s3://...`); local files need none.

    Raises:
        ModelError: When the model is unknown, cannot be loaded, or does not return logits `(batch, class)`; when the bank is none, or
            another model's.
        SettingsError: When a preprocess setting is out of its range.
    """
    loaded = _loaded(spec, reader)
    if spec.explainer is None:
        return loaded
    stored = explainer_for(spec.explainer, loaded.digest, spec.spec, reader)
    if other := stored.facts.get("auxiliary"):
        stored = replace(
            stored, auxiliary=load_auxiliary(str(other["model"]), loaded, reader, digest=str(other["digest"]))
        )
    return replace(loaded, explainer=stored)


def load_auxiliary(name: str, model: LoadedModel, reader: SampleReader | None = None, *, digest: str = "") -> Auxiliary:
    """P-TAME's auxiliary network, taking what the model takes in its own normalisation.

    Args:
        name: `torchvision:...` or `timm:...`: an explainer's file names it, and must not name other code to run.
        model: That is explained.
        reader: Reads weights at remote URIs.
        digest: That it must have; empty: any.

    Raises:
        ModelError: When it may not be named, cannot be loaded, is another, or takes other channels.
    """
    if not name.startswith(_SAFE):
        raise ModelError(f"the auxiliary network must be a torchvision: or timm: model, got {name!r}")
    loaded = _loaded(ModelSpec(spec=name), reader)
    if digest and loaded.digest != digest:
        raise ModelError(
            f"the auxiliary network {name} is another than in training (digest {loaded.digest[:12]}, it was {digest[:12]}); give its weights"
        )
    own, other = model.preprocess, loaded.preprocess
    if own.channels != other.channels and (own.channels, other.channels) != (1, 3):  # grey is seen in all three
        raise ModelError(
            f"the auxiliary network {name} takes {other.channels} channels, the model {own.channels}; name one of {own.channels} with --auxiliary, or "
            "train ttame, which needs none"
        )
    mean, std, other_mean, other_std = (torch.tensor(values) for values in (own.mean, own.std, other.mean, other.std))
    flipped = own.channel_order != other.channel_order
    if flipped:  # scale and shift are in the explained model's order
        other_mean, other_std = other_mean.flip(0), other_std.flip(0)
    return Auxiliary(loaded.module, std / other_std, (mean - other_mean) / other_std, loaded.digest, flipped)


def _loaded(spec: ModelSpec, reader: SampleReader | None) -> LoadedModel:
    if spec.bank is not None:
        return _with_bank(load_feature_model(spec, reader), spec.spec, spec.bank, reader)
    built, preprocess = _settled(spec, reader)
    if built.headless:
        raise ModelError(
            f"{spec.spec} has no classifier, it gives features: make a bank of labelled images with `heatlas bank` and name it "
            "with --bank, or give weights that have a last layer"
        )
    return _classifier(built, preprocess, spec)


def refuse_random_weights(spec: ModelSpec, model: LoadedModel, reader: SampleReader | None = None) -> None:
    """Build the model of a Python factory a second time: weights that differ were never loaded, and workers would each have others.

    Raises:
        ModelError: If they differ.
    """
    if _FACTORY.fullmatch(spec.spec) and "@" not in spec.spec and load_model(spec, reader).digest != model.digest:
        raise ModelError(
            f"{spec.spec}() gives other weights each time it is called, so they are random: load trained ones in it, or name their file "
            f"({spec.spec}@weights.safetensors)"
        )


def load_feature_model(spec: ModelSpec, reader: SampleReader | None = None) -> FeatureModel:
    """As `load_model`, of a model whose features are wanted; its bank is not looked at.

    Raises:
        ModelError: When the model is unknown, cannot be loaded, or gives no features.
        SettingsError: When a preprocess setting is out of its range.
    """
    return _features(*_settled(spec, reader), spec)


def load_either(spec: ModelSpec, reader: SampleReader | None = None) -> LoadedModel | FeatureModel:
    """As `load_model`, or as `load_feature_model` where the model has no classifier: for whoever looks only at its layers.

    Raises:
        ModelError: As these two.
        SettingsError: As these two.
    """
    built, preprocess = _settled(spec, reader)
    return (_features if built.headless else _classifier)(built, preprocess, spec)


def _classifier(built: FamilyModel, preprocess: Preprocess, spec: ModelSpec) -> LoadedModel:
    class_names = built.class_names
    module, notes, adapted = adapt_classifier(built.module, preprocess, spec.spec)
    classes, dense = class_count(module.eval(), preprocess, spec.spec)
    if class_names is not None and len(class_names) == 1 and TWO_CLASSES in adapted:
        raise ModelError(
            f"{spec.spec} has one output, which is that of class 1 against class 0: name both, not only {class_names[0]!r}"
        )
    if class_names is not None and len(class_names) != classes:
        raise ModelError(f"{spec.spec} returns {classes} classes but names {len(class_names)}; they must agree")
    digest = model_digest(built.module, preprocess, "+".join((built.code, *adapted)))
    return LoadedModel(
        module, preprocess, class_names, classes, digest, origins_of(built, preprocess, spec), dense,
        notes=(*built.notes, *notes), multi_label=built.multi_label or (LOGIT in adapted and not {TWO_CLASSES, TWO_MAPS} & set(adapted)),
        logits=probe_logits(module, preprocess, spec.spec), source=built.source,
    )  # fmt: skip


def _features(built: FamilyModel, preprocess: Preprocess, spec: ModelSpec) -> FeatureModel:
    width = feature_width(built.module, preprocess, spec.spec)
    digest = model_digest(built.module, preprocess, built.code)
    return FeatureModel(built.module, preprocess, digest, width, origins_of(built, preprocess, spec))


def _with_bank(model: FeatureModel, spec: str, uri: str, reader: SampleReader | None) -> LoadedModel:
    stored = bank_for(uri, model.width, model.digest, spec, reader)
    own = stored.digest()
    module = BankClassifier(model.module, stored.bank).eval()
    return LoadedModel(
        module=module,
        preprocess=model.preprocess,
        class_names=stored.class_names,
        num_classes=stored.bank.num_classes,
        digest=hashlib.sha256(f"{model.digest} {own}".encode()).hexdigest(),
        origins=model.origins,
        bank_digest=own,
        logits=probe_logits(module, model.preprocess, spec),
    )


def _settled(spec: ModelSpec, reader: SampleReader | None) -> tuple[FamilyModel, Preprocess]:
    built = _load(spec, reader)
    module, notes = plain_module(built.module.eval())
    built = replace(built, module=module.eval(), notes=(*built.notes, *notes))
    preprocess = with_overrides(built.preprocess, spec.overrides())
    check_channels(built.module, preprocess, spec.spec)
    if preprocess.processor:
        note = f"the model's own image processor ({processor_name(preprocess.processor)}) makes its input; heatlas's steps give other pixels"
        built = replace(built, notes=(*built.notes, note))
    return built, preprocess


def origins_of(built: FamilyModel, preprocess: Preprocess, spec: ModelSpec) -> dict[str, str]:
    """Who decided each preprocess setting: the user, the model, or one of the user's others."""
    origins = {}
    for name, given in spec.overrides().items():
        if given is not None:
            origins[name] = f"setting preprocess.{name}"
        elif getattr(preprocess, name) != getattr(built.preprocess, name):
            origins[name] = "follows from the settings"
        else:
            origins[name] = built.origin
    return origins


def remote_file(spec: str) -> str | None:
    """The URI of a model or of weights that are read from elsewhere; None where everything is local."""
    place = spec if is_program(spec) else spec.partition("@")[2]
    return place if "://" in place else None


def is_program(spec: str) -> bool:
    """Whether the spec is the path of a model saved as a program or graph."""
    family = spec.partition(":")[0]
    return (
        spec.lower().endswith((*SUFFIXES, ONNX_SUFFIX)) and family not in _FAMILIES and _FACTORY.fullmatch(spec) is None
    )


def _load(model: ModelSpec, reader: SampleReader | None) -> FamilyModel:
    spec = model.spec
    family, colon, rest = spec.partition(":")
    if colon and family in _FAMILIES:
        return _FAMILIES[family](rest, reader)
    if is_program(spec):
        if spec.lower().endswith(ONNX_SUFFIX):
            return load_onnx(spec, reader, model.overrides())
        return load_program(spec, reader, model.overrides())
    if _FACTORY.fullmatch(spec):
        return load_factory(spec, reader)
    from .torchvision import torchvision_names

    if spec.partition("@")[0] in torchvision_names():
        hint = f"; did you mean 'torchvision:{spec}'?"
    else:
        hint = did_you_mean(family, _FAMILIES)
    raise ModelError(f"{spec!r} is not a model{hint}; write {_FORMS}")
