"""Recipes on a planted set: what they change, what they may not see, and what a verdict says of them."""

from __future__ import annotations

import csv
import re
import shutil
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import heatlas
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from heatlas.errors import ModelError, RunError, UsageError
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.components.class_tables import find_components
from heatlas.pipeline.fix import repair as repair_module
from heatlas.pipeline.fix.recipes import FixSettings
from heatlas.pipeline.fix.repair import repair_store, repaired_state
from heatlas.pipeline.fix.trainer_function import train_by_user, user_trainer, write_training_manifest
from heatlas.pipeline.fix.training_images import training_set
from heatlas.pipeline.verdict.image_decisions import decided_images
from heatlas.pipeline.verdict.judge import judge_repair
from heatlas.pipeline.verdict.locked_split import LockedSplit, read_split
from heatlas.pipeline.verdict.named_models import ModelRun, model_runs
from heatlas.pipeline.verdict.text import verdict_text
from heatlas.pipeline.verdict.training_record import read_record
from heatlas.workers.models.load import ModelSpec, load_model
from safetensors.torch import load_file, save_file

from ..support.marked_set import MODULE, SIZE, MarkedSet, rows_in

QUICK = {"epochs": 6, "learning_rate": 5e-3, "batch_size": 48}


def repair(planted: MarkedSet, out: Path, recipe: str, store: str | None = None, **options) -> str:
    trainer = options.pop("trainer", None)
    settings = FixSettings(recipe, **{**QUICK, **options})
    done = repair_store(
        store or planted.store, settings, models=planted.weights, test=planted.store, out=str(out), trainer=trainer
    )
    assert "Whether it is better is not known yet" in done.summary()
    return done.out


@pytest.fixture(scope="module")
def dfr(planted, tmp_path_factory) -> str:
    """A repair of three seeds; not to be changed."""
    return repair(planted, tmp_path_factory.mktemp("repaired") / "dfr", "dfr")


@pytest.mark.parametrize("recipe", ["dfr", "pclarc", "patchmix"])
def test_a_recipe_makes_the_models_better(planted, dfr, tmp_path, recipe):
    out = dfr if recipe == "dfr" else repair(planted, tmp_path / recipe, recipe)
    verdict = judge_repair(planted.weights, [out], store=planted.store)
    reliance = next(line for line in verdict.lines if line.reliance is not None)
    assert reliance.word == "better", verdict_text(verdict)
    assert verdict.word == "better", verdict_text(verdict)
    assert not any("nobody says" in note and out in note for note in verdict.notes)


def test_components_that_people_call_a_shortcut_are_taken_out_of_every_seeds_logit(planted, tmp_path):
    """The person is the truth: the component whose contributions tell marked images from others."""
    store = str(shutil.copytree(planted.store, tmp_path / "store", ignore=shutil.ignore_patterns("decisions")))
    with pytest.raises(UsageError, match="has no components; look at the galleries"):
        repair(planted, tmp_path / "spufix", "spufix", store=store)
    marked = {row["id"] for row in rows_in(planted.manifest) if row["mark"] == "1"}
    tables = find_components(store, galleries=False)
    with pytest.raises(UsageError, match="nobody called a component"):
        repair(planted, tmp_path / "spufix", "spufix", store=store)
    rows = [row for row in pq.read_table(f"{store}/components/rows.parquet").to_pylist() if row["class"] == 0]
    given, carries = np.array([row["contributions"] for row in rows]), np.array([row["id"] in marked for row in rows])
    apart = (given[carries].mean(axis=0) - given[~carries].mean(axis=0)) / given.std(axis=0)
    assert tables.components.num_rows
    find_components(store, names=[f"rising:{apart.argmax()}:shortcut:mark"], galleries=False)
    out = repair(planted, tmp_path / "spufix", "spufix", store=store)
    assert read_record(out).notes[-1] == f"rising: component {apart.argmax()} (mark) is held"
    for seed in range(3):
        before, after = load_file(planted.weights[seed]), load_file(f"{out}/seed-{seed}.safetensors")
        assert {name for name in before if not torch.equal(before[name], after[name])} == {"11.weight", "11.bias"}
        assert torch.equal(before["11.weight"][1:], after["11.weight"][1:])
    verdict = judge_repair(planted.weights, [out], store=planted.store)
    pasted = next(line for line in verdict.lines if line.reliance is not None and "pasted" in line.name).measured
    assert all(after < before for before, after in zip(pasted.first_seeds, pasted.second_seeds, strict=True))


