"""Labels, outliers and duplicates from features: by hand, against slow loops, and on planted blobs."""

from __future__ import annotations

import numpy as np
import pytest
from heatlas.errors import UsageError
from heatlas.pipeline.curate.feature_tables import SCHEMAS, read_confidences
from heatlas.pipeline.features import label_ranking as quality_module
from heatlas.pipeline.features.image_hash import perceptual_hash
from heatlas.pipeline.features.label_ranking import label_probes, label_quality, linear_probe
from heatlas.pipeline.features.neighbours import find_duplicates, find_outliers, least_cosine, unit_rows
from heatlas.pipeline.features.wrong_label_count import estimate_wrong, wrong_by_mixture, wrong_range
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score


@pytest.fixture(scope="module")
def blobs():
    """300 points of three classes, 5 % of the labels wrong: features, stated labels, which are wrong."""
    random = np.random.default_rng(0)
    truth = np.repeat(np.arange(3), 100)
    features = random.normal(0, 1, (300, 16)) + 6 * np.eye(3, 16)[truth]
    labels, wrong = truth.copy(), np.zeros(300, bool)
    wrong[random.permutation(300)[:15]] = True
    labels[wrong] = (truth[wrong] + 1) % 3
    return features.astype(np.float32), labels, wrong


def test_wrong_labels_are_accused_and_counted(blobs):
    features, labels, wrong = blobs
    probe = linear_probe(features, labels, 3)
    result = label_quality(probe, label_probes(probe, features, labels), labels)
    assert roc_auc_score(wrong, result.suspicion) > 0.999
    assert result.accused[wrong].mean() > 0.6
    assert result.accused[~wrong].mean() < 0.01
    assert (result.suggested[wrong] == (labels[wrong] - 1) % 3).all()
    assert result.estimated_wrong == pytest.approx(15, abs=10)
    low, high = result.wrong_range  # among the 60 that count more are wrong than among all
    assert 0 < low < 20 < high < 70


def test_a_probe_is_never_trained_on_what_it_judges(blobs):
    features, labels, _ = blobs
    memorising = np.eye(3)[labels]  # a model that knows its labels by heart accuses nobody alone
    probe = linear_probe(features, labels, 3)
    assert probe.sum(axis=1) == pytest.approx(np.ones(300))
    probes = label_probes(memorising, features, labels)
    assert roc_auc_score(blobs[2], label_quality(memorising, probes, labels).suspicion) > 0.99


def test_a_wrong_label_does_not_teach_the_cleaned_probe(blobs):
    """All wrong labels of one kind: the probe learns some of them, the cleaned one fewer."""
    random = np.random.default_rng(1)
    truth = np.repeat(np.arange(3), 100)
    features = random.normal(0, 1, (300, 12)) + 3 * np.eye(3, 12)[truth]
    labels, wrong = truth.copy(), np.zeros(300, bool)
    wrong[:20] = True
    labels[:20] = 1
    probe = linear_probe(features, labels, 3)
    probes = label_probes(probe, features, labels)
    rows = np.arange(300)
    assert probes.cleaned[rows, labels][wrong].mean() < 0.9 * probes.probe[rows, labels][wrong].mean()
    plain = roc_auc_score(wrong, 1 - probe[rows, labels])
    assert roc_auc_score(wrong, label_quality(probe, probes, labels).suspicion) >= plain - 0.005


@pytest.mark.parametrize("held_out", [True, False])
@pytest.mark.parametrize("each", [3, 6, 240])
def test_no_worse_than_the_better_of_model_and_probe(each, held_out):
    """A model that knows what the features do not tell, with few and with many images per class; only held-out ones count alone there."""
    random, classes = np.random.default_rng(each), 4 if each == 240 else 120
    truth = np.repeat(np.arange(classes), each)
    features = random.normal(0, 1, (len(truth), 24)) + 0.5 * random.normal(0, 1, (classes, 24))[truth]
    labels, wrong = truth.copy(), random.random(len(truth)) < 0.08
    labels[wrong] = (truth[wrong] + random.integers(1, classes, wrong.sum())) % classes
    logits = random.normal(0, 1, (len(truth), classes)) + 5 * np.eye(classes)[truth]
    model = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    rows, probes = np.arange(len(truth)), label_probes(model, features, labels)
    second = np.where(np.isfinite(probes.probe), probes.probe, model)
    best = max(roc_auc_score(wrong, 1 - values[rows, labels]) for values in (model, second))
    ours = roc_auc_score(wrong, label_quality(model, probes, labels, held_out=held_out).suspicion)
    if held_out or each < 240:
        assert ours >= best - 0.005
    assert ours > 0.9


