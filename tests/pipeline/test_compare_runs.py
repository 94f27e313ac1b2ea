"""`heatlas compare`: who is paired with whom, what is counted, how far maps moved, and a page that nothing in the data can break."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import heatlas
import numpy as np
import pytest
from heatlas.errors import StorageError, UsageError
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.compare import movement as movement_module
from heatlas.pipeline.compare.compare import compare_runs
from heatlas.pipeline.compare.movement import MapReader, centres, shares
from heatlas.pipeline.compare.page import says_of, write_page
from heatlas.pipeline.compare.predictions import mcnemar
from heatlas.pipeline.compare.text import comparison_text
from heatlas.pipeline.compare.verdict import verdict_text
from heatlas.pipeline.settings.load import load_settings
from heatlas.pipeline.settings.run import describe
from heatlas.pipeline.shards import plan_shards
from heatlas.pipeline.store.parquet_sink import ParquetSink
from heatlas.pipeline.store.run_file import claim_run
from heatlas.pipeline.store.schema import StoreLayout
from heatlas.workers.images.preprocess import Preprocess
from heatlas.workers.samples import Row, Sample
from PIL import Image

HOSTILE = "<img src=x onerror=alert(1)>"
NAMES = ("ant", "bee", HOSTILE)
SIZE = (28, 28)


def spot(row: int, column: int) -> np.ndarray:
    """A map with a 4x4 block, which is 2x2 of the 14x14 that are compared."""
    map_ = np.zeros(SIZE, np.float32)
    map_[row : row + 4, column : column + 4] = 1
    return map_


def row(identity: str, *, label: int | None = 0, prediction: int = 0, target: int | None = None, map_: np.ndarray | None = None,
        score: float = 0.9, value: float = 0.5, uri: str = "/x.png") -> Row:  # fmt: skip
    return Row(Sample(identity, uri, label), "ok", None, 28, 28, prediction, prediction if target is None else target, score, 1.0,
               spot(0, 0) if map_ is None else map_, {"ebpg": value, "drop_pct": 10 * value})  # fmt: skip


def store(out: Path, rows: list[Row], *, shard_size: int = 4, method: str = "sise", target: str = "predicted", backwards: bool = False,
          map_size: int | str = "input", with_map: bool = True, definition: str = "ebpg/v1", names=NAMES) -> Path:  # fmt: skip
    settings = describe(load_settings({"model": "tiny:model", "data": "photos", "out": str(out), "target": target}))
    claim_run(
        str(out), {"plan": {"samples": 1}, "preprocess": asdict(Preprocess(size=SIZE)), "method": method}, settings
    )
    layout = StoreLayout(
        SIZE, method=method, metrics=("ebpg", "drop_pct"), map_size=map_size, with_map=with_map, with_png=False,
        metadata={"class_names": list(names), "metrics": {
            "ebpg": {"definition": definition, "unit": "1", "better": "higher"},
            "drop_pct": {"definition": "drop_pct/v1", "unit": "%", "better": "lower"}}},
    )  # fmt: skip
    shards = plan_shards(len(rows), shard_size)
    for shard in shards:
        some = rows[::-1] if backwards else rows
        assert ParquetSink(str(out), layout).commit(shard, some[shard.start : shard.stop])
    return out


@pytest.fixture
def ten(tmp_path) -> tuple[Path, Path]:
    """Ten images: image 0 moved wholly, 1 by half, 2 changed its prediction, 3 failed in the second run, 9 is in the first only."""
    first = [row(f"img-{n}", label=n % 3, prediction=n % 3, value=n / 10) for n in range(10)]
    second = [row(f"img-{n}", label=n % 3, prediction=n % 3, value=n / 10 - 0.05) for n in range(9)]
    second[0].map, second[1].map = spot(20, 20), spot(0, 2)
    second[2].prediction = second[2].target = 0
    second[2].map = spot(20, 0)
    second[3] = Row(Sample("img-3", "/x.png", 0), "decode_error", "broken")
    return store(tmp_path / "a", first), store(tmp_path / "b", second)


def test_everything_by_hand(ten):
    result = compare_runs(*ten)
    said = result.as_json()
    assert (said["joined_by"], said["pairs"], said["both_ok"]) == ("id", 9, 8)
    assert (said["first"]["alone"], said["first"]["alone_examples"], said["second"]["alone"]) == (1, ["img-9"], 0)
    answers = said["predictions"]
    assert (answers["images"], answers["changed"]) == (8, 1)
    assert answers["changes"] == [{"first": 2, "second": 0, "images": 1}]
    assert answers["accuracy"] == [1.0, 7 / 8]
    assert answers["only_right"] == [1, 0]
    assert answers["p"] == 1.0
    moved = said["moved"]
    assert moved["pairs"] == 7  # the changed and the failed one aside
    assert moved["mean"] == pytest.approx((1 + 0.5) / 7)
    assert (moved["median"], sum(moved["histogram"]), moved["histogram"][0], moved["histogram"][-1]) == (0, 7, 5, 1)
    most = moved["most"]
    assert [(entry["id"], entry["distance"]) for entry in most[:2]] == [("img-0", 1.0), ("img-1", 0.5)]
    assert most[0]["shift"] == pytest.approx(20 / 28)  # 20 of 28 pixels both ways, in diagonals
    assert most[1]["shift"] == pytest.approx(2 / 28 / 2**0.5)
    assert len(most) == 7
    assert said["notes"] == ["1 pair explain different classes (to be explained: predicted and predicted); their metrics are compared all the same"]  # fmt: skip


def test_metrics_are_those_of_atlas_compare(ten):
    first, second = map(heatlas.open, ten)
    results = [
        {name: value for name, value in row.items() if not name.endswith("_adjusted")}
        for row in compare_runs(first, second).metrics
    ]
    assert results == first.compare(second).to_pylist()
    entry = compare_runs(first, second, metrics=["ebpg"])
    assert [row["metric"] for row in entry.metrics] == ["ebpg"]
    assert entry.metrics[0]["favours"] == "first"
    assert entry.metrics[0]["difference"] == pytest.approx(0.05)


def test_the_order_of_rows_does_not_matter(tmp_path, ten):
    rows = [row(f"img-{n}", label=n % 3, prediction=n % 3, value=n / 10 - 0.05) for n in range(9)]
    rows[0].map, rows[1].map = spot(20, 20), spot(0, 2)
    straight = compare_runs(ten[0], store(tmp_path / "c", rows)).as_json()
    turned = compare_runs(ten[0], store(tmp_path / "d", rows, backwards=True, shard_size=2)).as_json()
    for entry in (straight, turned):
        entry.pop("second")
    assert turned == straight


def test_several_targets_are_joined_with_them(tmp_path):
    first = [
        row("a", prediction=1, target=1),
        row("a", prediction=1, target=0, map_=spot(4, 4)),
        row("b", prediction=0, target=0),
    ]
    second = [
        row("a", prediction=1, target=1, map_=spot(8, 8)),
        row("a", prediction=1, target=2),
        row("b", prediction=0, target=0),
    ]
    result = compare_runs(
        store(tmp_path / "a", first, target="both"), store(tmp_path / "b", second, target="both")
    ).as_json()
    assert (result["joined_by"], result["pairs"]) == ("id and target", 2)
    assert (result["first"]["alone"], result["second"]["alone"]) == (1, 1)
    assert result["predictions"]["images"] == 2
    assert [(entry["id"], entry["first_target"], entry["distance"]) for entry in result["moved"]["most"]] == [
        ("a", 1, 1.0),
        ("b", 0, 0.0),
    ]


def test_targets_that_differ_by_setting_are_joined_by_id_and_told(tmp_path):
    first = store(tmp_path / "a", [row("a", label=1, prediction=0, target=0), row("b")], target="predicted")
    second = store(
        tmp_path / "b", [row("a", label=1, prediction=0, target=1, map_=spot(8, 8)), row("b")], target="label"
    )
    result = compare_runs(first, second)
    assert result.as_json()["joined_by"] == "id"
    assert "1 pair explain different classes (to be explained: predicted and label)" in comparison_text(result)
    assert result.most[0]["id"] == "a"
    assert (result.most[0]["first_target"], result.most[0]["second_target"]) == (0, 1)


def test_two_methods_of_one_store(tmp_path):
    """Rows of a second method beside those of the first."""
    out = store(tmp_path / "a", [row(f"img-{n}") for n in range(3)])
    layout = StoreLayout(SIZE, method="other", metrics=("ebpg", "drop_pct"), map_size="input", with_png=False,
                         metadata=heatlas.open(out).metadata)  # fmt: skip
    [shard] = [shard for shard in plan_shards(2, 2)]  # noqa: C416
    ParquetSink(str(out), layout).commit(type(shard)(1, 3, 5), [row("img-0", map_=spot(8, 8)), row("img-1")])
    result = compare_runs(out, out, method="sise", other_method="other")
    assert (len(result.pairs), result.pairs.alone) == (2, (1, 0))
    assert result.most[0]["distance"] == 1.0
    assert 'method: "sise" and "other"' in result.settings
    with pytest.raises(UsageError, match="compared with itself"):
        compare_runs(out, str(out) + "/")
    with pytest.raises(UsageError, match="no row of the method 'othr'; did you mean 'other'"):
        compare_runs(out, out, other_method="othr")


def test_maps_of_different_sizes_are_compared_at_the_smaller_one(tmp_path):
    first = store(tmp_path / "a", [row("a", map_=spot(0, 0)), row("b", map_=spot(0, 0))])
    second = store(tmp_path / "b", [row("a", map_=spot(0, 0)), row("b", map_=spot(24, 24))], map_size=7)
    assert compare_runs(first, second).moved.distance.tolist() == pytest.approx([0, 1], abs=1e-6)
    third = store(tmp_path / "c", [row("a"), row("b")], with_map=False)
    result = compare_runs(first, third)
    assert result.moved is None
    assert result.as_json()["moved"] is None
    assert "a run stored no maps" in comparison_text(result)


def test_a_map_of_zeros_has_no_place(tmp_path):
    first = store(tmp_path / "a", [row("a", map_=np.zeros(SIZE, np.float32)), row("b")])
    result = compare_runs(first, store(tmp_path / "b", [row("a"), row("b")]))
    assert np.isnan(result.moved.distance[0])
    assert [entry["id"] for entry in result.most] == ["b"]
    json.dumps(result.as_json(), allow_nan=False)


def test_shares_and_centres_by_hand():
    maps = np.zeros((2, 28, 28), np.float32)
    maps[0, :2, :2] = 0.5
    maps[1, 0, 0] = maps[1, 27, 27] = 1
    entry = shares(maps, 14)
    assert entry.sum(axis=(1, 2)) == pytest.approx([1, 1])
    assert entry[0, 0, 0] == pytest.approx(1)
    assert centres(entry).tolist() == [pytest.approx([0.5 / 14] * 2), pytest.approx([0.5, 0.5])]


@pytest.mark.parametrize(
    ("first", "second", "p"), [(0, 0, 1.0), (5, 0, 2 / 2**5), (1, 1, 1.0), (0, 1, 1.0), (8, 2, 2 * 56 / 2**10)]
)
def test_mcnemar_by_hand(first, second, p):
    """The binomial tail at one half, both sides."""
    assert mcnemar(first, second) == pytest.approx(p)


def test_rows_in_the_same_order_are_read_once(tmp_path, monkeypatch):
    monkeypatch.setattr("heatlas.pipeline.store.parquet_bytes.ROW_GROUP_BYTES", 8000)
    monkeypatch.setattr(movement_module, "AT_ONCE", 7)
    rows = [row(f"{n:03d}", map_=spot(n % 20, 3)) for n in range(40)]
    stores = [store(tmp_path / name, rows, shard_size=20) for name in "ab"]
    read: list[tuple[str, str, int]] = []
    real = movement_module._with_zeros

    def counted(opened, group):
        read.append((id(opened) and opened.metadata.num_rows, group))
        return real(opened, group)

    monkeypatch.setattr(movement_module, "_with_zeros", counted)
    result = compare_runs(*stores)
    assert result.moved.distance.tolist() == [0] * 40
    groups = sum(
        MapReader(heatlas.open(entry))._edges_of(f"part-{n:06d}.parquet").size - 1 for entry in stores for n in (0, 1)
    )
    assert len(read) == groups >= 8


def test_a_damaged_file_is_named(ten):
    (ten[1] / "maps" / "part-000001.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(StorageError, match="part-000001"):
        compare_runs(*ten)


def test_metrics_that_mean_something_else_are_not_compared(tmp_path, ten):
    other = store(tmp_path / "c", [row(f"img-{n}") for n in range(9)], definition="ebpg/v2", names=("x", "y", "z"))
    result = compare_runs(ten[0], other)
    assert [metric["metric"] for metric in result.metrics] == ["drop_pct"]
    assert result.uncompared == ["ebpg"]
    assert any("name their classes differently" in metric for metric in result.pairs.notes)
    with pytest.raises(UsageError, match="cannot compare 'ebpg'"):
        compare_runs(ten[0], other, metrics=["ebpg"])


# --- the command and its page


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


@pytest.mark.check("labels", "the same classes in another order in `compare`", "known")
def test_classes_in_another_order_are_compared_by_name(tmp_path):
    """Two networks that are both right on every image, the second trained with its classes the other way round."""
    labels = [n % 3 for n in range(9)]
    first = store(tmp_path / "a", [row(f"img-{n}", label=k, prediction=k) for n, k in enumerate(labels)])
    second = store(
        tmp_path / "b",
        [row(f"img-{n}", label=2 - k, prediction=2 - k) for n, k in enumerate(labels)],
        names=NAMES[::-1],
    )
    result = compare_runs(first, second)
    assert result.predictions.accuracy == (1.0, 1.0)
    assert result.predictions.changed == 0
    assert any("compared by name" in note for note in result.pairs.notes)


def test_a_class_that_only_the_second_run_has_keeps_its_name(tmp_path):
    first = store(tmp_path / "a", [row("img-0", prediction=1)], names=("Ant", "honey_bee"))
    second = store(tmp_path / "b", [row("img-0", prediction=2)], names=("honey bee", "ant", "wasp"))
    result = compare_runs(first, second)
    assert result.pairs.class_names == ("Ant", "honey_bee", "wasp")
    assert result.predictions.changes == [{"first": 1, "second": 2, "images": 1}]
    assert "honey_bee -> wasp" in comparison_text(result)


def test_metrics_that_no_pair_has_are_named_and_not_tested(tmp_path):
    rows = [row(f"{number}", value=0.5 + number / 100) for number in range(8)]
    without = [replace(entry, metrics={"ebpg": 0.4}) for entry in rows]
    comparison = compare_runs(str(store(tmp_path / "a", rows)), str(store(tmp_path / "b", without)))
    assert [metric["metric"] for metric in comparison.metrics] == ["ebpg"]
    assert comparison.uncompared == ["drop_pct"]


def test_adjusted_intervals_hold_for_all_metrics_together(tmp_path):
    values = np.random.default_rng(0).normal(0.5, 0.1, (2, 60))
    stores = [
        store(tmp_path / name, [row(f"{number}", value=float(value)) for number, value in enumerate(some)])
        for name, some in zip("ab", values, strict=True)
    ]
    comparison = compare_runs(str(stores[0]), str(stores[1]), resamples=2000)
    assert len(comparison.metrics) == 2
    spread = (values[0] - values[1]).std(ddof=1) / np.sqrt(60)
    for metric, scale in zip(comparison.metrics, (1, 10), strict=True):
        assert metric["low_adjusted"] < metric["low"] < metric["high"] < metric["high_adjusted"]
        # two metrics: 97.5 % each, which for a normal mean is 2.2414 standard errors on each side
        half = (metric["high_adjusted"] - metric["low_adjusted"]) / 2
        assert half == pytest.approx(2.2414 * spread * scale, rel=0.12)


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