def test_a_head_recipe_changes_the_last_layer_alone(planted, dfr):
    before, after = load_file(planted.weights[0]), load_file(f"{dfr}/seed-0.safetensors")
    assert before.keys() == after.keys()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"11.weight", "11.bias"}


def test_training_anew_without_a_repair_is_not_better(planted, tmp_path):
    out = repair(planted, tmp_path / "none", "none")
    verdict = judge_repair(planted.weights, [out], store=planted.store)
    assert verdict.word != "better", verdict_text(verdict)


@pytest.mark.parametrize("recipe", ["dfr", pytest.param("pclarc", marks=pytest.mark.soak)])
def test_a_sham_repair_by_wrong_masks_is_not_better(planted, tmp_path, recipe):
    """The same recipes, told of a mark that is none: another corner of images drawn at random."""
    sham = shutil.copytree(planted.store, tmp_path / "store", ignore=shutil.ignore_patterns("decisions"))
    mask = np.zeros((SIZE, SIZE), bool)
    mask[1:7, 17:23] = True
    chosen = np.random.default_rng(0).permutation(240)[:90]
    heatlas.open(sham).decide([f"train-{number:04d}" for number in chosen if number % 3 == 0], "shortcut", mask=mask)
    out = repair(planted, tmp_path / recipe, recipe, store=str(sham))
    verdict = judge_repair(planted.weights, [out], store=planted.store)
    assert verdict.word != "better", verdict_text(verdict)


def test_rrr_takes_gradients_off_the_mark(planted, tmp_path):
    from heatlas.pipeline.verdict.image_decisions import decided_images, load_images
    from heatlas.workers.models.load import ModelSpec, load_model

    images, reader = decided_images(heatlas.open(planted.store))
    shares = {}
    for recipe in ("none", "rrr"):
        out = repair(planted, tmp_path / recipe, recipe, seeds=1)
        model = load_model(ModelSpec(spec=f"{MODULE}:model@{out}/seed-0.safetensors"))
        carriers = [image for identity, image in images.items() if image.mark == 0 and identity.startswith("test")]
        loaded = load_images(carriers, reader, model.preprocess)
        inputs = loaded.inputs.clone().requires_grad_(True)
        model.module(inputs)[:, 0].sum().backward()
        gradients = inputs.grad.sum(dim=1).abs()
        shares[recipe] = float((gradients * loaded.regions).sum() / gradients.sum())
    assert shares["rrr"] < 0.7 * shares["none"]


def test_no_recipe_sees_the_test_split_under_any_name(planted, tmp_path):
    """Also not a test image that lies in the training images as a copy."""
    copied = planted.folder / "images" / "train-0007.png"
    before = copied.read_bytes()
    try:
        shutil.copy(planted.folder / "images" / "test-0010.png", copied)
        out = repair(planted, tmp_path / "dfr", "dfr", seeds=1)
    finally:
        copied.write_bytes(before)
    record = read_record(out)
    assert len(record.ids) == 239
    assert "train-0007" not in record.ids
    assert not any(identity.startswith("test") for identity in record.ids)
    assert any("1 image are the same files" in note or "same files as test images" in note for note in record.notes)


