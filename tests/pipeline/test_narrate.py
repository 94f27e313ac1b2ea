"""Texts about rows and classes: every number and name is the row's, in every language, and what a hook invents is not taken."""

from __future__ import annotations

import re
from pathlib import Path

import heatlas
import numpy as np
import pyarrow.parquet as pq
import pytest
from heatlas.errors import UsageError
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.narrate.facts import Facts
from heatlas.pipeline.narrate.facts_of_rows import ninths, row_facts
from heatlas.pipeline.narrate.grounding import checkable_names, ungrounded_parts
from heatlas.pipeline.narrate.labelled_parts import part_shares, read_parts
from heatlas.pipeline.narrate.narrate import narrate_store
from heatlas.pipeline.narrate.templates import LANGUAGES, load_language, parse_language
from hypothesis import given
from hypothesis import strategies as st

from ..support.reported_store import CLASSES, write_reported

NAMES = ("ant", "bee 2", "big bee 2", "class-3")
FACTS = Facts(
    {"confidence": 0.9731, "on_object": 0.0412, "drop": 0.0},
    {"images": 120},
    {"prediction": "bee 2", "label": "class-3"},
    conditions=frozenset({"ok"}),
)
EN, DE = load_language("en"), load_language("de")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("narrate")
    return write_reported(folder / "out", folder / "images", 60, both=True)


@pytest.mark.parametrize(
    "text",
    [
        "bee 2 with 97.3 %, labelled class-3; 4.12 % on the object; it falls by 0 %.",
        "BEE 2: 0.973 of 120 images",
        "97 percent, 4.1 per cent",
        "+97.3 %",
    ],
)
def test_what_the_row_says_is_grounded(text: str) -> None:
    assert ungrounded_parts(text, FACTS, NAMES, EN) == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("98.9 %", ["98.9 %"]),
        ("0.5", ["0.5"]),
        ("121 images", ["121"]),
        ("120 %", ["120 %"]),
        ("-97.3 %", ["-97.3 %"]),
        ("an ant", ["ant"]),
        ("a big bee 2", ["big bee 2"]),
        ("two of them", ["two"]),
        ("3x as much", ["3x"]),
        ("1,200 images", ["1,200"]),
        ("97.3e1", ["97.3e1"]),
        ("", ["no text"]),
        ("x" * 5000, ["5000 characters"]),
    ],
)
def test_what_it_does_not_say_is_named(text: str, wrong: list[str]) -> None:
    assert ungrounded_parts(text, FACTS, NAMES, EN) == wrong


def test_a_decimal_comma_belongs_to_its_language() -> None:
    assert ungrounded_parts("97,3 %", FACTS, NAMES, DE) == []
    assert ungrounded_parts("97.3 %", FACTS, NAMES, DE) == ["97.3 %"]
    assert ungrounded_parts("97,3 %", FACTS, NAMES, EN) == ["97,3 %"]


@given(st.floats(0, 1, allow_nan=False))
def test_every_share_is_written_within_the_tolerance(share: float) -> None:
    facts = Facts({"confidence": share})
    for language in (EN, DE):
        assert ungrounded_parts(language.percent(share), facts, (), language) == [] or share < 1e-8


@given(st.floats(0.01, 1), st.floats(0.01, 1))
def test_another_share_is_never_taken_for_it(share: float, other: float) -> None:
    if abs(share - other) > 0.03 * max(share, other):
        assert ungrounded_parts(EN.percent(other), Facts({"confidence": share}), (), EN)


def test_ninths_are_the_mass_of_equal_parts() -> None:
    maps = np.random.default_rng(0).random((4, 6, 9))
    blocks = maps.reshape(4, 3, 2, 3, 3).sum(axis=(2, 4))
    np.testing.assert_allclose(ninths(maps), blocks / blocks.sum(axis=(1, 2), keepdims=True), rtol=1e-6)
    uneven = ninths(np.ones((1, 7, 8)))
    np.testing.assert_allclose(uneven, np.full((1, 3, 3), 1 / 9), rtol=1e-6)
    assert not ninths(np.zeros((1, 5, 5))).any()


