"""What is checked and planned before a training: model, layers, images, teacher, and which images are held out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import pyarrow as pa
import torch

from ...engine.layers.differentiable import gradients_flow
from ...engine.training.auxiliary import AuxiliaryReader
from ...engine.training.feature_reader import FeatureReader
from ...engine.training.head_settings import HeadSettings
from ...engine.training.model_split import split_model
from ...engine.training.part_network import PartNetwork
from ...engine.training.part_settings import PartSettings
from ...errors import DataError, ModelError, UsageError
from ...workers.models.load import LoadedModel, ModelSpec, load_auxiliary, load_model
from ...workers.samples import Sample
from ...workers.training.training_spec import TeacherMap, TrainingSpec
from ...workers.worker.shard_attempt import seed_of
from ..explain.image_files import file_evidence
from ..run_samples import chosen_samples
from ..settings.run import Settings
from ..shards import plan_shards, samples_of
from ..sources.listing.check import listing_digest
from ..sources.listing.detection import item_source
from ..sources.reading.confinement import check_data_root
from ..sources.reading.reader import FsspecReader
from ..text import counted
from .teacher_maps import read_teacher

FEW_IMAGES = 32
"""Images per class below which all classes share a row of weights, unless the settings say otherwise."""
AUXILIARY = "torchvision:resnet18@DEFAULT"
"""P-TAME's own choice."""


def prepared(
    method: str,
    settings: Settings,
    training: HeadSettings | PartSettings,
    teacher: str | None,
    auxiliary: str | None = None,
) -> tuple[TrainingSpec, dict[str, Any]]:
    """What the ranks are told, and what the artefact says of model and images.

    Args:
        method: Of `METHODS`.
        settings: Model, images, workers.
        training: How it is trained.
        teacher: A store whose maps a head imitates.
        auxiliary: Name of P-TAME's auxiliary network; None for its own choice.

    Raises:
        UsageError: When model, images and teacher do not fit.
    """
    data_root = check_data_root(settings.data_root)
    columns = settings.columns.model_copy(update={"extra": ("none",)})
    listing = chosen_samples(settings.model_copy(update={"columns": columns}), data_root).listing
    place = listing.schema.get_field_index("label")
    listing = listing.set_column(place, "label", pa.nulls(len(listing), pa.int32()))  # labels are not used
    [shard] = plan_shards(len(listing), len(listing))
    listed = {sample.id: sample for sample in samples_of(listing, shard)}
    samples = [Sample(sample.id, sample.uri) for sample in listed.values()]
    model_spec = ModelSpec(spec=settings.model, bank=settings.bank, **settings.preprocess.model_dump())
    reader = FsspecReader(data_root, code=item_source(settings.data))
    model_spec = file_evidence(listing, reader, settings).applied_to(model_spec, settings)
    loaded = load_model(model_spec, FsspecReader())
    if loaded.dense:
        raise UsageError(f"{settings.model} gives every pixel its class; {method} explains classifiers of images")
    other, other_digest = checked_layers(method, loaded, training, auxiliary)
    if isinstance(training, HeadSettings) and teacher is None:
        refuse_without_gradients(method, loaded, settings.model)
    maps: dict[str, TeacherMap] = {}
    if teacher is not None:
        maps = read_teacher(teacher, loaded.digest, {sample.id for sample in samples})
        samples = [sample for sample in samples if sample.id in maps]
    trained, holdout = split(samples, training.holdout)
    if teacher is not None:  # whose maps and the student's are measured with what the data set says of the object
        holdout = [
            replace(sample, boxes=listed[sample.id].boxes, mask_uri=listed[sample.id].mask_uri) for sample in holdout
        ]
    if len(trained) < 2:
        raise DataError(
            f"--data {settings.data} gives {counted(len(samples), 'image')} to train on; at least 3 are needed"
        )
    given = training.shared_row if isinstance(training, HeadSettings) else False
    shared = given if given is not None else len(trained) < FEW_IMAGES * loaded.num_classes
    identity = {
        "method": method, "model_digest": loaded.digest, "image_digest": listing_digest(listing), "settings": asdict(training),
        "teacher": teacher_identity(maps), "seed": settings.seed,
    }  # fmt: skip
    if other:
        identity["auxiliary"] = {"model": other, "digest": other_digest}
    spec = TrainingSpec(
        model=model_spec, settings=training, training=tuple(trained), holdout=tuple(holdout), shared_row=shared, teacher=maps, auxiliary=other,
        auxiliary_digest=other_digest,
        seed=settings.seed, device=settings.device, threads=settings.cpus_per_worker, identity=digest_of(identity),
    )  # fmt: skip
    return spec, identity


def checked_layers(
    method: str, loaded: LoadedModel, training: HeadSettings | PartSettings, auxiliary: str | None
) -> tuple[str, str]:
    """Refuse layers that cannot be read before anything is begun; name and digest of P-TAME's auxiliary network, empty for others.

    Raises:
        HeatlasError: Saying why.
    """
    example = torch.zeros(loaded.preprocess.channels, *loaded.preprocess.size)
    if isinstance(training, PartSettings):
        PartNetwork(split_model(loaded.module, example, training.layers[0] if training.layers else None))
    elif method != "ptame":
        FeatureReader(loaded.module, example, training.layers)
    if method != "ptame":
        if auxiliary is not None:
            raise UsageError(f"--auxiliary {auxiliary} has no effect with {method}; only ptame reads another network")
        return "", ""
    name = auxiliary or AUXILIARY
    try:
        other = load_auxiliary(name, loaded, FsspecReader())
    except ModelError as error:
        if auxiliary is not None:
            raise
        raise ModelError(
            f"ptame's auxiliary network {name}: {error}; `heatlas train ptame --auxiliary` names another one"
        ) from error
    AuxiliaryReader(loaded.module, other, example, training.layers)
    return name, other.digest


def refuse_without_gradients(method: str, loaded: LoadedModel, name: str) -> None:
    """A head learns from the classifier by the gradient with respect to the masked image; without one the area loss alone would be left.

    Raises:
        UsageError: Saying what can be trained.
    """
    image = torch.zeros(loaded.preprocess.channels, *loaded.preprocess.size)
    if not gradients_flow(loaded.module, image):
        raise UsageError(
            f"no gradient flows from the output of {name} to its input (an ONNX file, or code under torch.no_grad), and {method} learns by it: train "
            "it for the model that the file came from, or imitate stored maps with --teacher STORE"
        )


def split(samples: list[Sample], holdout: float) -> tuple[list[Sample], list[Sample]]:
    """Images to train on and images to hold out, by a digest of their ids: more images keep the others where they are."""
    order = sorted(samples, key=lambda sample: seed_of(sample.id))
    count = max(1, round(holdout * len(order)))
    return order[count:], order[:count]


def teacher_identity(maps: Mapping[str, TeacherMap]) -> str:
    """Digest of the maps to imitate; empty without any."""
    digest = hashlib.sha256()
    for id, entry in sorted(maps.items()):
        digest.update(f"{id}\0{entry.target}\0".encode() + entry.map.tobytes())
    return digest.hexdigest() if maps else ""


def digest_of(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