def test_a_class_that_the_model_never_sees_says_nothing_of_its_labels():
    """All images of one class, as the model sees another in each: whether the labels or the model are wrong cannot be told."""
    values = np.tile([[0.01, 0.99]], (40, 1))
    values[:10] = [0.95, 0.05]
    labels = np.array([0] * 30 + [1] * 10)
    alone = label_quality(values[10:30], None, labels[10:30])
    assert not alone.accused.any()
    assert not alone.class_seen.any()
    assert alone.estimated_wrong == 0
    some = label_quality(values[np.r_[:10, 25:40]], None, labels[np.r_[:10, 25:40]])  # 5 of 15 are: those are wrong
    assert some.accused.sum() == 5
    assert some.class_seen.all()


def test_a_model_that_knows_less_than_the_probe_does_not_count(blobs):
    features, labels, wrong = blobs
    random = np.random.default_rng(2)
    guessing = random.dirichlet(np.ones(3), len(labels))
    result = label_quality(guessing, label_probes(guessing, features, labels), labels)
    assert roc_auc_score(wrong, result.suspicion) > 0.99


def test_classes_of_fewer_images_than_folds_are_not_probed():
    features = np.random.default_rng(0).normal(size=(64, 4))
    labels = np.array([0] * 30 + [1] * 30 + [2] * 4)
    probe = linear_probe(features, labels, 4)
    assert np.isnan(probe[60:]).all()
    assert np.isfinite(probe[:60]).all()
    assert (probe[:60, 2:] == 0).all()
    even = np.full((64, 4), 0.25)
    result = label_quality(even, label_probes(even, features, labels), labels)
    assert np.isfinite(result.suspicion).all()


def test_many_images_and_classes_are_judged_by_their_neighbours(blobs, monkeypatch):
    monkeypatch.setattr(quality_module, "MOST_WEIGHTS", 1)
    features, labels, wrong = blobs
    probe = linear_probe(features, labels, 3)
    assert probe.sum(axis=1) == pytest.approx(np.ones(300))
    assert roc_auc_score(wrong, label_quality(probe, label_probes(probe, features, labels), labels).suspicion) > 0.95


def test_an_image_with_several_classes_accuses_no_label_that_it_has():
    confidences = np.array([[0.9, 0.95, 0.1], [0.02, 0.9, 0.9], [0.6, 0.99, 0.99]])
    result = label_quality(confidences, None, np.zeros(3, int), several=True)
    assert result.accused.tolist() == [False, True, False]
    assert result.suggested.tolist() == [-1, -1, -1]
    unseen = np.array([[0.03, 0.9], [0.02, 0.9], [0.04, 0.8], [0.9, 0.9]])
    weak = label_quality(unseen, None, np.array([0, 0, 0, 1]), several=True)
    assert not weak.accused.any(), "a class that the model never sees says nothing of its labels"
    assert weak.estimated_wrong == 0


def test_the_number_of_wrong_labels_by_hand():
    values = np.tile([[0.99, 0.01]], (40, 1))
    values[20:] = [0.6, 0.4]  # the less sure half does not count
    labels = np.array([0] * 18 + [1] * 2 + [1] * 20)
    assert estimate_wrong(values, labels) == pytest.approx(40 * 2 / 20)
    assert estimate_wrong(values, np.zeros(40, int)) == 0
    assert wrong_range(values, np.zeros(40, int))[0] == 0
    low, high = wrong_range(np.tile([[0.99, 0.01]], (1000, 1)), (np.arange(1000) % 10 == 0).astype(int))
    assert 30 < low < 100 < high < 200  # 10 of the 100 that count, by Wilson


def test_the_mixture_counts_wrong_labels_and_leaves_clean_ones_alone():
    random = np.random.default_rng(0)
    logits = 3 * random.normal(size=(3000, 3))
    odds = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = (odds.cumsum(axis=1) > random.random((3000, 1))).argmax(axis=1)  # as calibrated as can be
    labels = truth.copy()
    labels[:300] = (truth[:300] + 1) % 3
    assert wrong_by_mixture(odds, labels) == pytest.approx(300, rel=0.3)
    assert wrong_by_mixture(odds, truth) < 60


def test_outliers_are_the_mean_distance_of_the_slow_loop():
    random = np.random.default_rng(0)
    features, labels = random.normal(size=(60, 8)), np.arange(60) % 2
    features[7] = -3 * features.mean(axis=0) + 20 * random.normal(size=8)
    result = find_outliers(features, labels)
    for row in range(60):
        others = sorted(
            (np.linalg.norm(features[row] - features[other]), other)
            for other in range(60)
            if other != row and labels[other] == labels[row]
        )
        assert result.distance[row] == pytest.approx(np.mean([distance for distance, _ in others[:10]]), abs=1e-6)
        assert result.nearest[row] == others[0][1]
    assert result.deviations.argmax() == 7
    equal = find_outliers(np.ones((5, 3)))
    assert equal.distance.max() == pytest.approx(0, abs=1e-6)
    assert (equal.deviations == 0).all()
    assert find_outliers(np.ones((1, 3))).distance.tolist() == [0.0]


