"""From labels as written to class indices."""

from __future__ import annotations

import pyarrow as pa
import pytest
from heatlas.errors import DataError
from heatlas.pipeline.sources.listing.labels import ResolvedLabels, own_classes, resolve_labels


def resolve(labels: list[str | None], class_names: list[str] | None = None, num_classes: int = 3) -> ResolvedLabels:
    table = pa.table({"id": [str(n) for n in range(len(labels))], "label": pa.array(labels, pa.string()), "x": labels})
    resolved = resolve_labels(table, class_names, num_classes)
    assert resolved.listing.schema.names == ["id", "label", "x"]
    assert resolved.listing.schema.field("label").type == pa.int32()
    return resolved


def indices(*args, **kwargs) -> list[int | None]:
    return resolve(*args, **kwargs).listing["label"].to_pylist()


def test_integers_are_indices() -> None:
    assert indices(["0", "2", "1.0", " 1", None]) == [0, 2, 1, 1, None]


def test_integers_out_of_range_are_told() -> None:
    resolved = resolve(["0", "3", "3", "-1", None])
    assert resolved.listing["label"].to_pylist() == [0, None, None, None, None]
    assert resolved.unresolved == {"3": 2, "-1": 1}
    assert resolved.unresolved_rows == 3
    assert resolved.warning() == (
        "3 of 5 samples have a label that names no single class of the model: 3 outside of the model's class indices 0 to 2 "
        "('3', '-1'); write class indices from 0 or the model's class names"
    )


def test_exact_names_come_first() -> None:
    assert indices(["cat", "Cat", "CAT"], ["cat", "Cat", "dog"]) == [0, 1, None]
    assert indices(["1", "2", "3"], ["1", "2", "3"]) == [0, 1, 2]


@pytest.mark.check("labels", "names in another case, with `_`, with synonyms", "known")
def test_case_spaces_and_synonyms() -> None:
    names = ["cash machine, cash dispenser, ATM", "great white shark", "crane"]
    assert indices(["Cash_Machine", "atm", "GREAT  white shark", "lorry, crane"], names) == [0, 0, 1, 2]


def test_short_names_of_a_model_meet_long_names_of_a_data_set() -> None:
    names = ["harp", "harmonica", "partridge"]
    labels = ["harmonica, mouth organ, harp, mouth harp", "quail, partridge", "drum, kettledrum"]
    resolved = resolve(labels, names)
    assert resolved.listing["label"].to_pylist() == [1, 2, None]
    assert resolved.unresolved == {"drum, kettledrum": 1}


@pytest.mark.check("labels", "a name that two classes share", "refused")
def test_names_that_two_classes_share_are_not_guessed() -> None:
    resolved = resolve(["crane", "dog"], ["crane", "crane", "dog"])
    assert resolved.listing["label"].to_pylist() == [None, 2]
    assert resolved.unresolved == {"crane": 1}


def test_as_many_folders_as_classes_are_numbered_like_imagefolder() -> None:
    resolved = resolve(["n03", "n01", "n02", "n01"])
    assert resolved.listing["label"].to_pylist() == [2, 0, 1, 0]
    assert resolved.class_names == ("n01", "n02", "n03")
    assert resolved.warning() is None
    named = resolve(["n03", "n01", "n02"], ["tench", "goldfish", "shark"])
    assert named.listing["label"].to_pylist() == [2, 0, 1]
    assert named.class_names == ("tench", "goldfish", "shark")


def test_fewer_folders_than_classes_are_not_numbered() -> None:
    resolved = resolve(["n03", "n01"])
    assert resolved.listing["label"].to_pylist() == [None, None]
    assert resolved.class_names is None


def test_one_known_name_forbids_numbering() -> None:
    assert indices(["dog", "n01", "n02"], ["cat", "cow", "dog"]) == [2, None, None]


def test_no_labels_at_all() -> None:
    resolved = resolve([None, None])
    assert resolved.listing["label"].to_pylist() == [None, None]
    assert resolved.warning() is None


def test_many_unresolved_labels_are_counted_not_listed() -> None:
    text = resolve([f"x{n}" for n in range(20)]).warning()
    assert text is not None
    assert "('x0', 'x1', 'x10', 'x11', 'x12' and 15 more)" in text


def test_a_label_of_hundreds_of_digits_is_no_class_and_not_shown_whole() -> None:
    resolved = resolve(["9" * 400, "1"], num_classes=3)
    assert resolved.listing["label"].to_pylist() == [None, 1]
    assert f"('{'9' * 37}...')" in str(resolved.warning())


def test_chunked_labels() -> None:
    column = pa.chunked_array([["b", "a"], ["c", "b"]])
    table = pa.table({"id": pa.chunked_array([["0", "1", "2", "3"]]), "label": column})
    assert resolve_labels(table, None, 3).listing["label"].to_pylist() == [1, 0, 2, 1]


@pytest.mark.parametrize(
    ("labels", "source", "classes"),
    [
        (["cat", "ant", "cat"], None, (("ant", "cat"), 2)),
        (["3", " 1 ", "0.0"], None, (None, 4)),
        (["-1"], None, (None, 0)),
        (["3", "three"], None, (("3", "three"), 2)),
        (["cat"], ("dog", "cat", "ant"), (("dog", "cat", "ant"), 3)),
        ([], None, ((), 0)),
    ],
)
def test_classes_of_a_data_set_without_a_model(
    labels: list[str], source: tuple[str, ...] | None, classes: tuple
) -> None:
    assert own_classes(labels, source) == classes


@pytest.mark.check("labels", "more than 1 % of the labels name no class", "asked")
def test_labels_of_which_too_many_name_no_class_are_refused_with_the_remedy() -> None:
    table = ["ant"] * 98 + ["wasp", "ant,bee"]
    resolved = resolve(table, ["ant", "bee", "cat"])
    assert resolved.reasons == {"naming no class": 1, "naming several classes": 1}
    with pytest.raises(DataError, match="--allow-unlabelled"):
        resolved.require_labels()
    resolve(["ant"] * 99 + ["wasp"], ["ant", "bee", "cat"]).require_labels()  # 1 % is let through, with a note
