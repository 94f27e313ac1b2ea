"""`heatlas train`: list and split the images, train on actors or here, keep checkpoints, and write the explainer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from safetensors.torch import load

from ...engine.training.attention_head import AttentionHead
from ...engine.training.head_settings import HeadSettings
from ...engine.training.part_settings import PartSettings
from ...errors import RunError, UsageError
from ...workers.models.explainer_file import PARTS, SUFFIX, StoredExplainer, explainer_bytes
from ...workers.training.checkpoint import checkpoint_facts
from ...workers.training.train_rank import RankTraining
from ...workers.training.training_spec import (
    CheckpointMade,
    EpochDone,
    TrainingDone,
    TrainingEvent,
    TrainingSpec,
)
from ..settings.run import Settings
from ..sources.listing.detection import item_source
from ..sources.reading.confinement import check_data_root
from ..sources.reading.reader import FsspecReader
from ..storage.atomic_write import put, put_if_absent, remove
from ..storage.backoff import with_retries
from ..storage.location import bytes_of, locate
from ..store.run_file import versions
from ..terminal_log import say
from ..text import counted
from .defaults import ALIASES
from .prepare import FEW_IMAGES, prepared
from .result import TrainingResult
from .teacher_maps import teacher_run

METHODS = ("ttame", "ptame", PARTS)
CHECKPOINT = ".checkpoint"


def train_settings(
    method: str,
    settings: Settings,
    training: HeadSettings | PartSettings,
    *,
    teacher: str | None = None,
    auxiliary: str | None = None,
    overwrite: bool = False,
) -> TrainingResult:
    """Train an explainer and write it.

    Args:
        method: Of `METHODS`.
        settings: Model, images, workers; `out` is the file to write.
        training: How it is trained: `PartSettings` for the explainer network, else `HeadSettings`.
        teacher: A store whose maps a head imitates; None to learn from the classifier itself.
        auxiliary: Name of P-TAME's auxiliary network; None for its own choice.
        overwrite: Replace the file if it is there.

    Raises:
        UsageError: When the request cannot be carried out as written; nothing was written.
        RunError: When the training failed; the same command goes on from the last checkpoint.
    """
    if method not in METHODS:
        raise UsageError(
            f"method {method!r} is not trained; train {', '.join(METHODS)} (also called {', '.join(ALIASES)})"
        )
    if teacher is not None and method == PARTS:
        raise UsageError(
            f"--teacher {teacher} has no effect with {PARTS}, which rebuilds the classifier's features; leave it out"
        )
    refuse_out(settings.out, overwrite)
    spec, identity = prepared(method, settings, training, teacher, auxiliary)
    made_by = None if teacher is None else teacher_run(teacher)
    checkpoint = read_checkpoint(settings.out, spec.identity)
    mode = f"imitating {teacher}" if teacher else "without labels"
    again = " from the last checkpoint" if checkpoint else ""
    say(
        f"training {method} for {settings.model} {mode}{again}: {counted(len(spec.training), 'image')}, {len(spec.holdout):,} held out, "
        f"{counted(training.epochs, 'epoch')} of {counted(-(-len(spec.training) // training.batch_size), 'step')}"
    )
    if isinstance(training, HeadSettings) and spec.shared_row and training.shared_row is None:
        say(
            f"note: fewer than {FEW_IMAGES} images per class, so the classes share a row of weights (--shared-row no: none)"
        )
    for event in events(spec, settings, checkpoint):
        if isinstance(event, EpochDone):
            say(
                f"epoch {event.epoch} of {training.epochs}: loss {event.training_loss:.4g}, held-out loss {event.holdout_loss:.4g}"
                f"{' (best)' if event.best else ''}, {event.images_per_second:.3g} images/s"
            )
        elif isinstance(event, CheckpointMade):
            put(settings.out + CHECKPOINT, event.data)
        else:
            return finished(method, settings, spec, {**identity, "made_by": made_by}, event, overwrite)
    raise RunError("the training ended without a result; the same command goes on from the last checkpoint")


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
    identity: Mapping[str, Any],
    done: TrainingDone,
    overwrite: bool,
) -> TrainingResult:
    """Write the explainer, then forget the checkpoint."""
    tensors = load(done.state)
    facts = {
        "layers": list(done.layers), "training_images": len(spec.training), "holdout_images": len(spec.holdout), "best_epoch": done.epoch,
        "seed": settings.seed, "model": settings.model,
    }  # fmt: skip
    facts |= dict(done.facts) if method == PARTS else head_facts(spec, identity, done, tensors)
    stored = StoredExplainer(
        method, tensors, identity["model_digest"], identity["image_digest"], asdict(spec.settings), facts, done.curve
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
        losses[-1] if losses else float("nan"), done.agreement, stored.digest(), facts.get("fidelity", {}),
    )  # fmt: skip


def head_facts(
    spec: TrainingSpec, identity: Mapping[str, Any], done: TrainingDone, tensors: Mapping[str, Any]
) -> dict[str, Any]:
    """What the file of an attention head says beside what every file does."""
    channels, classes = channels_of(tensors), int(tensors["fusion.weight"].shape[0])
    head = AttentionHead(channels, classes, bias="fusion.bias" in tensors, shared_row=spec.shared_row)
    head.load_state_dict(dict(tensors))
    own = {name: identity[name] for name in ("auxiliary", "made_by") if identity.get(name)}
    return {
        "channels": channels, "classes": classes, "shared_row": spec.shared_row, "activation": "sigmoid" if spec.teacher else "min_max",
        "agreement": dict(done.agreement), "teacher": identity["teacher"], "layer_shares": head.layer_shares().tolist(), **own,
    }  # fmt: skip


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
