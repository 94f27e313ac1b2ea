"""Cues: a planted mark is found by what it does to the model, and data without one is left in peace."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from heatlas.pipeline.features.cue_splits import bimodality, separation, sharpened
from heatlas.pipeline.features.cue_table import METADATA_KEY, SCHEMA, verdict
from heatlas.pipeline.features.cue_transfer import given_cue, patch_transfers
from heatlas.pipeline.features.cues import Cue, find_cues
from torch.nn import functional as F


def scene(marked: bool, seed: int = 0):
    """150 smooth grey pictures of three classes told by brightness; a third of class 1 carries a bright corner, which the model trusts."""
    random = torch.Generator().manual_seed(seed)
    labels = np.repeat(np.arange(3), 50)
    coarse = torch.randn(150, 1, 4, 4, generator=random)
    images = (
        0.3 * F.interpolate(coarse, (16, 16), mode="bilinear")
        + torch.from_numpy(labels - 1.0).float()[:, None, None, None]
    )
    carriers = np.zeros(150, bool)
    if marked:
        carriers[50:67] = True
        images[50:67, :, 12:, :4] = 5.0

    def logits(batch):
        level = batch[:, 0, :10, 6:].mean(dim=(1, 2))
        corner = batch[:, 0, 12:, :4].mean(dim=(1, 2))
        values = torch.stack([-4 * (level + 1) ** 2, -4 * level**2, -4 * (level - 1) ** 2], dim=1)
        values[:, 1] += 8 * torch.relu(corner - 3)
        return values, torch.stack([level, corner, batch.mean(dim=(1, 2, 3)), batch.std(dim=(1, 2, 3))], dim=1)

    def predict(batch):
        return logits(batch)[0].softmax(dim=1).numpy()

    features = logits(images)[1].numpy()
    return features, labels, predict(images).argmax(axis=1), images, predict, carriers


def search(marked, seed=0):
    features, labels, predictions, images, predict, carriers = scene(marked, seed)
    return find_cues(features, labels, predictions, lambda rows: images[torch.from_numpy(rows)], predict), carriers


def test_a_mark_that_decides_is_found_with_its_carriers():
    result, carriers = search(True)
    first = result.cues[0]
    assert first.label == 1
    assert first.guilty
    assert set(first.rows.tolist()) == set(np.flatnonzero(carriers).tolist())
    assert first.transfer > 0.9
    assert first.chance < 0.3
    assert not any(cue.guilty for cue in result.cues[1:])


def test_the_same_pictures_without_the_mark_accuse_nobody():
    result, _ = search(False)
    assert {cue.label for cue in result.cues} == {0, 1, 2}
    assert not any(cue.guilty for cue in result.cues)


def test_results_repeat():
    (first, _), (second, _) = search(True), search(True)
    assert [(cue.label, cue.transfer, cue.rows.tolist()) for cue in first.cues] == [
        (cue.label, cue.transfer, cue.rows.tolist()) for cue in second.cues
    ]


def test_small_classes_are_skipped_with_the_reason():
    features, labels, predictions, images, predict, _ = scene(True)
    predictions = predictions.copy()
    predictions[10:50] = 2
    result = find_cues(features, labels, predictions, lambda rows: images[torch.from_numpy(rows)], predict)
    assert result.skipped == {0: "10 correct predictions, 20 are needed"}


def test_an_opaque_mark_is_pasted_and_a_constant_shift_is_added():
    random = torch.Generator().manual_seed(0)
    rest, receivers = torch.randn(400, 1, 6, 6, generator=random), torch.randn(5, 1, 6, 6, generator=random)
    carriers = torch.randn(400, 1, 6, 6, generator=random)
    carriers[:, :, 0, 0] = 7.0
    pasted = given_cue(receivers, carriers, rest)["pixels"]
    assert pasted[:, :, 0, 0] == pytest.approx(torch.full((5, 1), 7.0), abs=0.02)
    assert (pasted - receivers)[:, :, 1:, 1:].abs().mean() < 0.15
    shifted = given_cue(receivers, rest + 2.0, rest)
    assert (shifted["pixels"] - receivers) == pytest.approx(torch.full((5, 1, 6, 6), 2.0), abs=1e-4)
    assert shifted["spectrum"] == pytest.approx(receivers, abs=1e-4), "a shift is no texture"


def test_a_texture_at_any_phase_is_given_by_the_spectrum():
    random = torch.Generator().manual_seed(0)
    rest, receivers = torch.randn(300, 1, 16, 16, generator=random), torch.randn(8, 1, 16, 16, generator=random)
    phases = torch.rand(300, 1, 1, 1, generator=random) * 6.28
    wave = torch.sin(torch.arange(16.0)[None, None, None, :] * 2 * np.pi / 4 + phases)
    changed = given_cue(receivers, rest + 2 * wave, rest)["spectrum"]
    gained = torch.fft.rfft2(changed).abs().mean(dim=0) / torch.fft.rfft2(receivers).abs().mean(dim=0)
    assert gained[0, 0, 4] > 2
    assert gained[0, 5, 2] == pytest.approx(1, abs=0.2)


def test_two_values_are_more_bimodal_than_noise():
    random = np.random.default_rng(0)
    columns = np.stack([np.arange(200_000) % 2, random.random(200_000), random.normal(size=200_000)], axis=1)
    assert bimodality(columns) == pytest.approx([1.0, 5 / 9, 1 / 3], abs=0.02)


def test_a_normal_distribution_cut_in_half_is_no_two_groups():
    random = np.random.default_rng(0)
    assert separation(random.normal(size=100_000)) == pytest.approx(2.65, abs=0.03)
    assert separation(np.concatenate([random.normal(-4, 1, 10_000), random.normal(4, 1, 10_000)])) == pytest.approx(
        8, abs=0.1
    )
    assert separation(np.ones(5)) == 0


def test_a_split_is_sharpened_to_the_groups_behind_it():
    random = np.random.default_rng(0)
    truth = np.arange(120) % 3 == 0
    description = random.normal(0, 1, (120, 6)) + 4 * truth[:, None]
    blurred = truth ^ (random.random(120) < 0.2)
    members, odds = sharpened(description, blurred)
    assert (members == truth).all()
    assert ((odds > 0) == truth).all()


def test_a_patch_is_pasted_from_wherever_the_class_hangs_on_it():
    random = torch.Generator().manual_seed(0)
    images = torch.rand(6, 1, 16, 16, generator=random)
    for row, image in enumerate(images[:3]):
        image[:, 3 * row : 3 * row + 4, 9 - 3 * row : 13 - 3 * row] = 9.0
    receivers = torch.rand(5, 1, 16, 16, generator=random)

    def predict(batch):
        bright = F.avg_pool2d(batch, 4, 1).amax(dim=(1, 2, 3)) / 9
        return torch.stack([1 - bright, bright], dim=1).numpy()

    rises = patch_transfers(images, receivers, predict, 1, np.random.default_rng(0))
    assert (rises[:3] > 0.7).all()
    assert (rises[3:] < 0.1).all()


def table_of(*rows, skipped=None):
    facts = {"skipped": skipped or {}, "least_transfer": {"pixels": 0.25}}
    return pa.Table.from_pylist(list(rows), schema=SCHEMA.with_metadata({METADATA_KEY: json.dumps(facts).encode()}))


def test_the_verdict_is_a_sentence_for_each_case():
    row = {
        "id": "a",
        "cue_class": 1,
        "kind": "pixels",
        "share": 0.4,
        "carrying": 96,
        "transfer": 0.5,
        "chance": 0.02,
        "guilty": True,
    }
    assert verdict(table_of(row), ("ant", "bee")) == (
        "96 images of bee (40 %) share a mark at one place. Given to other classes' images, it raises their confidence in bee by 0.50 "
        "(random halves: at most 0.02)."
    )
    weak = {**row, "transfer": 0.1, "guilty": False}
    assert verdict(table_of(weak), ("ant", "bee")) == (
        "nothing beyond chance. The strongest candidate, a mark at one place of bee, raises the confidence of other classes' images in it by 0.10 "
        "(random halves: at most 0.02), which is below 0.25."
    )
    assert (
        verdict(table_of(skipped={"0": "few"}), ())
        == "cannot tell: no class could be judged (class 0: few). 1 class was not judged."
    )


def cue(kind="pixels", transfer=0.3, chance=0.1, separation=3.5):
    return Cue(0, np.arange(3), 0.3, kind, transfer, chance, separation, np.arange(3), np.ones(3))


def test_what_is_guilty_exceeds_the_threshold_and_chance_and_is_a_group():
    assert cue().guilty
    assert not cue(transfer=0.2).guilty
    assert cue("patch", transfer=0.2, chance=0.0).guilty
    assert not cue(chance=0.2).guilty
    assert not cue(separation=2.7).guilty
