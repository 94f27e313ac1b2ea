"""Folders in folders: which of them are the classes is known from the model, asked about, or said by the user; never guessed."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import pytest
from heatlas.errors import DataError
from heatlas.pipeline.sources import list_source
from heatlas.pipeline.sources.listing.labels import resolve_labels
from heatlas.pipeline.sources.listing.nested_folders import path_below_root, refuse_unclear_folders
from heatlas.pipeline.sources.listing.options import SourceOptions
from hypothesis import given, settings
from hypothesis import strategies as st

from ..support.listings import PIXELS, labels_of, listed, tar_of, write_images, wrong_labels


@pytest.mark.check("labels", "folders `train`, `val`, `test` taken for classes", "asked")
@pytest.mark.parametrize("names", [("train", "val"), ("Train", "TEST"), ("training", "validation", "test"), ("train",)])
def test_parts_of_a_data_set_are_not_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    write_images(tmp_path, *(f"{name}/{kind}/1.png" for name in names for kind in ("ant", "bee")))
    with pytest.raises(DataError, match=f"name one: --data {tmp_path}/"):
        listed(tmp_path)
    assert set(labels_of(listed(tmp_path / names[0]))) == {"ant", "bee"}


@pytest.mark.check("labels", "splits beside a stray image, called `train2017`, `Test Set`, `val-images`", "asked")
@pytest.mark.parametrize(
    "names", [("train2017", "val2017"), ("Training Set", "Test Set"), ("train-images", "val_data")]
)
def test_splits_under_other_names_are_not_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    write_images(tmp_path, "cover.png", *(f"{name}/{kind}/1.png" for name in names for kind in ("ant", "bee")))
    with pytest.raises(DataError, match=r"or take all of them with --labels.folder last"):
        listed(tmp_path)
    assert sorted(map(str, labels_of(listed(tmp_path, folder_label="last")))) == ["None", "ant", "ant", "bee", "bee"]


def clear(root: Path, class_names: list[str] | None, num_classes: int, **options) -> list[str | None]:
    """Labels, where it is clear which folders they are."""
    result = listed(root, **options)
    refuse_unclear_folders(
        result.listing["id"].to_pylist(), class_names, num_classes, options.get("folder_label"), str(root)
    )
    return labels_of(result)


@pytest.mark.check("labels", "folders in folders: a wrapper, folds or cameras that all hold the classes, sessions in classes", "asked")  # fmt: skip
@pytest.mark.parametrize(
    ("names", "model"),
    [
        (("images/ant/1.png", "images/bee/1.png"), ["ant", "bee"]),
        (("images/ant/1.png", "images/bee/1.png"), None),
        (("fold1/ant/1.png", "fold1/bee/1.png", "fold2/ant/1.png"), None),
        (("left/ant/1.png", "right/bee/1.png"), ["ant", "bee"]),
        (("ant/day1/1.png", "bee/day1/1.png"), None),
        (("train/1.png", "val/1.png", "more/1.png"), None),
        (("train/ant/1.png", "val/bee/1.png", "more/cat/1.png"), None),
        (("insects/ant/1.png", "insects/bee/1.png", "pets/cat/1.png"), None),
    ],
    ids=[
        "wrapper",
        "wrapper, no names",
        "folds",
        "cameras",
        "sessions",
        "flat splits and more",
        "splits without a class in common",
        "groups, as many inside as classes",
    ],
)
def test_folders_in_folders_are_asked_about(tmp_path: Path, names: tuple[str, ...], model: list[str] | None) -> None:
    write_images(tmp_path, *names)
    count = 3 if "cat" in "".join(names) or "more" in "".join(names) else 2
    with pytest.raises(DataError, match=r"--labels.folder first") as caught:
        clear(tmp_path, model, count)
    assert f"--data {tmp_path}/" in str(caught.value)
    outer = [name.split("/")[0] for name in names]
    inner = [name.split("/")[-2] for name in names]
    assert sorted(map(str, clear(tmp_path, model, count, folder_label="first"))) == sorted(outer)
    assert sorted(map(str, clear(tmp_path, model, count, folder_label="last"))) == sorted(inner)


@pytest.mark.check("labels", "folders in class folders that the model names, whatever their case", "known")
def test_the_models_names_tell_which_folders_are_classes(tmp_path: Path) -> None:
    write_images(tmp_path, "Ant/day1/1.png", "bee/day1/1.png", "bee/day2/x/1.png")
    assert clear(tmp_path, ["ant", "bee"], 2) == ["Ant", "bee", "bee"]


@pytest.mark.parametrize("model", [["ant", "bee"], None])
def test_images_without_folders_have_no_labels(tmp_path: Path, model: list[str] | None) -> None:
    write_images(tmp_path, "1.png", "2.png")
    assert clear(tmp_path, model, 2) == [None, None]


def test_deep_folders_without_a_doubt_are_not_asked_about(tmp_path: Path) -> None:
    write_images(tmp_path, "ant/day1/1.png", "bee/day2/1.png", "bee/day3/1.png")
    assert clear(tmp_path, None, 2) == ["ant", "bee", "bee"]


@pytest.mark.check("labels", "splits and folders in folders inside of tars", "said")
@pytest.mark.parametrize("prefix", ["", "./"])
def test_folders_in_folders_of_tars(tmp_path: Path, prefix: str) -> None:
    path = tar_of(
        tmp_path / "t.tar",
        {f"{prefix}{name}.png": PIXELS for name in ("train/ant/0", "train/bee/1", "val/ant/2")},
    )
    assert labels_of(listed(path)) == [None] * 3
    assert "say --labels.folder last" in " ".join(listed(path).notes)
    taken = listed(path, folder_label="last")
    assert labels_of(taken) == ["ant", "bee", "ant"]
    assert taken.folders
    flat = tar_of(tmp_path / "u.tar", {f"{prefix}{name}.png": PIXELS for name in ("ant/0", "bee/1")})
    assert labels_of(listed(flat)) == ["ant", "bee"]
    shared = tar_of(tmp_path / "v.tar", {f"{prefix}{name}.png": PIXELS for name in ("a/ant/0", "a/bee/1", "b/ant/2")})
    with pytest.raises(DataError, match=r"--labels.folder last"):
        clear(shared, None, 2)
    with pytest.raises(DataError, match=r"--labels.folder last"):
        clear(shared, ["ant", "bee"], 2)


def test_a_class_called_train_beside_others_is_a_class(tmp_path: Path) -> None:
    write_images(tmp_path, "train/1.png", "bus/1.png")
    assert labels_of(listed(tmp_path)) == ["bus", "train"]


def nested_files(kind: str, there: list[str], per_class: int, mixed_case: bool) -> dict[str, str]:
    """Class by path of an image, in a layout of folders in folders."""
    files = {}
    for place, name in enumerate(there):
        for number in range(per_class):
            written = name.upper() if mixed_case and (place + number) % 3 == 0 else name
            split = ("train", "Val", "test")[number % 3]
            path = {
                "flat": f"{written}/{number}",
                "wrapper": f"images/{written}/{number}",
                "splits": f"{split}/{written}/{number}",
                "folds": f"fold{number % 2}/{written}/{number}",
                "sessions": f"{written}/day{number % 2}/{number}",
                "deep": f"data/{split}/{written}/{number}",
                "unlike": f"{written}/{written}-{place}/{number}",
            }[kind]
            files[f"{path}.png"] = name
    return files


@pytest.mark.check("labels", "generated layouts of folders in folders, and of tars: wrappers, splits, folds, sessions, mixed case (property test)", "known")  # fmt: skip
@settings(max_examples=120, deadline=None)
@given(
    kind=st.sampled_from(["flat", "wrapper", "splits", "folds", "sessions", "deep", "unlike"]),
    style=st.sampled_from(["kind{}", "class_{}", "{}"]),
    classes=st.integers(2, 12),
    missing=st.integers(0, 2),
    per_class=st.integers(1, 4),
    mixed_case=st.booleans(),
    names=st.booleans(),
    tar=st.booleans(),
    rule=st.sampled_from([None, None, "first", "last"]),
    accuracy=st.sampled_from([0.4, 1.0]),
    seed=st.integers(0, 10**6),
)
def test_no_nested_layout_is_read_wrongly_without_a_word(
    kind: str,
    style: str,
    classes: int,
    missing: int,
    per_class: int,
    mixed_case: bool,
    names: bool,
    tar: bool,
    rule: Literal["first", "last"] | None,
    accuracy: float,
    seed: int,
) -> None:
    trained = sorted(style.format(number) for number in range(classes))
    random = np.random.default_rng(seed)
    there = [trained[place] for place in sorted(random.permutation(classes)[: max(1, classes - missing)])]
    files = nested_files(kind, there, per_class, mixed_case and names)
    right_rule = rule is None or kind == "flat" or (rule == "first") == (kind in ("sessions", "unlike"))
    refusal = ""
    with TemporaryDirectory() as folder:
        place = (
            tar_of(Path(folder) / "t.tar", dict.fromkeys(files, PIXELS)) if tar else write_images(Path(folder), *files)
        )
        try:
            result = list_source(str(place), SourceOptions(folder_label=rule))
            ids = result.listing["id"].to_pylist()
            if result.folders:
                refuse_unclear_folders(ids, trained if names else None, classes, rule, str(place))
            truth = np.array(
                [trained.index(files[path_below_root(name).removesuffix(".png") + ".png"]) for name in ids]
            )
            seen = np.where(random.random(len(truth)) < accuracy, truth, random.integers(0, classes, len(truth)))
            resolved = resolve_labels(
                result.listing, trained if names else None, classes, folders=result.folders,
                predict=lambda table: (np.flatnonzero(table["label"].is_valid()), seen[np.flatnonzero(table["label"].is_valid())]),
            )  # fmt: skip
            resolved.require_labels()
        except DataError as error:
            refusal = str(error)
    if refusal:
        assert "--" in refusal, "a refusal names what to say"
        return
    assert not wrong_labels(resolved, truth.tolist()) or not right_rule, (resolved.how, sorted(files))