def test_strangers_of_one_kind_do_not_vouch_for_each_other():
    random = np.random.default_rng(0)
    features, labels = random.normal(size=(300, 8)), np.arange(300) % 10
    features[:20] = 10 + 0.1 * random.normal(size=(20, 8))  # two of each label
    strangers = np.arange(300) < 20
    assert roc_auc_score(strangers, find_outliers(features, labels).deviations) > 0.99
    assert roc_auc_score(strangers, find_outliers(features).distance) < 0.2


def pictures(count, seed=0):
    """Smooth random pictures `(count, 48, 40)` in [0, 1]."""
    random = np.random.default_rng(seed)
    coarse = random.random((count, 6, 5))
    return np.stack([np.kron(picture, np.ones((8, 8))) for picture in coarse])


def test_copies_and_mirror_images_are_found_and_strangers_are_not():
    images = pictures(80)
    random = np.random.default_rng(1)
    images[40] = 0.8 * images[3] + 0.1 + random.normal(0, 0.01, images[3].shape)
    images[41] = images[5][:, ::-1]
    hashes = np.stack([perceptual_hash(image) for image in images])
    mirrored = np.stack([perceptual_hash(image[:, ::-1]) for image in images])
    features = random.normal(size=(80, 32))
    features[40], features[41] = features[3] + 0.01, features[5] - 0.01
    result = find_duplicates(features, hashes, mirrored)
    pairs = {
        int(row): (int(other), bool(flipped))
        for row, other, flipped in zip(result.row, result.other, result.mirrored, strict=True)
    }
    assert pairs == {3: (40, False), 40: (3, False), 5: (41, True), 41: (5, True)}
    features[40] = -features[3]
    assert 40 not in find_duplicates(features, hashes, mirrored).row, "the features must agree, too"


@given(st.integers(0, 2**32 - 1), st.floats(0.2, 3), st.floats(-1, 1), st.integers(9, 70), st.integers(9, 70))
def test_hashes_do_not_see_brightness_and_contrast(seed, contrast, brightness, height, width):
    image = np.random.default_rng(seed).random((height, width))
    first, second = perceptual_hash(image), perceptual_hash(contrast * image + brightness)
    assert np.unpackbits(first ^ second).sum() <= 2
    assert perceptual_hash(image[:, ::-1]).shape == (8,)


def test_confidences_of_ones_own_are_read_and_checked(tmp_path):
    file = tmp_path / "probs.csv"
    file.write_text("id,bee,ant\na,0.25,0.75\nb,1,0\n")
    ids, values = read_confidences(str(file), ("ant", "bee"))
    assert ids == ["a", "b"]
    assert values.tolist() == [[0.75, 0.25], [0.0, 1.0]]
    for text, message in (
        ("id,bee\na,0.2\n", "has no column '0'; it needs `id` and one column per class"),
        ("id,bee,ant\na,0.2,1.2\n", "must hold confidences from 0 to 1"),
        ("id,bee,ant\na,0.2,\n", "must hold confidences from 0 to 1"),
    ):
        file.write_text(text)
        with pytest.raises(UsageError, match=message):
            read_confidences(str(file), ("ant", "bee"))
    with pytest.raises(UsageError, match=r"must end in .parquet or .csv"):
        read_confidences("probs.npz", ())


def test_own_confidences_are_one_row_per_image_and_numbers(tmp_path):
    file = tmp_path / "probs.csv"
    for text, message in (
        ("id,ant,bee\na,0.2,0.8\na,0.2,0.8\n", "has the id 'a' more than once"),
        ("id,ant,bee\na,much,little\n", "must hold confidences from 0 to 1"),
    ):
        file.write_text(text)
        with pytest.raises(UsageError, match=message):
            read_confidences(str(file), ("ant", "bee"))
    file.write_text("id,ant,bee\n007,0.2,0.8\n010,0.4,0.6\n")
    assert read_confidences(str(file), ("ant", "bee"))[0] == ["007", "010"]


def test_how_alike_near_duplicates_are_follows_from_the_network():
    """Features of which random pairs have a cosine of 0 to 0.4: a pair with 0.7 is near, of others it is not."""
    random = np.random.default_rng(0)
    apart = random.normal(0.3, 1, (200, 64))
    apart[1] = apart[0] + random.normal(0, 0.9, 64)
    alike = random.normal(3, 1, (200, 64))
    hashes = random.integers(0, 256, (200, 8), dtype=np.uint8)
    hashes[1] = hashes[0]
    mirrored = random.integers(0, 256, (200, 8), dtype=np.uint8)
    pairs = find_duplicates(apart, hashes, mirrored)
    assert set(zip(pairs.row.tolist(), pairs.other.tolist(), strict=True)) == {(0, 1), (1, 0)}
    assert least_cosine(unit_rows(alike)) == pytest.approx(0.9)
    assert len(find_duplicates(random.normal(0.3, 1, (200, 64)), hashes, mirrored).row) == 0
    assert len(find_duplicates(alike[:1], hashes[:1], mirrored[:1]).row) == 0


def test_every_table_of_features_has_the_id_first():
    assert all(schema.names[0] == "id" for schema in SCHEMAS.values())