def test_facts_by_hand() -> None:
    row = {
        "prediction": 0, "target": 0, "label": 1, "confidence": 0.6, "status": "ok", "label_confidence": 0.3, "ebpg": 0.05, "drop_pct": 12.0,
        "top_k": [{"index": 0, "name": "ant", "confidence": 0.6}, {"index": 1, "name": "bee 2", "confidence": 0.3}],
    }  # fmt: skip
    grid = np.zeros((3, 3))
    grid[2, 0], grid[0, 0] = 0.7, 0.3
    facts = row_facts(row, grid, NAMES, 0.1)
    text = EN.row_text(facts)
    for part in ("predicts ant with a confidence of 60 %", "The label is bee 2, to which it gives 30 %", "in the lower left (70 %) and in the upper left (30 %)",
                 "5 % of the map lies on the marked object, where a random map has 10 %", "falls by 12 %", "the next class, bee 2, has 30 %"):  # fmt: skip
        assert part in text
    assert "not because of the object" not in text  # the prediction is wrong
    assert "not because of the object" in EN.row_text(row_facts({**row, "label": 0}, grid, NAMES, 0.1))
    assert "spread over the image" in EN.row_text(row_facts(row, np.full((3, 3), 1 / 9), NAMES, None))
    overlapping = row_facts(row, grid, NAMES, 0.1, are_exclusive=False)
    assert "hesitates" not in EN.row_text(overlapping), "several classes may have much confidence at once"
    for language in (EN, DE):
        for agreement, outside, parts in ((0.7, 0.25, 2), (0.1, 0.05, 1), (0.4, None, 0)):
            more = {**row, "layer_agreement": agreement, "outside_context": outside}
            before, after = (language.row_text(row_facts(each, grid, NAMES, 0.1)) for each in (row, more))
            assert after.count(". ") - before.count(". ") == parts
            assert ungrounded_parts(after, row_facts(more, grid, NAMES, 0.1), NAMES, language) == []
    assert "25 % of the map lies where the model sees other classes" in EN.row_text(
        row_facts({**row, "outside_context": 0.25}, grid, NAMES, 0.1)
    )
    failed = EN.row_text(
        row_facts(
            {**row, "status": "decode_error", "error": "byte 7", "prediction": None, "target": None}, None, NAMES, None
        )
    )
    assert failed == "There is no map (decode_error): byte 7"


@pytest.mark.parametrize("language", sorted(path.stem for path in LANGUAGES.glob("*.toml")))
def test_all_rows_and_classes_are_told_in_every_language(store: Path, language: str) -> None:
    written = narrate_store(store, language=language)
    assert written.statuses() == {"template": len(heatlas.open(str(store)))}
    assert len(written.classes) == len(CLASSES)
    assert set(written.rows["language"].to_pylist()) == {language}
    assert pq.read_table(store / "narration" / "rows.parquet").equals(written.rows)
    texts = {(row["id"], row["target"]): row["text"] for row in written.rows.to_pylist()}
    for row in heatlas.open(str(store)).table(["id", "target", "confidence", "status", "ebpg"]).to_pylist():
        text = texts[row["id"], row["target"]]
        if row["status"] == "ok":
            assert load_language(language).percent(row["confidence"]) in text
            assert load_language(language).percent(row["ebpg"]) in text
        else:
            assert "decode_error" in text


def test_every_language_knows_the_same_conditions_and_placeholders() -> None:
    english = [
        (sentence.when, sentence.unless, sorted(re.findall(r"{(\w+)}", sentence.text)))
        for sentence in (*EN.row, *EN.label)
    ]
    for path in LANGUAGES.glob("*.toml"):
        other = load_language(path.stem)
        assert [
            (sentence.when, sentence.unless, sorted(re.findall(r"{(\w+)}", sentence.text)))
            for sentence in (*other.row, *other.label)
        ] == english


def test_a_hook_is_taken_where_it_is_grounded_and_replaced_where_it_is_not(store: Path) -> None:
    seen: list[bytes | None] = []
    answers = iter(
        [
            lambda prompt: "Nothing but words.",
            lambda prompt: "It is 50 years old.",
            lambda prompt: 7,
            lambda prompt: 1 / 0,
        ]
    )

    def hook(prompt: str, picture: bytes | None) -> str:
        seen.append(picture)
        return next(answers)(prompt)

    ids = [f"image-{number:04d}" for number in (10, 12, 16, 18)]
    written = narrate_store(store, ids=ids, vlm=hook)
    rows = {row["id"]: row for row in written.rows.to_pylist()}
    assert len(rows) == len(written.rows) == 4
    first, second, third, fourth = (rows[identity] for identity in sorted(ids))
    assert (first["narration_status"], first["text"]) == ("grounded", "Nothing but words.")
    assert (second["narration_status"], second["ungrounded"]) == ("ungrounded", ["50"])
    assert second["text"].startswith("The model predicts")
    assert second["answer"] == "It is 50 years old."
    assert len(second["answer_sha256"]) == len(second["prompt_sha256"]) == 64
    assert "confidence" in second["prompt"]
    assert (third["narration_status"], fourth["narration_status"]) == ("hook_failed", "hook_failed")
    assert "ZeroDivisionError" in fourth["ungrounded"][0]
    assert all(picture is not None and picture.startswith(b"\x89PNG") for picture in seen)


