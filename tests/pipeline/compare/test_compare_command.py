"""`heatlas compare`: its text, JSON, page, gate and refusals."""

from __future__ import annotations

import json
import os

import pytest
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.compare.compare import compare_runs
from heatlas.pipeline.compare.page import says_of, write_page
from heatlas.pipeline.compare.verdict import verdict_text
from PIL import Image

from ...support.compared_runs import HOSTILE, row, spot, store


def test_text_and_json(ten, capsys):
    assert main(["compare", *map(str, ten)]) == 0
    said = capsys.readouterr().out
    assert "joined by id: 9 pairs" in said
    assert "1 row only in the first (such as img-9)" in said
    assert "predictions: 1 of 8 images changed" in said
    assert "accuracy 1.0000 and 0.8750 of 8; only the first right 1, only the second 0 (McNemar p 1.0000)" in said
    assert "on average 21.4% of a map's mass lies elsewhere, at most 100.0%" in said
    assert main(["compare", *map(str, ten), "--json", "--limit", "2"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert len(result["moved"]["most"]) == 2
    assert result["predictions"]["changed"] == 1


def test_the_page_shows_it_and_holds_no_markup_of_the_data(tmp_path, capsys):
    image = tmp_path / "a.png"
    Image.new("RGB", (40, 40), "red").save(image)
    hostile = ["<script>alert(1)</script>", '"><img src=x>', "{{ 7 * 7 }}", "\u202egnp.exe", "a&b"]
    first = [row(entry, prediction=2, label=2, uri=str(image)) for entry in hostile]
    second = [row(entry, prediction=2, label=2, uri=str(image), map_=spot(20, 20)) for entry in hostile]
    second[3].prediction = second[3].target = 1
    stores = [
        store(tmp_path / f"{HOSTILE.replace('/', '')}-{name}", rows) for name, rows in (("a", first), ("b", second))
    ]
    page = tmp_path / "page.html"
    assert main(["compare", *map(str, stores), "--out", str(page)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{page}  (0.")
    text = page.read_text()
    assert "default-src &#39;none&#39;" in text
    assert text.count("<script>") == 1
    assert "<img" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "{{ 7 * 7 }}" in text
    assert "\u202e" not in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "https://" not in text
    assert (
        text.count("data:image/webp") == 4 + 4 + 4
    )  # the image, the first map and the second one of every pair that is shown
    assert text.count('class="card"') == 4
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["a.png", "page.html"]


def test_the_page_stands_without_images(ten, tmp_path):
    result = compare_runs(*ten)
    assert write_page(result, str(tmp_path / "page.html")) == os.path.getsize(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "7 images could not be shown, so the maps stand alone" in text
    assert text.count("data:image/webp") >= 7


def test_a_page_that_cannot_be_written_leaves_the_old_one(ten, tmp_path, monkeypatch):
    page = tmp_path / "page.html"
    page.write_text("old")
    monkeypatch.setattr("heatlas.pipeline.compare.page.render", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_page(compare_runs(*ten), str(page))
    assert page.read_text() == "old"


@pytest.mark.parametrize(("sign", "code"), [("<", 0), (">", 1), ("<=", 1), (">=", 1)])
def test_fail_if_is_about_the_change_from_the_first_to_the_second(ten, capsys, sign, code):
    metric = compare_runs(*ten).metrics[0]
    change = metric["second_mean"] - metric["first_mean"]
    limit = change - 0.001 if sign == ">" else change
    limit = change - 0.001 if sign == "<" else limit
    limit += {"<=": 1e-9, ">=": -1e-9}.get(sign, 0)
    assert main(["compare", *map(str, ten), "--fail-if", f"{metric['metric']} {sign} {limit!r}"]) == code
    assert ("failed: " in capsys.readouterr().out) == bool(code)


def test_fail_if_in_json_and_with_other_numbers(ten, capsys):
    assert main(["compare", *map(str, ten), "--fail-if", "changed >= 0", "distance < 0", "--json"]) == 1
    failures = json.loads(capsys.readouterr().out)["failures"]
    assert len(failures) == 1
    assert failures[0].startswith("failed: changed >= 0 holds")


@pytest.mark.parametrize(("arguments", "code", "said"), [
    (["A"], 2, "SECOND"),
    (["A", "A"], 2, "would be compared with itself"),
    (["A", "nowhere"], 2, "is not a heatlas store"),
    (["A", "B", "--limit", "0"], 2, "must be from 1 to 200, got 0"),
    (["A", "B", "--resamples", "0"], 2, "resamples must be at least 1"),
    (["A", "B", "--seed", "-1"], 2, "seed must be at least 0"),
    (["A", "B", "--metrics", "ebgp"], 2, "cannot compare 'ebgp'; did you mean 'ebpg'?"),
    (["A", "B", "--method", "rise"], 2, "has no row of the method 'rise'"),
    (["A", "B", "--out", "."], 2, "is a folder"),
    (["A", "B", "--fail-if", "ebpg"], 2, "is not NAME < NUMBER"),
    (["A", "B", "--fail-if", "ebpg = 3"], 2, "is not NAME < NUMBER"),
    (["A", "B", "--fail-if", "ebgp < 3"], 2, "has no number 'ebgp'; did you mean 'ebpg'?"),
    (["A", "B", "--out", "s4://bucket/x.html"], 2, "s4://bucket/x.html"),
    (["A", "C"], 2, "have no image in common"),
])  # fmt: skip
def test_bad_requests(ten, tmp_path, capsys, monkeypatch, arguments, code, said):
    places = {"A": str(ten[0]), "B": str(ten[1]), "C": str(tmp_path / "c")}
    if "C" in arguments:
        store(tmp_path / "c", [row("somebody else")])
    monkeypatch.chdir(tmp_path)
    assert main(["compare", *(places.get(argument, argument) for argument in arguments)]) == code
    assert said in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (dict.fromkeys(range(20), 0), "Both runs predict the same class for all 20 images."),
        ({number: 1 if number < 12 else 0 for number in range(20)}, "The first run predicts better (100 % and 40 % correct of 20 images, McNemar p 0.0005)."),
        ({number: 1 if number < 2 else 0 for number in range(20)}, "Neither run predicts better than the other beyond chance"),
    ],
)  # fmt: skip
def test_the_verdict_is_one_of_the_tests(tmp_path, second, said):
    rows = [row(f"{number:02d}", value=0.5 + number / 100) for number in range(20)]
    others = [row(f"{number:02d}", prediction=second[number], value=0.2 + number / 100) for number in range(20)]
    comparison = compare_runs(str(store(tmp_path / "a", rows)), str(store(tmp_path / "b", others)))
    assert verdict_text(comparison).startswith(said)
    # ebpg is higher in the first run (better), drop_pct too (worse)
    assert (
        "Of 2 metrics with a better end, 1 favour the first run, 1 the second, and 0 neither after correction."
        in verdict_text(comparison)
    )
    write_page(comparison, str(tmp_path / "page.html"))
    assert said[:40] in (tmp_path / "page.html").read_text("utf-8")


def test_cards_name_the_explained_class_first(tmp_path):
    """The maps are for the label, which the network does not predict."""
    first = store(tmp_path / "a", [row("x", label=1, prediction=0, target=1)], target="label")
    second = store(tmp_path / "b", [row("x", label=1, prediction=0, target=1, map_=spot(20, 20))], target="label")
    comparison = compare_runs(str(first), str(second))
    assert says_of(comparison, comparison.most[0]) == "bee; prediction ant"
    mixed = store(tmp_path / "c", [row("x", label=1, prediction=0, target=0, map_=spot(20, 20))])
    comparison = compare_runs(str(first), str(mixed))
    assert says_of(comparison, comparison.most[0]) == "bee / ant; prediction ant, label bee"
