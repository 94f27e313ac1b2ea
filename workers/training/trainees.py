"""The trainee of a training: an attention head over the classifier's or an auxiliary network's features, or an explainer network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...engine.training.attention_head import AttentionHead
from ...engine.training.auxiliary import AuxiliaryReader
from ...engine.training.feature_reader import FeatureReader
from ...engine.training.head_settings import HeadSettings
from ...engine.training.head_step import HeadStep, frozen, head_optimiser
from ...engine.training.model_split import ModelSplit, split_model
from ...engine.training.part_network import PartNetwork
from ...engine.training.part_readout import feature_norms, read_parts
from ...engine.training.part_settings import PartSettings
from ...engine.training.part_step import PartStep, part_optimiser
from ..models.load import LoadedModel, load_auxiliary
from ..protocols import SampleReader
from .trainee import Trainee
from .training_spec import TrainingSpec


def build_trainee(
    spec: TrainingSpec, loaded: LoadedModel, device: torch.device, steps: int, reader: SampleReader | None = None
) -> Trainee:
    """The network of a method, the same on every rank.

    Args:
        spec: What is trained.
        loaded: The classifier.
        device: To train on.
        steps: Of the whole training.
        reader: Reads weights at remote URIs.
    """
    model = frozen(loaded.module.to(device, memory_format=torch.channels_last))  # type: ignore[call-overload]
    example = torch.zeros(loaded.preprocess.channels, *loaded.preprocess.size, device=device)
    if isinstance(spec.settings, PartSettings):
        return part_trainee(spec, spec.settings, model, example, steps)
    return head_trainee(spec, spec.settings, loaded, model, example, reader)


def head_trainee(
    spec: TrainingSpec,
    settings: HeadSettings,
    loaded: LoadedModel,
    model: nn.Module,
    example: Tensor,
    reader: SampleReader | None,
) -> Trainee:
    """T-TAME's or P-TAME's head."""
    features: FeatureReader | AuxiliaryReader
    if not spec.auxiliary:
        features = FeatureReader(model, example, settings.layers)
    else:
        auxiliary = load_auxiliary(spec.auxiliary, loaded, reader, digest=spec.auxiliary_digest)
        frozen(auxiliary.module.to(example.device))
        features = AuxiliaryReader(model, auxiliary, example, settings.layers)
    torch.manual_seed(spec.seed)  # every rank begins with the same head
    bias = not spec.auxiliary
    head = AttentionHead(features.channels, loaded.num_classes, bias=bias, shared_row=spec.shared_row).to(
        example.device
    )
    black = -torch.tensor(loaded.preprocess.mean) / torch.tensor(loaded.preprocess.std)

    def student(images: Tensor, targets: Tensor) -> Tensor:
        return head.rows(features(images)[1], targets).sigmoid()

    release = "ttame" if not spec.auxiliary else "ptame"
    return Trainee(
        head, HeadStep(head, features, settings, black.to(example.device)), model, features.names,
        lambda steps: head_optimiser(head, settings, steps, release=release), student=student,
    )  # fmt: skip


def part_trainee(spec: TrainingSpec, settings: PartSettings, model: nn.Module, example: Tensor, steps: int) -> Trainee:
    """The explainer network."""
    split = split_model(model, example, settings.layers[0] if settings.layers else None)
    torch.manual_seed(spec.seed)
    network = PartNetwork(split).to(example.device)

    def closing(training: Iterable[Tensor], holdout: Iterable[Tensor]) -> Mapping[str, Any]:
        return part_facts(network, split, settings, training, holdout)

    return Trainee(
        network, PartStep(network, split, settings, steps, spec.seed).to(example.device), model, (split.layer,),
        lambda count: part_optimiser(network, settings, count), begin=lambda images: network.calibrate(split.read(images)[0]),
        closing=closing,
    )  # fmt: skip


def part_facts(
    network: PartNetwork,
    split: ModelSplit,
    settings: PartSettings,
    training: Iterable[Tensor],
    holdout: Iterable[Tensor],
) -> dict[str, Any]:
    """Which filters are told of, the class in whose images each peaks most, and how true the rebuilt features are on held-out images."""
    network.eval()
    seen = [(images, feature_norms(split, images)) for images in training if len(images)]
    norms = torch.stack([norm for _, norm in seen]).mean(dim=0)
    contributions, strengths, classes = [], [], []
    for images, _ in seen:
        read = read_parts(network, split, images, torch.full((len(images),), -1, device=images.device), norms)
        contributions.append(read.contribution.abs())
        strengths.append(read.strength)
        classes.append(read.logits.argmax(dim=1))
    order = torch.cat(contributions).mean(dim=0).argsort(descending=True, stable=True)
    kept = order[: settings.kept_parts].tolist()
    strength, predicted = torch.cat(strengths), torch.cat(classes)
    known = predicted.unique()
    by_class = torch.stack([strength[predicted == number].mean(dim=0) for number in known])
    named = known[by_class.argmax(dim=0)]
    errors, same = [], []
    for images in holdout:
        if len(images):
            read = read_parts(network, split, images, torch.full((len(images),), -1, device=images.device), norms)
            errors.append(read.error)
            same.append((read.rebuilt == read.logits.argmax(dim=1)).float())
    fidelity = {
        "images": float(sum(map(len, same))), "same_class": float(torch.cat(same).mean()), "relative_error": float(torch.cat(errors).mean()),
        "share_of_parts": float(network.encoder.weight.detach().sigmoid()), "dead_filters": float(network.encoder.norm_parts.dead.sum()),
        "filters": float(network.filters),
    }  # fmt: skip
    return {"parts": kept, "part_classes": named[kept].tolist(), "norms": norms.tolist(), "fidelity": fidelity}
