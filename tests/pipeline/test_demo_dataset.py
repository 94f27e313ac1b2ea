"""The generated data set: the same bytes every time, true masks and boxes, the shortcut where it was planted and nowhere else."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter

import numpy as np
import pytest
from heatlas.errors import UsageError
from heatlas.pipeline.demo.dataset import (
    CLASS_NAMES,
    CORNER,
    LABEL_NOISE,
    MANIFEST_COLUMNS,
    SHORTCUT_CLASS,
    SIZE,
    demo_sample,
    stated_label,
    write_dataset,
)
from heatlas.pipeline.demo.shapes import SHAPES, Pose, distance_to
from PIL import Image

CLASSES = len(CLASS_NAMES)


def digests(folder):
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_written_twice_gives_the_same_bytes(tmp_path):
    write_dataset(tmp_path / "one", "test", 12)
    write_dataset(tmp_path / "two", "test", 12)
    assert len(digests(tmp_path / "one")) == 25
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_a_sample_depends_on_seed_split_and_index_only():
    again = demo_sample("test", 7)
    assert np.array_equal(demo_sample("test", 7).image, again.image)
    for other in (demo_sample("test", 7 + CLASSES), demo_sample("train", 7), demo_sample("test", 7, seed=1)):
        assert not np.array_equal(other.image, again.image)


def test_a_longer_data_set_begins_with_the_shorter_one(tmp_path):
    write_dataset(tmp_path / "short", "train", 5)
    write_dataset(tmp_path / "long", "train", 9)
    short, long = digests(tmp_path / "short"), digests(tmp_path / "long")
    assert all(long[path] == digest for path, digest in short.items() if path.suffix == ".png")


def test_manifest_says_what_the_files_show(tmp_path):
    manifest = write_dataset(tmp_path, "test", 2 * CLASSES)
    with manifest.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(MANIFEST_COLUMNS)
    assert [row["id"] for row in rows] == [f"test-{index:05d}" for index in range(2 * CLASSES)]
    for row in rows:
        with Image.open(tmp_path / row["uri"]) as image, Image.open(tmp_path / row["mask"]) as mask:
            assert (image.size, image.mode, mask.size) == ((SIZE, SIZE), "RGB", (SIZE, SIZE))
            inside = np.asarray(mask)
        assert set(np.unique(inside)) == {0, 255}
        [(left, top, right, bottom)] = json.loads(row["boxes"])
        cut = inside[top:bottom, left:right]
        assert (cut > 0).sum() == (inside > 0).sum()
        assert all(edge.any() for edge in (cut[0], cut[-1], cut[:, 0], cut[:, -1]))


@pytest.mark.parametrize("shape", CLASS_NAMES)
def test_a_shape_is_what_changes_when_only_the_shape_is_repainted(shape):
    """The mask is exact: the image differs from its own background just inside the outline and not beyond the shadow."""
    index = CLASS_NAMES.index(shape)
    sample = demo_sample("test", index)
    rows, columns = np.nonzero(sample.mask)
    assert 0.03 < sample.mask.mean() < 0.3
    assert rows.min() >= 2
    assert columns.max() < SIZE - 2
    core = sample.image[sample.mask].astype(float).mean(0)
    frame = np.concatenate([sample.image[:2], sample.image[:, -2:].transpose(1, 0, 2)], 0).reshape(-1, 3).mean(0)
    assert np.abs(core - frame).max() > 25


def test_distances_by_hand():
    """A disc's distance is exact; the area under every shape's distance agrees with its geometry."""
    field = distance_to("disc", Pose(20.5, 20.5, 10.0, 0.3), 41)
    assert field[20, 20] == pytest.approx(-9.5)
    assert field[20, 35] == pytest.approx(15 - 9.5)
    areas = {
        "octagon": 2 * np.sqrt(2), "square": 2.0, "triangle": 3 * np.sqrt(3) / 4, "disc": np.pi * 0.95**2,
        "ring": np.pi * (0.98**2 - 0.5**2),
    }  # fmt: skip
    for shape, area in areas.items():
        inside = distance_to(shape, Pose(100.0, 100.0, 80.0, 0.4), 200) < 0
        assert inside.sum() == pytest.approx(area * 80**2, rel=0.01), shape


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_distances_grow_by_at_most_one_per_pixel(shape):
    """What makes the anti-aliased edge one pixel wide."""
    field = distance_to(shape, Pose(32.0, 32.0, 20.0, 1.1), 64)
    assert np.abs(np.diff(field, axis=0)).max() <= 1 + 1e-9
    assert np.abs(np.diff(field, axis=1)).max() <= 1 + 1e-9
    assert field.min() < -2
    assert field.max() > 5


@pytest.mark.parametrize("count", [8, 300, 301])
def test_classes_are_balanced(count):
    labels = Counter(stated_label("test", index) for index in range(count))
    assert set(labels) == set(CLASS_NAMES)
    assert max(labels.values()) - min(labels.values()) <= 1


def test_nine_of_ten_of_one_class_carry_the_sticker_and_nothing_else_does():
    samples = [demo_sample("test", index) for index in range(10 * CLASSES)]
    marked = [sample for sample in samples if sample.shortcut]
    assert {sample.label for sample in marked} == {SHORTCUT_CLASS}
    assert len(marked) == 9


def test_the_sticker_is_in_the_corner_and_changes_nothing_else():
    index = CLASS_NAMES.index(SHORTCUT_CLASS)
    planted, wiped = demo_sample("test", index), demo_sample("test", index, marking="never")
    assert planted.shortcut
    assert not wiped.shortcut
    rows, columns = np.nonzero((planted.image != wiped.image).any(2))
    assert rows.min() >= SIZE - CORNER
    assert columns.max() < CORNER
    assert len(rows) > 60
    assert np.array_equal(planted.mask, wiped.mask)


@pytest.mark.parametrize("index", range(3 * CLASSES))
def test_no_shape_enters_the_stickers_corner(index):
    assert not demo_sample("train", index).mask[SIZE - CORNER :, :CORNER].any()


def test_three_percent_of_the_training_labels_are_wrong_and_say_so():
    count = 8000
    wrong = sum(stated_label("train", index) != CLASS_NAMES[index % CLASSES] for index in range(count))
    spread = np.sqrt(LABEL_NOISE * (1 - LABEL_NOISE) / count)
    assert abs(wrong / count - LABEL_NOISE) < 4 * spread
    noisy = [demo_sample("train", index) for index in range(120)]
    assert all(sample.true_label == CLASS_NAMES[index % CLASSES] for index, sample in enumerate(noisy))
    assert 0 < sum(sample.label != sample.true_label for sample in noisy) < 15


def test_test_labels_are_right():
    assert all((sample := demo_sample("test", index)).label == sample.true_label for index in range(40))


def test_messages_name_the_value_and_the_remedy(tmp_path):
    with pytest.raises(UsageError, match=r"unknown split 'tset'; did you mean 'test'\?; choose one of train, test"):
        demo_sample("tset", 0)
    with pytest.raises(UsageError, match="a sample's index starts at 0, got -1"):
        demo_sample("test", -1)
    with pytest.raises(UsageError, match="the demo needs at least 1 image, got 0"):
        write_dataset(tmp_path, "test", 0)
