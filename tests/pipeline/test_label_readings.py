"""Which label is which class: every layout that a training may have had is read right, asked about, or said to be taken by custom."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from heatlas.errors import DataError
from heatlas.pipeline.sources.listing.label_choice import Predicted, choose_reading
from heatlas.pipeline.sources.listing.label_readings import LabelReading, LabelRules, natural_key, possible_readings
from heatlas.pipeline.sources.listing.labels import ResolvedLabels, resolve_labels
from hypothesis import given, settings
from hypothesis import strategies as st

from ..support.listings import wrong_labels

PHOTOS = 33


def resolve(
    written: list[str],
    trained: list[str],
    *,
    folders: bool = True,
    names: bool = False,
    rules: LabelRules = LabelRules(),  # noqa: B008
    accuracy: float = 0.9,
    seed: int = 0,
) -> tuple[ResolvedLabels, list[int]]:
    """Resolve labels of a network whose classes are `trained`, in that order, and which is right with that accuracy."""
    truth = np.array([trained.index(label) for label in written])
    random = np.random.default_rng(seed)
    seen = np.where(random.random(len(truth)) < accuracy, truth, random.integers(0, len(trained), len(truth)))
    table = pa.table({"id": [str(n) for n in range(len(written))], "label": pa.array(written, pa.string())})
    resolved = resolve_labels(
        table,
        trained if names else None,
        len(trained),
        rules=rules,
        folders=folders,
        predict=lambda listing: (np.arange(len(listing)), seen),
    )
    return resolved, truth.tolist()


def spread(labels: list[str], count: int = PHOTOS) -> list[str]:
    return [labels[place % len(labels)] for place in range(count)]


def test_natural_order_is_timms() -> None:
    timm = pytest.importorskip("timm.data.readers.reader_image_folder")
    names = ["class_10", "Class_2", "class_1", "a10b", "A9b", "b", "12", "7"]
    assert sorted(names, key=natural_key) == sorted(
        names,
        key=lambda name: [(0, part, "") if isinstance(part, int) else (1, 0, part) for part in timm.natural_key(name)],
    )


@pytest.mark.check("labels", "folders `1` to `12` or `0` to `11`, in the order of texts or of numbers", "known")
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("order", ["imagefolder", "numeric"])
def test_numbered_folders_are_told_apart_by_the_predictions(first: int, order: str) -> None:
    folders = [str(number) for number in range(first, first + 12)]
    trained = sorted(folders) if order == "imagefolder" else folders
    resolved, truth = resolve(spread(folders), trained)
    assert resolved.listing["label"].to_pylist() == truth
    assert "explains the predictions of" in resolved.how


@pytest.mark.check("labels", "folders `class_1` to `class_12` in ImageFolder order or timm's natural order", "known")
@pytest.mark.parametrize("order", ["imagefolder", "natural"])
def test_numbered_names_are_told_apart_by_the_predictions(order: str) -> None:
    folders = [f"class_{number}" for number in range(1, 13)]
    trained = sorted(folders, key=natural_key if order == "natural" else str)
    resolved, truth = resolve(spread(folders), trained)
    assert resolved.listing["label"].to_pylist() == truth
    assert resolved.class_names == tuple(trained)


@pytest.mark.check("labels", "several orders are possible and too few images tell which", "asked")
def test_too_few_images_to_tell_are_refused_with_the_choices_and_taken_when_said() -> None:
    folders = [f"class_{number}" for number in range(1, 13)]
    trained = sorted(folders, key=natural_key)
    with pytest.raises(DataError) as caught:
        resolve(folders[:10] + folders[10:], trained, accuracy=0.0)
    for choice in ("--labels.order imagefolder", "--labels.order natural", "--labels.order file:PATH"):
        assert choice in str(caught.value)
    for rules in (LabelRules("natural"), LabelRules("file", names=tuple(trained))):
        resolved, truth = resolve(folders, trained, accuracy=0.0, rules=rules)
        assert resolved.listing["label"].to_pylist() == truth


@pytest.mark.check("labels", "numbers that begin at 1", "known")
def test_written_numbers_begin_at_0_or_1() -> None:
    from_one = [str(number) for number in range(1, 13)]
    assert resolve(spread(from_one), from_one, folders=False)[0].listing["label"].to_pylist()[:3] == [0, 1, 2]
    inner = from_one[:-1]  # neither 0 nor 12 is there
    resolved, truth = resolve(spread(inner), from_one, folders=False)
    assert resolved.listing["label"].to_pylist() == truth
    with pytest.raises(DataError, match=r"--labels.base 0.*--labels.base 1"):
        resolve(spread(inner), from_one, folders=False, accuracy=0.0)
    resolved, truth = resolve(spread(inner), from_one, folders=False, accuracy=0.0, rules=LabelRules(base=1))
    assert resolved.listing["label"].to_pylist() == truth


@pytest.mark.check("labels", "a few numbers of many classes, which fit base 0 and base 1", "said")
def test_a_few_indices_of_many_classes_begin_at_0_by_custom_and_that_is_said() -> None:
    trained = [str(number) for number in range(1000)]
    resolved, truth = resolve(["3", "17"], trained, folders=False)
    assert resolved.listing["label"].to_pylist() == truth == [3, 17]
    assert "as is customary" in resolved.how


@pytest.mark.check("labels", "names that are none of the model's", "asked")
def test_names_that_are_none_of_the_models_need_predictions_better_than_chance() -> None:
    german = ["Ameise", "Biene", "Katze", "Hund"]
    table = pa.table({"id": ["0"] * 40, "label": pa.array(spread(["ant", "bee", "cat", "dog"], 40), pa.string())})

    def against(predictions: np.ndarray) -> ResolvedLabels:
        return resolve_labels(table, german, 4, folders=True, predict=lambda listing: (np.arange(40), predictions))

    assert against(np.arange(40) % 4).listing["label"].to_pylist()[:4] == [0, 1, 2, 3]
    with pytest.raises(DataError, match="none of the labels is one of the model's class names"):
        against((np.arange(40) // 4) % 4)


def shuffled_training(classes: int, accuracy: float, seed: int, orders: tuple = (), images: int = 60) -> ResolvedLabels:
    """Labels by name of a model without names, which was trained with its classes in an order of its own."""
    names = [f"kind {letter}" for letter in "abcdefghijkl"[:classes]]
    random = np.random.default_rng(seed)
    trained = names[1:] + names[:1]
    written = spread(names, images)
    truth = np.array([trained.index(label) for label in written])
    seen = np.where(random.random(images) < accuracy, truth, random.integers(0, classes, images))
    table = pa.table({"label": pa.array(written, pa.string())})
    return resolve_labels(
        table, None, classes, orders, folders=not orders, predict=lambda listing: (np.arange(images), seen)
    )


@pytest.mark.check("labels", "names whose alphabetical order, or the data set's own, is not that of a model without names", "asked")  # fmt: skip
@pytest.mark.parametrize("own_order", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 8])
def test_an_order_that_the_predictions_contradict_is_refused(classes: int, own_order: bool) -> None:
    orders = (tuple(f"kind {letter}" for letter in "abcdefghijkl"[:classes]),) if own_order else ()
    with pytest.raises(DataError, match=r"another order of the classes explains .*--labels.order file:PATH"):
        shuffled_training(classes, 1.0, 0, orders)
    assert "so check it" in shuffled_training(classes, 0.75, 1, orders, images=120).how


def test_numbered_folders_of_which_all_orders_agree_are_held_against_the_predictions_too() -> None:
    table = pa.table({"label": pa.array(spread(["1", "2", "3"], 60), pa.string())})
    right = np.arange(60) % 3

    def read(seen: np.ndarray) -> ResolvedLabels:
        return resolve_labels(table, None, 3, folders=True, predict=lambda listing: (np.arange(60), seen))

    assert "explains the predictions of 60 of 60" in read(right).how
    with pytest.raises(DataError, match="another order of the classes explains 60"):
        read((right + 1) % 3)


@pytest.mark.parametrize("classes", [3, 12])
def test_predictions_that_tell_nothing_contradict_no_order(classes: int) -> None:
    """Of many classes some order fits every half of the images well by chance, and the other half badly."""
    for seed in range(5):
        how = shuffled_training(classes, 0.0, seed).how
        assert "which explains the predictions of" in how
        assert "another order" not in how


@pytest.mark.parametrize(("alike", "decided"), [(170, False), (150, True)])
def test_a_reading_must_lead_by_20_points(alike: int, decided: bool) -> None:
    """Of 200 images the readings differ in 30, which is beyond chance and no lead, or in 50."""
    readings = [
        LabelReading(("one order",), ("--labels.order imagefolder",), (0, 1, 2)),
        LabelReading(("another",), ("--labels.order natural",), (0, 2, 1)),
    ]
    labels = np.repeat([0, 1], [alike, 200 - alike])
    if decided:
        assert choose_reading(readings, lambda: Predicted(labels, labels))[0] is readings[0]
    else:
        with pytest.raises(DataError, match="do not tell which holds"):
            choose_reading(readings, lambda: Predicted(labels, labels))


def test_a_model_that_predicts_one_class_contradicts_no_order() -> None:
    names = ["ant", "bee", "cat"] * 20
    table = pa.table({"label": pa.array(names, pa.string())})
    constant = resolve_labels(table, None, 3, folders=True, predict=lambda listing: (np.arange(60), np.ones(60, int)))
    assert constant.how.endswith("which explains the predictions of 20 of 60 labelled images")


@pytest.mark.check("labels", "`labels.order` or `labels.base` that the labels contradict", "refused")
@pytest.mark.parametrize(
    ("rules", "text"),
    [
        (LabelRules("model"), "needs a model that names its classes"),
        (LabelRules("imagefolder"), "2 different ones for 3 classes"),
        (LabelRules("file", names=("a",)), "has 1 class names, the model has 3"),
        (LabelRules(base=1), "is for labels that are whole numbers"),
    ],
)
def test_what_is_said_and_does_not_fit_is_refused(rules: LabelRules, text: str) -> None:
    with pytest.raises(DataError, match=text):
        possible_readings(["b", "a"], None, 3, rules=rules)


@pytest.mark.check("labels", "WordNet ids (`n01440764`)", "known")
def test_wordnet_ids_of_some_classes_are_known() -> None:
    pytest.importorskip("timm")
    resolved = resolve_labels(pa.table({"label": ["n02102040", "n01440764", "n03888257"]}), None, 1000, folders=True)
    assert resolved.listing["label"].to_pylist() == [217, 0, 701], "English springer, tench, parachute"


@pytest.mark.check("labels", "generated layouts: order, base, names, missing classes (property test)", "known")
@settings(max_examples=150, deadline=None)
@given(
    style=st.sampled_from(["{}", "{:02d}", "class_{}", "c{:03d}", "Kind {}"]),
    first=st.sampled_from([0, 1]),
    classes=st.integers(2, 25),
    order=st.sampled_from(["imagefolder", "natural"]),
    missing=st.integers(0, 3),
    folders=st.booleans(),
    names=st.booleans(),
    images=st.integers(5, 120),
    accuracy=st.sampled_from([0.3, 0.7, 1.0]),
    seed=st.integers(0, 10**6),
)
def test_no_layout_is_read_wrongly_without_a_word(
    style: str,
    first: int,
    classes: int,
    order: str,
    missing: int,
    folders: bool,
    names: bool,
    images: int,
    accuracy: float,
    seed: int,
) -> None:
    every = [style.format(number) for number in range(first, first + classes)]
    written_as_indices = not folders and style in (
        "{}",
        "{:02d}",
    )  # in a manifest a number is an index, whatever its spelling
    trained = every if written_as_indices else sorted(every, key=natural_key if order == "natural" else str)
    random = np.random.default_rng(seed)
    there = [every[place] for place in random.permutation(classes)[: max(1, classes - missing)]]
    written = [there[place] for place in random.integers(0, len(there), images)]
    refusal = ""
    try:
        resolved, truth = resolve(written, trained, folders=folders, names=names, accuracy=accuracy, seed=seed)
        resolved.require_labels()
    except DataError as error:
        refusal = str(error)
    if refusal:
        assert "--" in refusal, "a refusal names what to say"
        return
    assert not wrong_labels(resolved, truth) or "as is customary" in resolved.how, (resolved.how, written, trained)
