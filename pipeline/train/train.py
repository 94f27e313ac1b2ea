"""`heatlas train`: list and split the images, train on actors or here, keep checkpoints, and write the explainer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa
import torch
from safetensors.torch import load

from ...engine.training.attention_head import AttentionHead
from ...engine.training.feature_reader import FeatureReader
from ...engine.training.head_settings import HeadSettings
from ...errors import DataError, RunError, UsageError
from ...workers.models.explainer_file import SUFFIX, StoredExplainer, explainer_bytes
from ...workers.models.load import ModelSpec, load_model
from ...workers.samples import Sample
from ...workers.training.checkpoint import checkpoint_facts
from ...workers.training.train_rank import RankTraining
from ...workers.training.training_spec import (
    CheckpointMade,
    EpochDone,
    TeacherMap,
    TrainingDone,
    TrainingEvent,
    TrainingSpec,
)
from ...workers.worker.shard_attempt import seed_of
from ..explain.image_files import file_evidence
from ..run_samples import chosen_samples
from ..settings.run import Settings
from ..shards import plan_shards, samples_of
from ..sources.listing.check import listing_digest
from ..sources.listing.detection import item_source
from ..sources.reading.confinement import check_data_root
from ..sources.reading.reader import FsspecReader
from ..storage.atomic_write import put, put_if_absent, remove
from ..storage.backoff import with_retries
from ..storage.location import bytes_of, locate
from ..store.run_file import versions
from ..terminal_log import say
from ..text import counted
from .teacher_maps import read_teacher

METHODS = ("ttame",)
CHECKPOINT = ".checkpoint"
FEW_IMAGES = 32
"""Images per class below which all classes share a row of weights, unless the settings say otherwise."""


@dataclass(frozen=True)
class TrainingResult:
    """What was written."""

    out: str
    method: str
    training_images: int
    holdout_images: int
    skipped: int
    epochs: int
    """That were trained."""
    best_epoch: int
    stopped_early: bool
    holdout_loss: float
    agreement: Mapping[str, float]
    """Of a student with its teacher on the held-out images; empty without a teacher."""
    digest: str

    def summary(self) -> str:
        """For people."""
        early = ", stopped early" if self.stopped_early else ""
        lines = [
            f"{self.out}: {self.method}, {self.training_images:,} training images, epoch {self.best_epoch} of {self.epochs}{early}, "
            f"held-out loss {self.holdout_loss:.4g} on {self.holdout_images:,} images"
        ]
        if self.skipped:
            lines.append(
                f"{counted(self.skipped, 'image')} could not be read and {'was' if self.skipped == 1 else 'were'} left out"
            )
        if self.agreement:
            lines.append(agreement_text(self.agreement))
        return "\n".join(lines)


def agreement_text(agreement: Mapping[str, float]) -> str:
    """A student beside the mean map of the class, in words."""
    student, mean = (
        f"Spearman {agreement[f'{name}_spearman']:.3f}, weighted Jaccard {agreement[f'{name}_jaccard']:.3f}"
        for name in ("student", "class_mean")
    )
    better = agreement["student_spearman"] > agreement["class_mean_spearman"]
    verdict = "" if better else "; the student is no better than the mean map: do not use it for single images"
    return (
        f"agreement with the teacher on {agreement['images']:.0f} held-out images: {student}; the mean map of the class: {mean}; nearer on "
        f"{agreement['ahead_of_class_mean']:.0%} of the images{verdict}{metrics_text(agreement)}"
    )


def metrics_text(agreement: Mapping[str, float]) -> str:
    """A line about each metric that was measured."""
    lines = ""
    for name, words in (("insertion_auc", "insertion (area under the curve)"), ("ebpg", "energy on the object (EBPG)")):
        if agreement.get(f"{name}_images"):
            student, teacher, mean = (agreement[f"{of}_{name}"] for of in ("student", "teacher", "class_mean"))
            lines += (
                f"\n{words} on {agreement[f'{name}_images']:.0f} held-out images: student {student:.3f}, teacher {teacher:.3f}, "
                f"mean map of the class {mean:.3f}"
            )
    return lines


def train_settings(
    method: str, settings: Settings, head: HeadSettings, *, teacher: str | None = None, overwrite: bool = False
) -> TrainingResult:
    """Train an explainer and write it.

    Args:
        method: Of `METHODS`.
        settings: Model, images, workers; `out` is the file to write.
        head: How it is trained.
        teacher: A store whose maps it imitates; None to learn from the classifier itself.
        overwrite: Replace the file if it is there.

    Raises:
        UsageError: When the request cannot be carried out as written; nothing was written.
        RunError: When the training failed; the same command goes on from the last checkpoint.
    """
    if method not in METHODS:
        raise UsageError(f"method {method!r} is not trained; train {', '.join(METHODS)}")
    refuse_out(settings.out, overwrite)
    spec, identity = prepared(method, settings, head, teacher)
    checkpoint = read_checkpoint(settings.out, spec.identity)
    mode = f"imitating {teacher}" if teacher else "without labels"
    again = " from the last checkpoint" if checkpoint else ""
    say(
        f"training {method} for {settings.model} {mode}{again}: {counted(len(spec.training), 'image')}, {len(spec.holdout):,} held out, "
        f"{head.epochs} epochs of {-(-len(spec.training) // head.batch_size)} steps"
    )
    if spec.shared_row and head.shared_row is None:
        say(
            f"note: fewer than {FEW_IMAGES} images per class, so the classes share a row of weights (--shared-row no: none)"
        )
    for event in events(spec, settings, checkpoint):
        if isinstance(event, EpochDone):
            say(
                f"epoch {event.epoch} of {head.epochs}: loss {event.training_loss:.4g}, held-out loss {event.holdout_loss:.4g}"
                f"{' (best)' if event.best else ''}, {event.images_per_second:.3g} images/s"
            )
        elif isinstance(event, CheckpointMade):
            put(settings.out + CHECKPOINT, event.data)
        else:
            return finished(method, settings, spec, head, identity, event, overwrite)
    raise RunError("the training ended without a result; the same command goes on from the last checkpoint")


def prepared(
    method: str, settings: Settings, head: HeadSettings, teacher: str | None
) -> tuple[TrainingSpec, dict[str, Any]]:
    """What the ranks are told, and what the artefact says of model and images.

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
    FeatureReader(loaded.module, torch.zeros(loaded.preprocess.channels, *loaded.preprocess.size), head.layers)
    maps: dict[str, TeacherMap] = {}
    if teacher is not None:
        maps = read_teacher(teacher, loaded.digest, {sample.id for sample in samples})
        samples = [sample for sample in samples if sample.id in maps]
    training, holdout = split(samples, head.holdout)
    if teacher is not None:  # whose maps and the student's are measured with what the data set says of the object
        holdout = [
            replace(sample, boxes=listed[sample.id].boxes, mask_uri=listed[sample.id].mask_uri) for sample in holdout
        ]
    if len(training) < 2:
        raise DataError(
            f"--data {settings.data} gives {counted(len(samples), 'image')} to train on; at least 3 are needed"
        )
    shared = head.shared_row if head.shared_row is not None else len(training) < FEW_IMAGES * loaded.num_classes
    identity = {
        "method": method, "model_digest": loaded.digest, "image_digest": listing_digest(listing), "settings": asdict(head),
        "teacher": teacher_identity(maps), "seed": settings.seed,
    }  # fmt: skip
    spec = TrainingSpec(
        model=model_spec, settings=head, training=tuple(training), holdout=tuple(holdout), shared_row=shared, teacher=maps,
        seed=settings.seed, device=settings.device, threads=settings.cpus_per_worker, identity=digest_of(identity),
    )  # fmt: skip
    return spec, identity


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


