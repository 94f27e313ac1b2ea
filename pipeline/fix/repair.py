"""`heatlas fix`: apply a recipe with several seeds, and write weights and what they were trained on beside the store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from ...errors import UsageError
from ...workers.models.behaviour import own_module
from ...workers.models.load import LoadedModel
from ...workers.object_names import PREFIX
from ..components.shortcut_components import NamedShortcut, named_shortcuts
from ..storage.atomic_write import put
from ..storage.location import child, is_local, locate, same_place
from ..store.reader import open_store
from ..terminal_log import say
from ..text import class_name, counted
from ..verdict.image_decisions import decided_images, stored_model_spec
from ..verdict.locked_split import required_split
from ..verdict.named_models import ModelRun, model_runs, refuse_other_classes
from ..verdict.training_record import TrainingRecord, read_record, seed_file, write_record
from .component_recipe import without_shortcuts
from .head_recipes import repaired_head
from .recipes import HEADS, PROJECTIONS, FixSettings
from .reference_trainer import train_reference
from .trainer_function import train_by_user, user_trainer, write_training_manifest
from .training_images import TrainingSet, training_set

FOLDER = "fixes"


@dataclass(frozen=True)
class Repaired:
    """What was written."""

    out: str
    store: str
    test: str
    """Store with the locked test split."""
    record: TrainingRecord

    def summary(self) -> str:
        """For people."""
        record = self.record
        lines = [
            f"{self.out}: {record.recipe}, {counted(len(record.files), 'seed')}, {counted(len(record.ids), 'training image')}",
            *(f"note: {note}" for note in record.notes),
            f"Whether it is better is not known yet: heatlas verdict BEFORE-0 BEFORE-1 BEFORE-2 --after {self.out} --store {self.test}",
        ]
        return "\n".join(lines)


def repair_store(
    store: str,
    settings: FixSettings,
    *,
    models: Sequence[str] = (),
    test: str | None = None,
    out: str | None = None,
    trainer: str | None = None,
    overwrite: bool = False,
) -> Repaired:
    """Repair a model with the decisions of a store.

    Args:
        store: Its images, outside of the locked test split, are trained on; its decisions say what is to be repaired.
        settings: Recipe and how to train.
        models: Models to start from, as `heatlas verdict` takes them; seed s starts from the s-th, in turns. Empty: the store's.
        test: Store whose locked test split is kept out; None for `store` itself.
        out: Folder to write; None for `STORE/fixes/RECIPE`.
        trainer: `package.module:fit`, called as `fit(manifest, init_weights, out, seed)`; importing it runs its code. None for the
            reference trainer.
        overwrite: Replace a repair that is there.

    Raises:
        UsageError: When the request cannot be carried out as written; nothing was written.
        ModelError: If a model cannot be loaded, or is not of the kind that the recipe repairs.
        RunError: If the user's trainer fails.
    """
    atlas = open_store(store)
    split = required_split(test or store)
    folder = out or child(store, f"{FOLDER}/{settings.recipe}")
    if not overwrite and read_record(folder) is not None:
        raise UsageError(f"{folder} holds a repair already; choose another --out, or --overwrite")
    if trainer is not None and settings.recipe in HEADS:
        raise UsageError(
            f"recipe {settings.recipe} replaces the last layer and trains nothing else; leave --trainer out"
        )
    if trainer is not None and not is_local(locate(folder)[0]):
        raise UsageError(f"--trainer writes files, so --out must be a local folder, got {folder}")
    function = None if trainer is None else user_trainer(trainer)
    spec = stored_model_spec(atlas)
    runs = model_runs(models, spec) or [ModelRun(spec.spec, spec)]
    if spec.spec.startswith(f"{PREFIX}:") or spec.bank is not None:
        raise UsageError(
            f"{spec.spec} is an object of Python code or a feature bank, which no file of weights repairs; name a model with --model"
        )
    shortcuts, unnamed = named_shortcuts(store) if settings.recipe == "spufix" else ([], [])
    images, reader = decided_images(atlas)
    loaded = [run.load() for run in runs]
    refuse_other_classes(runs, loaded, atlas.class_names)
    several = [run.name for run, model in zip(runs, loaded, strict=True) if model.multi_label]
    if several and trainer is None and settings.recipe not in PROJECTIONS:
        raise UsageError(
            f"{several[0]} says that several classes may be true at once, and recipe {settings.recipe} fits one label per image (cross-entropy); "
            f"give your own training as --trainer, or take {' or '.join(PROJECTIONS)}"
        )
    if len({model.preprocess for model in loaded}) > 1:
        raise UsageError("the models of --model prepare images differently; repair them one after the other")
    data = training_set(
        images,
        split,
        settings.recipe,
        reader,
        loaded[0].preprocess,
        atlas.class_names,
        same_store=same_place(store, split.store),
    )
    forgotten = _classes_without_images(data, loaded[0].num_classes, atlas.class_names)
    notes = [*data.notes, *unnamed, *(() if settings.recipe in PROJECTIONS else forgotten)]
    notes += [f"{shortcut.class_name}: component {shortcut.number} ({shortcut.name}) is held" for shortcut in shortcuts]
    if trainer is not None and settings.recipe == "rrr":
        notes.append(
            "recipe rrr with --trainer: the loss is the trainer's; it must use the manifest's column shortcut_mask, which heatlas cannot see"
        )
    seeds = range(settings.first_seed, settings.first_seed + settings.seeds)
    place = Path(locate(folder)[1])
    manifest = (
        ""
        if function is None
        else write_training_manifest(place, data, settings, loaded[0].preprocess, atlas.class_names)
    )
    for number, seed in enumerate(seeds):
        model = loaded[number % len(loaded)]
        if function is not None and trainer is not None:
            fresh = runs[number % len(runs)].load()
            state = train_by_user(function, trainer, manifest, fresh, place, settings, seed)
        else:
            state = repaired_state(model, data, settings, seed, shortcuts)
        facts = {"recipe": settings.recipe, "seed": seed, "model": runs[number % len(runs)].name}
        put(child(folder, seed_file(seed)), save(state, {"heatlas_fix": json.dumps(facts)}))
        say(f"{folder}/{seed_file(seed)}: {settings.recipe} of {runs[number % len(runs)].name}")
    record = TrainingRecord(
        settings.recipe, asdict(replace(runs[0].spec, explainer=None)), store, split.digest, datetime.now(UTC).isoformat(timespec="seconds"),
        tuple(map(seed_file, seeds)), tuple(seeds), {**asdict(settings), "trainer": trainer, "models": [run.name for run in runs]}, tuple(notes),
        tuple(image.sample.id for image in data.loaded.images), data.loaded.digests,
    )  # fmt: skip
    write_record(folder, record)
    return Repaired(folder, store, test or store, record)


def _classes_without_images(data: TrainingSet, classes: int, class_names: tuple[str, ...]) -> list[str]:
    """A line about classes that training would make the model forget.

    Raises:
        UsageError: For a label that the model does not have.
    """
    known = set(data.labels.tolist())
    if max(known) >= classes:
        raise UsageError(
            f"an image is labelled {max(known)}, and the model has the classes 0 to {classes - 1}; name a model of the store's classes"
        )
    missing = [class_name(class_names, label) for label in range(classes) if label not in known]
    if not missing:
        return []
    return [
        f"no training image of {len(missing):,} {'class' if len(missing) == 1 else 'classes'} ({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}): what the "
        "model knew of it is lost in training"
    ]


def repaired_state(
    model: LoadedModel, data: TrainingSet, settings: FixSettings, seed: int, shortcuts: Sequence[NamedShortcut] = ()
) -> dict[str, Tensor]:
    """The weights after one recipe with one seed, by heatlas's own means, under the names of the user's module."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module = model.module.to(device)
    if settings.recipe == "spufix":
        state = without_shortcuts(module, data, shortcuts, seed)
    elif settings.recipe in HEADS:
        state = repaired_head(module, data, settings, seed)
    else:
        state = train_reference(module, data, settings, seed)
    own = own_module(module)
    prefix = next((f"{name}." for name, part in module.named_modules() if part is own and name), "")
    return {name.removeprefix(prefix): value for name, value in state.items()}