def test_ids_of_another_test_store_may_name_other_images(planted, tmp_path):
    """Its files are left out by what they hold; a training image of the same name stays."""
    images = read_split(planted.store).images
    renamed = {identity.replace("test", "train"): image for identity, image in images.items()}
    split = LockedSplit(str(tmp_path), None, "2026-01-01T00:00:00+00:00", renamed)
    decided, reader = decided_images(heatlas.open(planted.store))
    preprocess = load_model(ModelSpec(spec=f"{MODULE}:model@{planted.weights[0]}")).preprocess
    names = heatlas.open(planted.store).class_names
    apart = training_set(decided, split, "none", reader, preprocess, names, same_store=False)
    assert sorted(image.sample.id for image in apart.loaded.images) == [f"train-{number:04d}" for number in range(240)]
    assert len(training_set(decided, split, "none", reader, preprocess, names).loaded) == 120


def test_relabel_and_drop_take_decisions(planted, tmp_path):
    store = str(shutil.copytree(planted.store, tmp_path / "store"))
    with pytest.raises(UsageError, match="recipe relabel changes nothing"):
        repair(planted, tmp_path / "relabel", "relabel", store=store)
    atlas = heatlas.open(store)
    atlas.decide(["train-0001", "train-0004"], "relabel", label_name="upright")
    atlas.decide(["train-0010", "train-0013", "train-0016"], "drop")
    trainer = f"{MODULE}:keep"
    relabelled = repair(planted, tmp_path / "relabel", "relabel", store=store, trainer=trainer, seeds=1)
    dropped = repair(planted, tmp_path / "drop", "drop", store=store, trainer=trainer, seeds=1)
    labels = {row["id"]: row["label"] for row in rows_in(tmp_path / "relabel" / "manifest.csv")}
    assert labels["train-0001"] == labels["train-0004"] == "upright"
    assert labels["train-0007"] == "falling"
    assert len(read_record(relabelled).ids) == 240
    assert len(read_record(dropped).ids) == 237


def test_the_users_trainer_is_given_masks_and_changed_copies(planted, tmp_path):
    out = Path(repair(planted, tmp_path / "patchmix", "patchmix", trainer=f"{MODULE}:fit", seeds=1, from_scratch=True))
    with open(out / "manifest.csv") as file:
        rows = list(csv.DictReader(file))
    copies = [row for row in rows if row["changed_from"]]
    assert len(rows) - len(copies) == 240
    assert len(copies) > 200
    marked = {row["id"] for row in rows if row["shortcut_mask"]}
    assert len(marked) == 72
    assert all((out / row["shortcut_mask"]).is_file() for row in rows if row["shortcut_mask"])
    weights = load_file(out / "seed-0.safetensors")
    assert torch.equal(weights["0.weight"], load_file(out / "trained-0.safetensors")["0.weight"])


def test_what_is_refused(planted, dfr, tmp_path, capsys):
    store = str(shutil.copytree(planted.store, tmp_path / "store", ignore=shutil.ignore_patterns("verdict")))
    assert main(["fix", store, "--recipe", "dfr"]) == 2
    assert "has no locked test split" in capsys.readouterr().err
    assert main(["fix", planted.store, "--recipe", "dfr", "--trainer", f"{MODULE}:fit"]) == 2
    assert "leave --trainer out" in capsys.readouterr().err
    assert main(["fix", planted.store, "--recipe", "none", "--epochs", "0"]) == 2
    assert "epochs must be at least 1, got 0" in capsys.readouterr().err
    with pytest.raises(UsageError, match="holds a repair already"):
        repair(planted, Path(dfr), "dfr", seeds=1)
    bare = str(shutil.copytree(planted.store, tmp_path / "bare", ignore=shutil.ignore_patterns("decisions")))
    with pytest.raises(UsageError, match="recipe patchmix needs marks"):
        repair(planted, tmp_path / "patchmix", "patchmix", store=bare)
    with pytest.raises(UsageError, match="a verdict needs at least 3"):
        judge_repair(planted.weights, [f"{dfr}/seed-0.safetensors"], store=planted.store)