def events(spec: TrainingSpec, settings: Settings, checkpoint: bytes | None) -> Iterator[TrainingEvent]:
    """Train in this process or on actors."""
    data_root = check_data_root(settings.data_root)
    reader = FsspecReader(data_root, code=item_source(settings.data))
    if settings.workers == 0:
        yield from RankTraining(spec, reader).run(checkpoint)
        return
    from ...workers.ray.training_actors import train_on_actors

    yield from train_on_actors(
        spec, reader, workers=settings.workers, gpus=settings.gpus_per_worker, cpus=settings.cpus_per_worker, address=settings.address,
        checkpoint=checkpoint, note=lambda text: say(f"note: {text}"),
    )  # fmt: skip


def finished(
    method: str,
    settings: Settings,
    spec: TrainingSpec,
    head: HeadSettings,
    identity: Mapping[str, Any],
    done: TrainingDone,
    overwrite: bool,
) -> TrainingResult:
    """Write the explainer, then forget the checkpoint."""
    tensors = load(done.state)
    facts = {
        "layers": list(done.layers), "channels": channels_of(tensors), "classes": int(tensors["fusion.weight"].shape[0]),
        "shared_row": spec.shared_row, "activation": "sigmoid" if spec.teacher else "min_max", "training_images": len(spec.training),
        "holdout_images": len(spec.holdout), "best_epoch": done.epoch, "agreement": dict(done.agreement), "seed": settings.seed,
        "model": settings.model, "teacher": identity["teacher"],
    }  # fmt: skip
    head_of = AttentionHead(facts["channels"], facts["classes"], shared_row=spec.shared_row)
    head_of.load_state_dict(tensors)
    facts["layer_shares"] = head_of.layer_shares().tolist()
    stored = StoredExplainer(
        method, tensors, identity["model_digest"], identity["image_digest"], asdict(head), facts, done.curve
    )
    data = explainer_bytes(stored, versions()["heatlas"])
    if overwrite:
        put(settings.out, data)
    elif not put_if_absent(settings.out, data):
        raise taken(settings.out)
    remove(settings.out + CHECKPOINT)
    losses = [epoch["holdout_loss"] for epoch in done.curve if epoch["epoch"] == done.epoch]
    return TrainingResult(
        settings.out, method, len(spec.training), len(spec.holdout), done.skipped, len(done.curve), done.epoch, done.stopped_early,
        losses[-1] if losses else float("nan"), done.agreement, stored.digest(),
    )  # fmt: skip


