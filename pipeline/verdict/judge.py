"""`heatlas verdict`: are the models after a repair better than those before, on a locked test split?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ...errors import UsageError
from ...workers.models.load import LoadedModel
from ...workers.models.weights import model_digest
from ..decisions.decision_file import rows_of_file
from ..storage.location import same_place
from ..store.reader import StoreReader, open_store
from ..text import class_name, counted
from .counterfactual_sets import Mark, load_marks
from .image_decisions import decided_images, stored_model_spec
from .lines import Line, Word, verdict_lines
from .locked_split import LockedSplit, lock_split, required_split
from .named_models import ModelRun, model_runs, refuse_other_classes
from .set_predictions import SetPredictions, predict_sets

FEWEST_SEEDS = 3


@dataclass(frozen=True)
class Verdict:
    """What the test split says of a repair."""

    store: str
    split_images: int
    locked: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]
    class_names: tuple[str, ...]

    @property
    def word(self) -> Word:
        """Worse where a judged line is worse; better where one is better that measures what was asked for, and no judged line's own interval
        lies on the side of harm.

        The correction guards against calling a repair better by luck; harm is not to be overlooked because there are many lines. Where decisions
        ask for something that can be measured (a pasted mark that says nothing, decided labels), other lines do not make a repair better: a
        border between classes that moves changes the accuracy and what removing a mark does, and the mark is trusted as before.
        """
        judged = [line for line in self.lines if line.judged]
        words = {line.word for line in judged}
        if "worse" in words:
            return "worse"
        asked = [line for line in judged if line.asked and line.counts] or judged
        better = any(line.word == "better" for line in asked)
        return "better" if better and not any(line.harms for line in judged) else "no evidence"

    @property
    def headline(self) -> str:
        """One sentence: the reliance on each mark before and after, else the accuracy."""
        parts = []
        for mark in dict.fromkeys(line.reliance for line in self.lines if line.reliance is not None):
            measured = [line for line in self.lines if line.reliance == mark]
            line = max(measured, key=lambda line: line.measured.first)  # chosen by the models before alone
            of = f" of {class_name(self.class_names, mark)}"
            parts.append(
                f"reliance on the mark{of} {_percent(line.measured.first)} -> {_percent(line.measured.second)} ({line.word})"
            )
        for accuracy in [line for line in self.lines if line.name.startswith("accuracy")][:1]:
            parts.append(
                f"{accuracy.name} {_percent(accuracy.measured.first)} -> {_percent(accuracy.measured.second)} ({accuracy.word})"
            )
        return f"{self.word}: {'; '.join(parts) or 'nothing can be measured'}"

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        lines = [{**asdict(line), "note": line.note} for line in self.lines]
        return {
            "verdict": self.word, "headline": self.headline, "store": self.store, "images": self.split_images, "locked": self.locked,
            "before": self.before, "after": self.after, "lines": lines, "notes": self.notes,
        }  # fmt: skip


def lock_store(store: str, where: str | None = None) -> LockedSplit:
    """Lock the test split of a store; options and errors as `lock_split`, which this is.

    Args:
        store: Directory or URI.
        where: SQL condition on its rows, such as `"split = 'test'"`; None for all.
    """
    atlas = open_store(store)
    images, reader = decided_images(atlas)
    return lock_split(atlas, images, reader, where)


def judge_repair(
    before: Sequence[str],
    after: Sequence[str],
    *,
    store: str | None = None,
    trained_on: Sequence[str] = (),
    fewest_seeds: int = FEWEST_SEEDS,
) -> Verdict:
    """Compare models before and after a repair.

    Args:
        before: Stores, folders of `heatlas fix`, weights or models; at least 3 models.
        after: As many or more.
        store: Where the test split is locked and decisions lie; None for the first of `before`, if that is a store.
        trained_on: Tables with a column `id` (manifests) that the models were trained on, where `heatlas fix` did not train them.
        fewest_seeds: Models of each group, at least; `compare` asks for 1.

    Raises:
        UsageError: With fewer models or one named twice, without a locked split, for one that changed or was trained on, for models of
            other classes.
        ModelError: If a model cannot be loaded.
    """
    atlas = _store(before, store)
    spec, split = stored_model_spec(atlas), required_split(atlas.uri)
    groups = [model_runs(texts, spec) for texts in (before, after)]
    for name, runs in zip(("before", "after"), groups, strict=True):
        if len(runs) < fewest_seeds:
            raise UsageError(
                f"{counted(len(runs), 'model')} {name} the repair: a verdict needs at least {fewest_seeds}, each trained with another seed "
                "(heatlas fix --seeds 3; the recipe `none` trains anew without a repair)"
            )
    notes = _refuse_trained_on(split, [*groups[0], *groups[1]], trained_on)
    images, reader = decided_images(atlas)
    missing = sorted(split.images.keys() - images.keys())
    if missing:
        raise split.changed(f"{counted(len(missing), 'image')} ({missing[0]}, ...) are no longer in the store")
    test = [images[identity] for identity in sorted(split.images)]
    models = [[run.load() for run in runs] for runs in groups]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for model in (model for group in models for model in group):
        model.module.to(device)
    names = atlas.class_names
    refuse_other_classes([*groups[0], *groups[1]], [*models[0], *models[1]], names)
    _refuse_same_models(groups, models)
    notes += _started_alike(groups)
    if any(model.multi_label for group in models for model in group):
        notes.append(
            "several classes may be true at once for these models; right is here whose largest logit is the image's one label"
        )
    predictions: dict[int, SetPredictions] = {}
    flat = [model for group in models for model in group]
    marks: dict[int, Mark] = {}
    for preprocess in dict.fromkeys(model.preprocess for model in flat):
        marks, said = load_marks(images, list(split.images), reader, preprocess, names)
        notes += [note for note in said if note not in notes]
        alike = [place for place, model in enumerate(flat) if model.preprocess == preprocess]
        results = predict_sets(test, [flat[place] for place in alike], marks, reader, split.refuse_changed)
        predictions |= dict(zip(alike, results, strict=True))
    ordered = [predictions[place] for place in range(len(flat))]
    lines = verdict_lines(test, ordered[: len(groups[0])], ordered[len(groups[0]) :], names)
    unpainted = sum(image.mark is not None and (image.region is None or image.mark not in marks) for image in test)
    if unpainted:
        notes.append(
            f"{counted(unpainted, 'test image')} with a mark that cannot be removed left out of the accuracy without marks"
        )
    if any(len(runs) < FEWEST_SEEDS for runs in groups):
        notes.append("with fewer than 3 models on a side nothing is said about models trained with other seeds")
    if not any(image.mark is not None for image in test):
        notes.append("no image of the test split has a decision `shortcut`, so no reliance on a mark is measured")
    return Verdict(
        atlas.uri, len(test), split.locked, tuple(run.name for run in groups[0]), tuple(run.name for run in groups[1]),
        tuple(lines), tuple(notes), names,
    )  # fmt: skip


def _store(before: Sequence[str], store: str | None) -> StoreReader:
    if store is not None:
        return open_store(store)
    if not before:
        raise UsageError("name models before the repair, and those after it with --after")
    if ":" in before[0].replace("://", "") or before[0].endswith(".safetensors"):
        raise UsageError(
            f"{before[0]} is no store; name with --store the one whose test split is locked and in which decisions lie"
        )
    return open_store(before[0])


def _refuse_trained_on(split: LockedSplit, runs: Sequence[ModelRun], tables: Sequence[str]) -> list[str]:
    """Refuse models that saw the split; a line about those of which nobody knows."""
    unknown = []
    for run in runs:
        if run.record is None:
            unknown.append(run.name)
            continue
        # ids of another store may name other images
        ids = run.record.ids if same_place(run.record.store, split.store) else ()
        split.refuse_training_images(run.name, ids, run.record.digests)
    for table in tables:
        split.refuse_training_images(
            f"--trained-on {table}: a model", (str(row["id"]) for row, _ in rows_of_file(table, ["id"])), ()
        )
    if unknown and not tables:
        return [
            f"nobody says on which images {unknown[0]}{' and others' if len(unknown) > 1 else ''} was trained; name the manifest with --trained-on "
            "to have it checked against the test split"
        ]
    return []


def _refuse_same_models(groups: Sequence[Sequence[ModelRun]], models: Sequence[Sequence[LoadedModel]]) -> None:
    """Refuse a model that is named twice, under whatever name: one seed thrice would look like three seeds that agree."""
    names: dict[str, str] = {}
    for run, model in zip(
        (run for group in groups for run in group), (model for group in models for model in group), strict=True
    ):
        digest = model_digest(model.module, model.preprocess, f"{type(model.module)!r}")
        if digest in names:
            raise UsageError(
                f"{names[digest]} and {run.name} are the same model (the same weights); give models that were each trained with another seed, "
                "and none both before and after the repair"
            )
        names[digest] = run.name


def _started_alike(groups: Sequence[Sequence[ModelRun]]) -> list[str]:
    """A line about repairs whose seeds started from one model: how models of other seeds would fare, they do not say."""
    notes = []
    for name, runs in zip(("before", "after"), groups, strict=True):
        starts = [run.start for run in runs]
        if len(runs) > 1 and None not in starts and len(set(starts)) == 1:
            notes.append(
                f"the {len(runs)} models {name} start from one model, {starts[0]}, so they differ less than models of other seeds do; repair as many "
                "as there are seeds (heatlas fix --model SEED-0 SEED-1 SEED-2)"
            )
    return notes


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