def test_texts_are_templates_unless_a_hook_is_named(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["narrate", str(store), "--limit", "20"]) == 0
    printed = capsys.readouterr().out
    assert "narration: " in printed
    assert "20 template" in printed or "template)" in printed
    rows = pq.read_table(store / "narration" / "rows.parquet")
    assert len(set(rows["id"].to_pylist())) == 20
    assert rows["prompt"].null_count == len(rows)
    assert "\x1b" not in printed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("{explained}", "{explained.__class__}"), "a placeholder is a name in braces"),
        (lambda text: text.replace("{explained}", "{explained!r}"), "a placeholder is a name in braces"),
        (lambda text: text.replace("{explained}", "{0}"), "a placeholder is a name in braces"),
        (lambda text: text.replace("{explained}", "{"), "--language file"),
        (lambda text: text.replace("upper_left", "elsewhere"), "places.upper_left"),
        (lambda text: text.replace("[[class]]", "[[other]]"), "no [[class]]"),
        (lambda text: text.replace('decimal = "."', 'decimal = "x"'), "decimal must be"),
        (lambda text: "[[", "no TOML"),
        (
            lambda text: text.replace("{explained}", "{explaned}"),
            "'explaned', which no [[row]] has; did you mean 'explained'?",
        ),
        (lambda text: text.replace("{name}", "{prediction}"), "'prediction', which no [[class]] has"),
        (
            lambda text: text.replace('["focused", "two_places"]', '["focussed"]'),
            "no condition 'focussed' of a [[row]]; did you mean 'focused'?",
        ),
        (
            lambda text: text.replace('["focused", "two_places"]', '"focused"'),
            "when must be a list of conditions, got 'focused'",
        ),
    ],
)
def test_a_language_file_that_is_wrong_is_refused(change, message: str) -> None:
    text = (LANGUAGES / "en.toml").read_text("utf-8")
    with pytest.raises(UsageError, match=re.escape(message)):
        parse_language(change(text).encode(), "file")


def test_a_language_file_cannot_invent_numbers(store: Path, tmp_path: Path) -> None:
    text = (LANGUAGES / "en.toml").read_text("utf-8")
    path = tmp_path / "own.toml"
    path.write_text(text.replace("That is the label.", "That is the label in 99 of 100 cases."), "utf-8")
    with pytest.raises(UsageError, match="says '99', which is no fact"):
        narrate_store(store, language=str(path))
    path.write_text(text.replace("That is the label.", "Label and prediction agree."), "utf-8")
    assert any("agree" in text for text in narrate_store(store, language=str(path), limit=9).rows["text"].to_pylist())


def test_a_language_file_without_a_sentence_for_some_rows_is_told_which(store: Path, tmp_path: Path) -> None:
    text = (LANGUAGES / "en.toml").read_text("utf-8")
    path = tmp_path / "own.toml"
    path.write_text(text.replace('when = ["failed"]', 'when = ["ok", "failed"]'), "utf-8")
    with pytest.raises(UsageError, match=r"has no sentence for a row .* of which this holds: failed"):
        narrate_store(store, language=str(path))


