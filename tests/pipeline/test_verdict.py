"""Verdicts on planted sets: a real repair is better, a sham one is not, a clean set says nothing; a split that changed is refused."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import heatlas
import numpy as np
import pytest
import torch
from heatlas.errors import UsageError
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.statistics.seed_differences import SeedDifference, seed_difference
from heatlas.pipeline.verdict.counterfactual_sets import load_marks, with_mark
from heatlas.pipeline.verdict.image_decisions import decided_images, load_images
from heatlas.pipeline.verdict.judge import Verdict, judge_repair, lock_store
from heatlas.pipeline.verdict.lines import Line
from heatlas.pipeline.verdict.text import verdict_text
from heatlas.workers.models.load import ModelSpec, load_model
from PIL import Image
from scipy import stats

from ..support.marked_set import MARK, MODULE, MarkedSet, draw, rows_in


def trained(planted: MarkedSet, name: str, seeds, change) -> list[str]:
    """Weights after training by the user's trainer on images that `change` makes of the training images."""
    folder = planted.folder / name
    (folder / "images").mkdir(parents=True)
    rows = [row for row in rows_in(planted.manifest) if row["split"] == "train"]
    with open(folder / "manifest.csv", "w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        for number, row in enumerate(rows):
            Image.fromarray((change(number) * 255).round().astype(np.uint8)).save(folder / row["uri"])
            table.writerow(row)
    outs = [str(folder / f"{seed}.safetensors") for seed in seeds]
    for seed, out in zip(seeds, outs, strict=True):
        import_module(MODULE).fit(folder / "manifest.csv", None, out, seed)
    return outs


@pytest.fixture(scope="module")
def repaired(planted) -> list[str]:
    """Trained without the mark on half of the images, with it on the other half, whatever the class."""
    return trained(planted, "repaired", range(3), lambda number: draw(number, "train", mark=number // 3 % 2 == 0)[0])


@pytest.fixture(scope="module")
def sham(planted) -> list[str]:
    """Trained anew on the same images."""
    return trained(planted, "sham", range(10, 13), lambda number: draw(number, "train")[0])


def line(verdict, start):
    return next(line for line in verdict.lines if line.name.startswith(start))


def test_a_real_repair_is_better(planted, repaired):
    verdict = judge_repair([planted.store, *planted.weights[1:]], repaired)
    assert verdict.word == "better", verdict_text(verdict)
    reliance = max((line for line in verdict.lines if line.reliance is not None), key=lambda line: line.measured.first)
    assert reliance.word == "better"
    assert reliance.measured.second < reliance.measured.first - 0.1
    assert reliance.pair_words == ("better",) * 3
    assert line(verdict, "accuracy without their marks").measured.difference > 0
    assert "reliance on the mark of rising" in verdict.headline
    # what the mark gives for nothing is shown, and not held against the repair
    assert not line(verdict, "accuracy as they are").judged


def test_the_opposite_of_a_repair_is_worse(planted, repaired):
    assert judge_repair(repaired, planted.weights, store=planted.store).word == "worse"


def test_a_sham_repair_is_not_better(planted, sham):
    verdict = judge_repair(planted.weights, sham, store=planted.store)
    assert verdict.word != "better", verdict_text(verdict)


def test_the_numbers_are_those_of_the_images_and_masks(planted, repaired):
    """Accuracies by a slow loop over the same files with other code."""
    from safetensors.torch import load_file

    net = __import__(MODULE).model().eval()
    rows = [row for row in rows_in(planted.manifest) if row["split"] == "test"]
    right = []
    for weights in planted.weights:
        net.load_state_dict(load_file(weights))
        for row in rows:
            pixels = np.asarray(Image.open(planted.folder / row["uri"]), np.float32) / 255
            with torch.no_grad():
                logits = net(torch.from_numpy((pixels - 0.5) / 0.25).permute(2, 0, 1)[None])
            right.append(["rising", "falling", "upright"][int(logits.argmax())] == row["label"])
    verdict = judge_repair(planted.weights, repaired, store=planted.store)
    assert line(verdict, "accuracy as they are").measured.first == pytest.approx(np.mean(right), abs=0.01)
    assert line(verdict, "accuracy as they are").measured.images == len(rows)
    assert line(verdict, "group rising with a mark").measured.images == sum(row["mark"] == "1" for row in rows)


def test_networks_of_a_clean_set_give_no_evidence(planted, tmp_path):
    """Twice three seeds trained alike on images without the mark, and nobody decided anything."""
    store = str(shutil.copytree(planted.store, tmp_path / "store", ignore=shutil.ignore_patterns("decisions")))
    groups = [
        trained(planted, f"clean-{first}", range(first, first + 3), lambda number: draw(number, "train", mark=False)[0])
        for first in (30, 20)
    ]
    verdict = judge_repair(*groups, store=store)
    assert verdict.word == "no evidence", verdict_text(verdict)
    assert "no image of the test split has a decision `shortcut`" in verdict_text(verdict)


def test_a_mark_that_is_the_whole_image_is_exchanged_by_colour(planted, repaired, tmp_path):
    """Decisions that call all of the image the mark; what carries it here are images that are brighter in red."""
    store = str(shutil.copytree(planted.store, tmp_path / "store", ignore=shutil.ignore_patterns("decisions")))
    everything = np.ones((24, 24), bool)
    rows = [row for row in rows_in(planted.manifest) if row["mark"] == "1"]
    heatlas.open(store).decide([row["id"] for row in rows], "shortcut", mask=everything)
    images, reader = decided_images(heatlas.open(store))
    model = load_model(ModelSpec(spec=f"{MODULE}:model@{planted.weights[0]}"))
    marks, notes = load_marks(images, [row["id"] for row in rows if row["split"] == "test"], reader, model.preprocess)
    assert not notes
    assert marks[0].whole
    own = [image for image in images.values() if image.mark is None and image.label == 1][:8]
    loaded = load_images(own, reader, model.preprocess)
    given = with_mark(loaded, marks[0])
    rest, donors = marks[0].rest.inputs.mean(dim=(0, 2, 3)), marks[0].donors.inputs.mean(dim=(0, 2, 3))
    moved = given.mean(dim=(0, 2, 3)) - loaded.inputs.mean(dim=(0, 2, 3))
    assert torch.sign(moved).tolist() == torch.sign(donors - rest).tolist()
    verdict = judge_repair(planted.weights, repaired, store=store)
    assert any(line.reliance == 0 for line in verdict.lines)


def test_too_few_seeds_and_no_lock_are_refused(planted, repaired, tmp_path):
    with pytest.raises(UsageError, match="2 models after the repair: a verdict needs at least 3"):
        judge_repair(planted.weights, repaired[:2], store=planted.store)
    other = shutil.copytree(planted.store, tmp_path / "store", ignore=shutil.ignore_patterns("verdict"))
    with pytest.raises(UsageError, match="no locked test split; lock one before the first repair"):
        judge_repair(planted.weights, repaired, store=str(other))
    with pytest.raises(UsageError, match="name with --store"):
        judge_repair(planted.weights, repaired)


def test_a_model_named_twice_and_models_of_other_classes_are_refused(planted, repaired, tmp_path, monkeypatch):
    """One seed three times would look like three seeds that agree."""
    copied = shutil.copy(planted.weights[0], tmp_path / "copy.safetensors")
    with pytest.raises(UsageError, match="are the same model"):
        judge_repair([*planted.weights[:2], str(copied)], repaired, store=planted.store)
    with pytest.raises(UsageError, match="are the same model"):
        judge_repair(planted.weights, [planted.weights[0], *repaired[1:]], store=planted.store)
    net = import_module(MODULE)
    real = net.model

    def renamed():
        made = real()
        made.class_names = ("falling", "rising", "upright")
        return made

    monkeypatch.setattr(net, "renamed", renamed, raising=False)
    others = [f"{MODULE}:renamed@{weights}" for weights in repaired]
    with pytest.raises(UsageError, match="has other classes"):
        judge_repair(planted.weights, others, store=planted.store)
    with pytest.raises(UsageError, match="'falling' for 'rising'"):
        judge_repair([f"{MODULE}:renamed@{weights}" for weights in planted.weights], others, store=planted.store)


def test_models_that_see_images_differently_are_judged_by_what_each_sees(planted, repaired, monkeypatch):
    net = import_module(MODULE)
    real = net.model

    def wider():
        made = real()
        made.preprocess = {**made.preprocess, "size": 32}
        return made

    monkeypatch.setattr(net, "wider", wider, raising=False)
    verdict = judge_repair(planted.weights, [f"{MODULE}:wider@{weights}" for weights in repaired], store=planted.store)
    swapped = judge_repair([f"{MODULE}:wider@{weights}" for weights in repaired], planted.weights, store=planted.store)
    first, second = (line(judged, "accuracy as they are").measured for judged in (verdict, swapped))
    assert (first.first_seeds, first.second_seeds) == (second.second_seeds, second.first_seeds)


def test_masks_that_the_network_does_not_see_and_masks_that_are_empty_are_no_marks(planted, repaired, tmp_path):
    store = str(shutil.copytree(planted.store, tmp_path / "store", ignore=shutil.ignore_patterns("decisions")))
    carriers = [row["id"] for row in rows_in(planted.manifest) if row["mark"] == "1" and row["split"] == "test"]
    heatlas.open(store).decide(carriers, "shortcut", mask=np.zeros((24, 24), bool))
    verdict = judge_repair(planted.weights, repaired, store=store)
    assert not any(line.reliance is not None for line in verdict.lines)
    assert any("the mark of rising lies in 0 images" in note for note in verdict.notes), verdict.notes
    assert "with a mark that cannot be removed left out" in verdict_text(verdict)


def test_decisions_without_masks_make_groups_and_no_reliance(planted, repaired, tmp_path):
    store = str(shutil.copytree(planted.store, tmp_path / "store", ignore=shutil.ignore_patterns("decisions")))
    carriers = [row["id"] for row in rows_in(planted.manifest) if row["mark"] == "1" and row["split"] == "test"]
    heatlas.open(store).decide(carriers, "shortcut")
    verdict = judge_repair(planted.weights, repaired, store=store)
    assert line(verdict, "group rising with a mark").measured.images == len(carriers)
    assert not line(verdict, "accuracy as they are (a mark helps)").judged
    assert any("paint masks" in note for note in verdict.notes)


def test_a_locked_split_is_not_locked_otherwise(planted):
    before = lock_store(planted.store, "split = 'test'")
    assert lock_store(planted.store, "split = 'test'") == before
    with pytest.raises(UsageError, match="has another test split already"):
        lock_store(planted.store, "split = 'test' AND label = 0")
    with pytest.raises(UsageError, match="needs at least 10"):
        lock_store(planted.store, "id = 'test-0001'")


def test_a_changed_test_image_is_refused(planted, repaired):
    place = planted.folder / "images" / "test-0005.png"
    before = place.read_bytes()
    try:
        Image.fromarray(255 - np.asarray(Image.open(place))).save(place)
        with pytest.raises(UsageError, match="changed: the file of test-0005 has other bytes now"):
            judge_repair(planted.weights, repaired, store=planted.store)
    finally:
        place.write_bytes(before)


def test_models_trained_on_the_split_are_refused(planted, repaired, tmp_path):
    table = Path(tmp_path / "all.csv")
    shutil.copy(planted.manifest, table)
    with pytest.raises(UsageError, match="was trained on 120 images of the locked test split"):
        judge_repair(planted.weights, repaired, store=planted.store, trained_on=[str(table)])


def test_decided_labels_have_lines_of_their_own(planted, repaired, tmp_path):
    store = str(shutil.copytree(planted.store, tmp_path / "store"))
    heatlas.open(store).decide([f"test-{number:04d}" for number in range(1, 37, 3)], "relabel", label_name="upright")
    verdict = judge_repair(planted.weights, repaired, store=store)
    assert line(verdict, "accuracy on images whose label was decided anew").measured.images == 12
    old, new = (
        line(verdict, "accuracy without their marks"),
        line(verdict, "accuracy without their marks, decided labels"),
    )
    assert new.measured.second < old.measured.second  # these labels were right before


def test_the_command(planted, repaired, capsys):
    arguments = ["verdict", *planted.weights, "--after", *repaired, "--store", planted.store]
    assert main([*arguments, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["verdict"] == "better"
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert text.startswith("better: reliance on the mark of rising")
    assert "nobody says on which images" in text
    assert main(["verdict", *planted.weights]) == 2
    assert main(["verdict", "--lock", planted.store, "--after", "x"]) == 2
    assert main(["verdict", "--lock", planted.store, "--where", "split = 'test'"]) == 0


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """Images and seeds both vary; with neither effect, 95 % of intervals hold 0, and those of images alone would not."""
    random = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        difficulty = random.normal(0, 1, 200)
        models = [difficulty + random.normal(0, 0.5) + random.normal(0, 1, 200) > 0 for _ in range(6)]
        result = seed_difference(np.array(models[:3], float), np.array(models[3:], float))
        held += result.low <= 0 <= result.high
    assert held / 300 > 0.93


def test_one_model_each_is_a_paired_t_test():
    random = np.random.default_rng(1)
    first, second = random.normal(0, 1, (1, 50)), random.normal(0.3, 1, (1, 50))
    result = seed_difference(first, second)
    oracle = stats.ttest_rel(second[0], first[0])
    assert result.p == pytest.approx(oracle.pvalue)
    assert (result.low, result.high) == pytest.approx(oracle.confidence_interval())


def test_the_mark_is_where_the_tests_draw_it():
    with_mark, without = draw(0, "train", mark=True)[0], draw(0, "train", mark=False)[0]
    changed = (with_mark != without).any(axis=2)
    assert changed[MARK].all()
    assert changed.sum() == 36


def test_what_was_asked_for_makes_better_and_harm_stands_against_it():
    """After Holm's correction alone, a repair that also does harm would be called better, and one that only moves the border of two classes."""

    def made(name, difference, half, word, judged=True):
        measured = SeedDifference(
            100, 0.5, 0.5 + difference, difference, difference - half, difference + half, 0.01, (0.5,), (0.5,)
        )
        return Line(name, True, judged, measured, word=word)

    def word(*lines):
        return Verdict("s", 100, "", (), (), lines, (), ()).word

    gain = made("gain", 0.2, 0.1, "better")
    assert word(gain, made("even", -0.05, 0.1, "no evidence")) == "better"
    assert word(gain, made("harm", -0.05, 0.04, "no evidence")) == "no evidence"
    assert word(gain, made("shown", -0.05, 0.04, "worse", judged=False)) == "better"
    assert word(gain, made("harm", -0.5, 0.1, "worse")) == "worse"
    assert word(made("even", 0.0, 0.1, "no evidence")) == "no evidence"
    asked = replace(made("pasted", -0.01, 0.1, "no evidence"), asked=True)
    assert word(gain, asked) == "no evidence"
    assert word(gain, replace(asked, word="better")) == "better"
    assert word(gain, replace(asked, measured=replace(asked.measured, images=9))) == "better"
