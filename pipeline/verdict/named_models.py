"""The models of a verdict: stores, folders or weights of `heatlas fix`, or models by name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...errors import RunMismatchError, UsageError
from ...workers.models.behaviour import own_module
from ...workers.models.load import LoadedModel, ModelSpec, load_model
from ...workers.models.weights import fit, read_weights
from ..sources.reading.reader import FsspecReader
from ..storage.location import child
from ..store.reader import open_store
from ..store.run_file import find_run
from .image_decisions import stored_model_spec
from .training_record import RECORD, TrainingRecord, read_record

SUFFIX = ".safetensors"


@dataclass(frozen=True, eq=False)
class ModelRun:
    """One trained model."""

    name: str
    """As the user wrote it, with the file of a folder."""
    spec: ModelSpec
    weights: str | None = None
    """Stand in for those that the spec loads."""
    record: TrainingRecord | None = None
    """What `heatlas fix` says of its training; None where nobody says."""
    digest: str | None = None
    """Of the store's model, which must still be it."""
    start: str | None = None
    """The model that `heatlas fix` started from; None where it drew random weights, or nobody says."""

    def load(self) -> LoadedModel:
        """Load it, which runs the code that its spec names.

        Raises:
            ModelError: If it cannot be loaded.
            UsageError: For a dense model.
            RunMismatchError: If a store's model has other weights now.
        """
        reader = FsspecReader()
        loaded = load_model(self.spec, reader)
        if loaded.dense:
            raise UsageError(f"{self.name} gives every pixel its class; verdicts are for classifiers of whole images")
        if self.digest is not None and loaded.digest != self.digest:
            raise RunMismatchError(
                f"{self.spec.spec} has other weights or preprocessing now than when {self.name} was written; name the model of that run"
            )
        if self.weights is not None:
            fit(own_module(loaded.module), read_weights(self.weights, reader).tensors, self.weights)
            loaded = replace(loaded, digest="")
        return loaded


def model_runs(texts: Sequence[str], like: ModelSpec) -> list[ModelRun]:
    """What the user wrote, as models.

    Args:
        texts: Each a store, a folder of `heatlas fix` (which stands for all its seeds), one of its weights, or a model as
            `heatlas explain --model` takes it.
        like: Whose preprocessing overrides hold for models by name, and into whose architecture plain weights go.

    Raises:
        UsageError: For weights that are not there.
        StorageError: If a store or a record cannot be read.
    """
    return [run for text in texts for run in _runs(text, like)]


def _runs(text: str, like: ModelSpec) -> list[ModelRun]:
    if text.lower().endswith(SUFFIX) and ":" not in text.replace("://", ""):
        folder, _, name = text.replace(os.sep, "/").rpartition("/")
        record = read_record(folder or ".")
        if record is not None and name in record.files:
            return [_repaired(folder or ".", name, record)]
        return [ModelRun(text, like, text)]
    if _is_place(text):
        if (record := read_record(text)) is not None:
            return [_repaired(text, name, record) for name in record.files]
        if find_run(text) is not None:
            atlas = open_store(text)
            digest = atlas.run["fingerprint"].get("model", {}).get("digest")
            return [ModelRun(text, stored_model_spec(atlas), digest=digest)]
        if "://" in text or os.path.isdir(text):
            raise UsageError(
                f"{text} holds neither a run of heatlas explain nor a repair of heatlas fix ({RECORD}); name a store, a repair or a model"
            )
    return [ModelRun(text, replace(like, spec=text, bank=None))]


def _is_place(text: str) -> bool:
    return "://" in text or ":" not in text


def _repaired(folder: str, name: str, record: TrainingRecord) -> ModelRun:
    models = record.settings.get("models")
    start = None
    if isinstance(models, list) and models and not record.settings.get("from_scratch"):
        start = str(models[record.files.index(name) % len(models)])
    return ModelRun(child(folder, name), ModelSpec(**record.model), child(folder, name), record, start=start)


def refuse_other_classes(
    runs: Sequence[ModelRun], models: Sequence[LoadedModel], class_names: Sequence[str] = ()
) -> None:
    """Refuse models whose classes are not those of the first, or not those that the labels of a store mean.

    Args:
        runs: For messages.
        models: In the same order.
        class_names: Of the store; empty where it has none.

    Raises:
        UsageError: Naming the model.
    """
    for run, model in zip(runs, models, strict=True):
        if model.num_classes != models[0].num_classes or (
            model.class_names is not None
            and models[0].class_names is not None
            and model.class_names != models[0].class_names
        ):
            raise UsageError(
                f"{run.name} has other classes ({model.num_classes}) than {runs[0].name} ({models[0].num_classes}); a verdict compares models of the same"
            )
        if model.class_names is not None and class_names and model.class_names != tuple(class_names):
            first = next(
                (
                    f"{own!r} for {other!r}"
                    for own, other in zip(model.class_names, class_names, strict=False)
                    if own != other
                ),
                f"{len(model.class_names)} for {len(class_names)}",
            )
            raise UsageError(
                f"{run.name} has other classes than the store, whose labels are judged by ({first}); name models of the store's classes, in its order"
            )