def test_words_of_a_language_are_no_class_names_in_its_own_sentences(store: Path) -> None:
    names = ("object", "Right", "octagon", "in the centre", "obj")
    assert checkable_names(names, EN) == ("octagon", "obj")
    own = parse_language((LANGUAGES / "en.toml").read_bytes(), "own.toml")
    assert checkable_names(names, own) == names, "a file of the user's may mean the class"
    ids = sorted(set(heatlas.open(str(store)).table(["id"], "status = 'ok'")["id"].to_pylist()))[:6]
    written = narrate_store(store, ids=ids, parts={ids[0]: {"map": (0, 0, 1, 1)}})
    assert "lies on the map." in next(row["text"] for row in written.rows.to_pylist() if row["id"] == ids[0])
    assert set(written.rows["id"].to_pylist()) == set(ids)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"language": "eng"}, "choose de, en"),
        ({"language": "nowhere.toml"}, "cannot read --language"),
        ({"limit": 0}, "at least 1 row"),
        ({"ids": ["nobody"]}, "such as 'nobody'"),
        ({"vlm": "nothing"}, "package.module:callable"),
        ({"parts": {"photos/nobody.png": {"eye": (0, 0, 1, 1)}}}, "none of the 1 images in --parts is in"),
    ],
)
def test_what_cannot_be_done_is_refused(store: Path, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        narrate_store(store, **options)


def test_objects_and_the_class_that_explains_are_told() -> None:
    row = {
        "prediction": 0, "target": 0, "label": None, "confidence": 0.6, "status": "ok", "object_id": "002", "height": 30, "width": 60,
        "box": {"x0": 45.0, "y0": 2.0, "x1": 55.0, "y1": 8.0}, "outside_context": 0.3, "context_class": 3.0, "context_share": 0.21,
    }  # fmt: skip
    facts = row_facts(row, None, NAMES, None)
    text = EN.row_text(facts)
    assert "This is about object 2 of its class, which lies in the upper right." in text
    assert "Most of that, 21 % of the map, lies on class-3." in text
    assert ungrounded_parts(text, facts, NAMES, EN) == []
    assert ungrounded_parts("object 3", facts, NAMES, EN) == ["3"]
    assert "object 2 of its class." in EN.row_text(row_facts({**row, "box": None}, None, NAMES, None))
    for more in ({"object_id": "more"}, {"object_id": None}):
        assert "object" not in EN.row_text(row_facts({**row, **more}, None, NAMES, None))


def test_shares_of_labelled_parts_are_those_of_many_points() -> None:
    random = np.random.default_rng(0)
    map_ = random.random((5, 7))
    boxes = {"a": (0.1, 0.2, 0.55, 0.9), "b": (0.0, 0.0, 1.0, 1.0), "c": (0.95, 0.95, 1.0, 1.0)}
    shares = part_shares(map_, boxes)
    points = random.random((200_000, 2))
    values = map_[(points[:, 1] * 5).astype(int), (points[:, 0] * 7).astype(int)]
    for name, (x0, y0, x1, y1) in boxes.items():
        inside = (points >= (x0, y0)).all(axis=1) & (points <= (x1, y1)).all(axis=1)
        assert shares[name] == pytest.approx(values[inside].sum() / values.sum(), abs=0.01)
    assert part_shares(np.zeros((3, 3)), boxes) == {}


def test_labelled_parts_are_told_and_grounded(store: Path, tmp_path: Path) -> None:
    import json

    ids = sorted(set(heatlas.open(str(store)).table(["id"], "status = 'ok'")["id"].to_pylist()))[:6]
    path = tmp_path / "parts.json"
    halves = {"beak": [0, 0, 0.5, 1], "wing": [0.5, 0, 1, 1]}
    path.write_text(json.dumps({ids[0]: halves, ids[1]: {"eye": [0.5, 0.5]}, "nobody": halves}))
    for language in ("en", "de"):
        written = narrate_store(store, ids=ids, parts=path, language=language)
        texts = {row["id"]: row["text"] for row in written.rows.to_pylist()}
        assert "beak" in texts[ids[0]] or "wing" in texts[ids[0]]
        assert "beak" not in texts[ids[2]]
        assert written.unknown_parts == 1
    answers = iter(["It looks at the wing and at the beak.", "It looks at its beak."])
    written = narrate_store(store, ids=ids[:1], parts={ids[0]: {"beak": (0, 0, 0.9, 1)}, ids[1]: {"wing": (0, 0, 1, 1)}},
                            vlm=lambda prompt, picture: next(answers))  # fmt: skip
    assert written.rows["ungrounded"].to_pylist()[0] == ["wing"], "a part of another image"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "must be an object of images"),
        ('{"a": [1]}', "must be an object of images"),
        ("{", "is no JSON"),
        ('{"a": {"beak": [0.5]}}', "'beak' of 'a' must be"),
        ('{"a": {"beak": [0.5, 1.5]}}', "got [0.5, 1.5]"),
        ('{"a": {"beak": [0.5, 0.5, 0.4, 0.9]}}', "x0 < x1"),
        ('{"a": {"beak": [NaN, 0.5]}}', "all in [0, 1]"),
        ('{"a": {"beak": [true, 0.5]}}', "all in [0, 1]"),
        ("[" * 100_000, "is no JSON"),
    ],
)
def test_a_file_of_parts_that_is_wrong_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "parts.json").write_text(content)
    with pytest.raises(UsageError, match=re.escape(message)):
        read_parts(str(tmp_path / "parts.json"))
    with pytest.raises(UsageError, match="cannot read --parts"):
        read_parts(str(tmp_path / "none.json"))