def test_a_training_that_diverges_is_told_and_nothing_is_written(planted, tmp_path):
    with pytest.raises(RunError, match=r"recipe none diverged with seed 0: .* use a smaller --learning-rate"):
        repair(planted, tmp_path / "none", "none", seeds=1, epochs=1, learning_rate=1e30)
    assert read_record(str(tmp_path / "none")) is None


def test_relabelling_gives_images_without_a_label_one(planted):
    images, reader = decided_images(heatlas.open(planted.store))
    some = {identity: image for identity, image in images.items() if identity.startswith("train-00")}
    some["train-0002"] = replace(some["train-0002"], label=None, new_label=1)
    some["train-0005"] = replace(some["train-0005"], label=None, new_label=None)
    preprocess = load_model(ModelSpec(spec=f"{MODULE}:model@{planted.weights[0]}")).preprocess
    data = training_set(some, read_split(planted.store), "relabel", reader, preprocess, ())
    labels = dict(zip((image.sample.id for image in data.loaded.images), data.labels.tolist(), strict=True))
    assert labels["train-0002"] == 1
    assert "train-0005" not in labels


def test_classes_that_the_model_would_forget_and_models_of_other_classes(planted, tmp_path, monkeypatch):
    net = import_module(MODULE)
    real = net.model

    def other(classes):
        made = real()
        made[-1] = torch.nn.Linear(24, len(classes))
        made.class_names = classes
        return made

    monkeypatch.setattr(net, "renamed", lambda: other(("falling", "rising", "upright")), raising=False)
    monkeypatch.setattr(net, "more", lambda: other(("rising", "falling", "upright", "level")), raising=False)
    for name, said in (("renamed", "'falling' for 'rising'"), ("more", "4 for 3")):
        with pytest.raises(UsageError, match=f"has other classes than the store.*{said}"):
            repair_store(planted.store, FixSettings("dfr"), models=[f"{MODULE}:{name}"], out=str(tmp_path / "x"))
    images, _ = decided_images(heatlas.open(planted.store))
    kept = {identity: image for identity, image in images.items() if image.label != 2}
    monkeypatch.setattr(repair_module, "decided_images", lambda atlas: (kept, _))
    done = repair_store(
        planted.store, FixSettings("none", seeds=1, epochs=1), models=planted.weights, out=str(tmp_path / "none")
    )
    assert "no training image of 1 class (upright)" in done.summary()


@pytest.mark.parametrize("trainer", [None, f"{MODULE}:fit_single"])
def test_models_of_one_logit_keep_the_names_of_their_weights(planted, tmp_path, monkeypatch, trainer):
    """heatlas makes two classes of them; what it writes must fit the user's own module, and what the user has must fit here."""
    net = import_module(MODULE)
    real = net.model

    def single():
        made = real()
        made[-1] = torch.nn.Linear(24, 1)
        made.class_names = ("rising", "falling")
        return made

    def fit_single(manifest, init_weights, out, seed):
        own = single()
        own.load_state_dict(load_file(init_weights))
        save_file(own.state_dict(), out)

    monkeypatch.setattr(net, "single", single, raising=False)
    monkeypatch.setattr(net, "fit_single", fit_single, raising=False)
    spec = ModelSpec(spec=f"{MODULE}:single")
    model = load_model(spec)
    assert model.num_classes == 2
    images, reader = decided_images(heatlas.open(planted.store))
    two = {identity: image for identity, image in images.items() if image.label != 2}
    data = training_set(two, read_split(planted.store), "none", reader, model.preprocess, ())
    settings = FixSettings("none", epochs=1)
    if trainer is None:
        state = repaired_state(model, data, settings, 0)
    else:
        (tmp_path / "out").mkdir()
        manifest = write_training_manifest(tmp_path / "out", data, settings, model.preprocess, ())
        state = train_by_user(user_trainer(trainer), trainer, manifest, model, tmp_path / "out", settings, 0)
    assert state.keys() == single().state_dict().keys()
    save_file(state, tmp_path / "one.safetensors")
    loaded = ModelRun("one", spec, str(tmp_path / "one.safetensors")).load()
    own = single()
    own.load_state_dict(state)
    inputs = data.loaded.inputs[:8]
    with torch.no_grad():
        torch.testing.assert_close(loaded.module(inputs)[:, 1:], own.eval()(inputs))