def channels_of(tensors: Mapping[str, Any]) -> list[int]:
    """Width of each branch."""
    count = sum(name.startswith("branches.") and name.endswith(".0.weight") for name in tensors)
    return [int(tensors[f"branches.{number}.0.weight"].shape[0]) for number in range(count)]


def refuse_out(out: str, overwrite: bool) -> None:
    """Before anything is computed.

    Raises:
        UsageError: When the place is no name for an explainer or taken.
    """
    if not out.lower().endswith(SUFFIX):
        raise UsageError(f"--out {out} must be a file that ends in {SUFFIX}, for that is what an explainer is")
    fs, path = locate(out)
    if not overwrite and with_retries(lambda: fs.exists(path), f"look for {out}"):
        raise taken(out)


def taken(out: str) -> UsageError:
    return UsageError(f"--out {out} is there already; choose another name, or --overwrite to replace it")


def read_checkpoint(out: str, identity: str) -> bytes | None:
    """The checkpoint of this training; None where there is none.

    Raises:
        UsageError: When there is one of another training.
    """
    place = out + CHECKPOINT
    fs, path = locate(place)
    if not with_retries(lambda: fs.exists(path), f"look for {place}"):
        return None
    data = with_retries(lambda: bytes_of(fs, path), f"read {place}")
    try:
        own = checkpoint_facts(data).get("identity")
    except ValueError:
        own = None
    if own != identity:
        raise UsageError(
            f"{place} is the checkpoint of another training (other model, images or settings); delete it, or choose another --out"
        )
    return data