def test_models_of_several_labels_need_their_own_training(planted, tmp_path, monkeypatch):
    monkeypatch.setattr(repair_module, "model_runs", lambda *given: [replace_load(run) for run in model_runs(*given)])

    def replace_load(run):
        return SimpleNamespace(name=run.name, spec=run.spec, load=lambda: replace(run.load(), multi_label=True))

    with pytest.raises(UsageError, match=r"several classes may be true at once.*--trainer, or take pclarc or spufix"):
        repair(planted, tmp_path / "x", "dfr")
    assert repair(planted, tmp_path / "pclarc", "pclarc", seeds=1)


def broken(kind):
    def fit(manifest, init_weights, out, seed):
        if kind == "raises":
            raise RuntimeError("no memory left")
        if kind == "other classes":
            save_file({**load_file(init_weights), "11.weight": torch.zeros(5, 24), "11.bias": torch.zeros(5)}, out)
            return out
        if kind == "not finite":
            save_file({**load_file(init_weights), "0.weight": torch.full((8, 3, 3, 3), torch.nan)}, out)
        return 7 if kind == "number" else None

    return fit


@pytest.mark.parametrize(
    ("kind", "error", "said"),
    [
        ("raises", RunError, "failed with seed 0: RuntimeError: no memory left"),
        ("nothing", RunError, "wrote no weights"),
        ("number", RunError, "gave a int"),
        ("not finite", RunError, "diverged with seed 0: 0.weight holds numbers that are not finite"),
        ("other classes", ModelError, "11.weight"),
    ],
)
def test_a_trainer_that_gives_no_weights_of_the_model_is_told(planted, tmp_path, monkeypatch, kind, error, said):
    monkeypatch.setattr(import_module(MODULE), "broken", broken(kind), raising=False)
    with pytest.raises(error, match=re.escape(said)):
        repair(planted, tmp_path / "none", "none", seeds=1, trainer=f"{MODULE}:broken")
    assert read_record(str(tmp_path / "none")) is None


def test_a_repair_that_was_cut_off_is_no_repair_and_its_weights_do_not_pass_for_another(planted, tmp_path, monkeypatch):
    def fit(manifest, init_weights, out, seed):
        if seed == 1:
            raise KeyboardInterrupt
        shutil.copy(init_weights, out)

    net = import_module(MODULE)
    monkeypatch.setattr(net, "fit_cut_off", fit, raising=False)
    with pytest.raises(KeyboardInterrupt):
        repair(planted, tmp_path / "none", "none", seeds=2, trainer=f"{MODULE}:fit_cut_off")
    with pytest.raises(UsageError, match="holds neither a run of heatlas explain nor a repair"):
        judge_repair(planted.weights, [str(tmp_path / "none")], store=planted.store, fewest_seeds=1)
    monkeypatch.setattr(net, "fit_cut_off", lambda *given: None)
    with pytest.raises(RunError, match=r"wrote no weights to .*trained-0\.safetensors"):
        repair(planted, tmp_path / "none", "none", seeds=2, trainer=f"{MODULE}:fit_cut_off")
    done = repair(planted, tmp_path / "none", "none", seeds=2, trainer=f"{MODULE}:keep")
    assert read_record(done).files == ("seed-0.safetensors", "seed-1.safetensors")
