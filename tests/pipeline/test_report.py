"""`heatlas report` without a browser: what it says, what it refuses, what it leaves out, and that it stays small and closed."""

from __future__ import annotations

import base64
import hashlib
import html
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import heatlas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from heatlas.errors import UsageError
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.curate.curate import curate_store, curation_text
from heatlas.pipeline.features.cue_table import write_cues
from heatlas.pipeline.features.cues import Cue, CueSearch
from heatlas.pipeline.html.pictures import Pictures
from heatlas.pipeline.report.build import PICTURE_BYTES, write_report
from heatlas.pipeline.report.classes import class_facts, most_suspicious, suspicion_rule
from heatlas.pipeline.report.distributions import metric_distributions
from heatlas.pipeline.report.galleries import choose_galleries
from heatlas.pipeline.report.mean_maps import class_mean_maps
from heatlas.pipeline.report.rows import ReportRows
from heatlas.pipeline.report.scores import run_scores
from heatlas.pipeline.shards import plan_shards
from heatlas.pipeline.store.parquet_sink import ParquetSink
from heatlas.pipeline.store.run_file import claim_run
from heatlas.workers.samples import Row, Sample
from PIL import Image

from ..support.page_reader import PageReader
from ..support.reported_store import CLASSES, HOSTILE_IDS, LAYOUT, METRICS, PREPROCESS, SIDE, looking, write_reported


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reported")
    return write_reported(folder / "out", folder / "images")


@pytest.fixture(scope="module")
def page(store: Path) -> str:
    return Path(write_report(str(store), store.parent / "page.html").uri).read_text("utf-8")


@pytest.fixture(scope="module")
def reader(page: str) -> PageReader:
    return PageReader(page)


def test_the_short_part_names_what_was_run_and_what_to_look_at(reader: PageReader):
    assert "nowhere_at_all:model on 60 images of 3 classes" in reader.words
    assert "explained with sise" in reader.words
    assert "57 with a map, 3 without" in reader.words
    assert "Look at the class <script>complain('class')</script> first" in reader.words
    # class 1 has 20 images, of which one failed
    assert (
        "19 of its 19 correct predictions (100 %) were made with less of the map's mass on the object than a random map has there (0.10 on average)"
        in reader.words
    )
    assert (
        "On the 12 images on which chance was measured, 41 % of a map lies on the marked object; a random map has 10 % there"
        in reader.words
    )
    assert "Against a random map on 12 images: better in all 2 metrics that have a direction." in reader.words


def test_the_page_is_closed_and_names_its_own_script_and_style(page: str, reader: PageReader):
    policy = next(
        attrs["content"]
        for tag, attrs in reader.tags
        if tag == "meta" and attrs.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        [inside] = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.S)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not [attrs for _, attrs in reader.tags if "style" in attrs or any(name.startswith("on") for name in attrs)]
    places = [
        attrs[name]
        for _, attrs in reader.tags
        for name in ("src", "href", "srcset", "action", "xlink:href")
        if attrs.get(name)
    ]
    assert [place for place in places if not str(place).startswith(("#", "data:"))] == []
    assert not {tag for tag, _ in reader.tags} & {"iframe", "object", "embed", "base", "video", "audio"}


def test_hostile_names_are_shown_and_do_nothing(page: str, reader: PageReader):
    assert [tag for tag, _ in reader.tags].count("script") == 1
    assert "img" not in {tag for tag, _ in reader.tags}
    holding = {name for _, attrs in reader.tags for name, value in attrs.items() if "complain" in (value or "")}
    assert holding == {"aria-label", "data-id"}
    for identity in HOSTILE_IDS[:3]:
        assert html.escape(identity, quote=True).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in page
    assert r"\u202egnp.exe" in reader.words
    assert "\u202e" not in page
    assert r"tab\there\x1b[2J" in reader.words
    assert "{{ 7 * 7 }}" in reader.words
    assert "שלום/صورة.png" in reader.words
    assert "<b>cannot</b> decode" in reader.words


def test_every_picture_says_what_it_is(reader: PageReader):
    drawn = [attrs for tag, attrs in reader.tags if tag == "svg" and attrs.get("role") == "img"]
    assert len(drawn) > 20
    assert all(attrs.get("aria-label") for attrs in drawn)
    hidden = [attrs for tag, attrs in reader.tags if tag == "svg" and attrs.get("role") != "img"]
    assert all(attrs.get("aria-hidden") == "true" for attrs in hidden)
    names = [attrs["id"] for _, attrs in reader.tags if attrs.get("id")]
    assert len(names) == len(set(names))
    used = {
        str(attrs["href"])[1:]
        for tag, attrs in reader.tags
        if tag in ("use", "a") and str(attrs.get("href", "")).startswith("#")
    }
    assert used <= set(names)


def test_error_rows_are_counted_by_cause(reader: PageReader):
    assert "3 rows have no map." in reader.words
    assert "decode_error" in reader.words


def test_the_table_holds_every_row_of_a_small_store(page: str):
    [body] = re.findall(r'<table id="row-table".*?<tbody>(.*?)</tbody>', page, re.S)
    assert body.count("<tr ") == 60
    assert body.count('data-right="no"') == 6


def test_without_images_maps_stand_alone_and_the_page_says_so(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out, images = tmp_path / "out", store.parent / "images"
    shutil.copytree(store, out)
    hidden = images.rename(images.with_name("hidden"))
    try:
        assert main(["report", str(out)]) == 0
    finally:
        hidden.rename(images)
    said = capsys.readouterr().out
    assert said.startswith(f"{out}/report.html  (0.")
    assert "images could not be read any more; their maps stand alone" in said
    words = PageReader((out / "report.html").read_text("utf-8")).words
    assert "The images cannot be read from where the run found them, so the maps stand alone." in words
    assert "The images cannot be read any more, so nothing can be recomputed." in words


def test_images_outside_of_the_data_root_are_not_read(tmp_path: Path):
    out = write_reported(tmp_path / "out", tmp_path / "images", data_root=tmp_path / "elsewhere")
    assert write_report(str(out), blocks=False).unread > 10


def test_a_model_of_others_is_not_run_unasked(reader: PageReader):
    assert "The run's model, nowhere_at_all:model, is code that this store names." in reader.words


def test_a_model_that_cannot_be_loaded_is_told_and_the_page_is_made(store: Path, tmp_path: Path):
    assert main(["report", str(store), "--blocks", "--out", str(tmp_path / "page.html")]) == 0
    assert "The run's model cannot be loaded here" in PageReader((tmp_path / "page.html").read_text("utf-8")).words


def test_rows_for_label_and_prediction_are_shown_side_by_side(tmp_path: Path):
    out = write_reported(tmp_path / "out", tmp_path / "images", both=True)
    atlas = heatlas.open(str(out))
    rows = ReportRows.of(atlas)
    assert (rows.images, rows.total) == (60, 66)
    [same] = [gallery for gallery in choose_galleries(rows, None, 4) if gallery.key == "same-place"]
    assert len(same.rows) == 4
    assert set(same.pairs) == {gallery["id"] for gallery in same.rows}
    assert all(gallery["target"] == gallery["prediction"] for gallery in same.rows)
    assert all(gallery["target"] == gallery["label"] for gallery in same.pairs.values())
    page = Path(atlas.report(tmp_path / "page.html", blocks=False).uri).read_text("utf-8")
    assert "60 images" in PageReader(page).words
    assert 'class="gallery wide" aria-label="Maps for label and prediction overlap"' in page


def test_an_unfinished_run_is_called_one(tmp_path: Path):
    out = write_reported(tmp_path / "out", tmp_path / "images", shards=4)
    words = PageReader(Path(write_report(str(out), blocks=False).uri).read_text("utf-8")).words
    assert "This run is not finished. 4 of 9 shards are stored" in words


@pytest.mark.parametrize("with_map", [True, False])
def test_a_store_with_nothing_but_rows(tmp_path: Path, with_map: bool):
    """No metrics, no truth, no chance baselines, no PNGs, and perhaps no maps."""
    layout = replace(LAYOUT, metrics=(), chance_metrics=(), with_map=with_map, with_png=False, metadata={})
    out = write_reported(tmp_path / "out", tmp_path / "images", 12, layout=layout)
    words = PageReader(Path(write_report(str(out), blocks=False).uri).read_text("utf-8")).words
    assert "nothing here says whether the network predicts correctly because of the object" in words
    assert "class 1" in words


def test_clusters_and_queues_beside_the_store_are_shown(store: Path, tmp_path: Path):
    out = tmp_path / "out"
    shutil.copytree(store, out)
    (out / "clusters").mkdir()
    (out / "curation").mkdir()
    table = {"class": [1], "cluster": [0], "size": [17], "separation": [0.9], "members": [["image-0010", "not there"]],
             "mean_map": pa.array([looking(False)[::3, ::3].ravel().astype("float16")], pa.list_(pa.float16()))}  # fmt: skip
    pq.write_table(pa.table(table), out / "clusters" / "clusters.parquet")
    queue = {"id": ["image-0022", "image-0010"], "reason": ["<i>late</i>", "early"], "priority": [0.1, 0.9]}
    pq.write_table(pa.table(queue), out / "curation" / "my_own.parquet")
    pq.write_table(pa.table({"nothing": [1]}), out / "curation" / "broken.parquet")
    words = PageReader(Path(write_report(str(out), blocks=False).uri).read_text("utf-8")).words
    assert "Clusters of maps" in words
    assert "17 maps, separation 0.90" in words
    assert words.index("early") < words.index("<i>late</i>")
    assert "broken.parquet" in words


def test_gallery_bounds_the_pictures_and_the_page_stays_small(store: Path, tmp_path: Path):
    small = write_report(str(store), tmp_path / "a.html", gallery=1, blocks=False)
    large = write_report(str(store), tmp_path / "b.html", gallery=50, blocks=False)
    assert small.pictures < large.pictures
    assert large.size < 8_000_000


def test_a_page_about_many_classes_and_long_names_stays_small(tmp_path: Path):
    """600 classes with names of 300 characters, ids of 500: every limit is met at once, but that of the pictures."""
    names = [f"{number:03d}" + "<&>" * 99 for number in range(600)]
    layout = replace(LAYOUT, with_png=False, map_size=4, metadata={**LAYOUT.metadata, "class_names": names})
    run = {"plan": {"samples": 1200, "shards": 1, "digest": "d"}, "preprocess": asdict(PREPROCESS)}
    out = tmp_path / "out"
    claim_run(str(out), run, {"model": "m:f", "data": "d", "seed": 0})
    rows = []
    for number in range(1200):
        sample = Sample(f"{number:04d}" + "\"'<&>" * 100, "/nowhere.png", number % 600)
        rows.append(Row(sample, "ok", prediction=number % 599, target=number % 599, confidence=0.5, map=looking(False),
                        metrics=dict.fromkeys(METRICS, 0.01), device="cpu"))  # fmt: skip
    assert ParquetSink(str(out), layout).commit(plan_shards(1200, 1200)[0], rows)
    assert write_report(str(out)).size < 8_000_000 - PICTURE_BYTES


def test_pictures_beyond_the_limit_are_refused_and_counted():
    pictures = Pictures(20_000)
    kept = [pictures.image(number, Image.effect_noise((64, 64), 90)) for number in range(6)]
    assert 1 <= len(pictures.stored) < 6
    assert pictures.refused == kept.count(None) == 6 - len(pictures.stored)
    assert pictures.size <= 20_000
    assert pictures.image(0, Image.new("RGB", (1, 1))) is kept[0]


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--gallery", "0"], "gallery must be from 1 to 200 pictures, got 0"),
        (["--gallery", "201"], "gallery must be from 1 to 200 pictures, got 201"),
        (["--method", "sice"], "has no row of the method 'sice'; did you mean 'sise'?"),
        (["--out", ""], "an empty path names no place"),
        (["--out", "FOLDER"], "is a folder; give the page a file name in it"),
        (["--out", "nosuch://x/y"], "Protocol not known: nosuch"),
    ],
)
def test_report_refuses_what_cannot_work(
    more: list[str], text: str, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["report", str(store), *(str(tmp_path) if entry == "FOLDER" else entry for entry in more)]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("heatlas: error: ")
    assert text in said.err
    assert said.out == ""
    assert list(tmp_path.iterdir()) == []


def test_report_of_no_run_and_onto_no_place(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["report", str(tmp_path)]) == 2
    assert "is not a heatlas store" in capsys.readouterr().err
    assert main(["report", str(store), "--no-blocks", "--out", f"{__file__}/page.html"]) == 1
    assert "cannot write" in capsys.readouterr().err


def test_the_store_is_the_same_store_with_a_report_in_it(tmp_path: Path):
    out = write_reported(tmp_path / "out", tmp_path / "images", 12)
    write_report(str(out), blocks=False)
    assert main(["verify", str(out)]) == 0
    assert len(heatlas.open(str(out))) == 12


def test_the_most_suspicious_class_and_its_mean_map(store: Path):
    rows = ReportRows.of(heatlas.open(str(store)))
    rule = suspicion_rule(rows, run_scores(rows))
    assert rule is not None
    assert rule.threshold == pytest.approx(0.1)
    classes = class_facts(rows, rule)
    suspect = most_suspicious(classes)
    assert suspect is classes[0]
    assert (suspect.name, suspect.suspicious, suspect.of) == (CLASSES[1], 19, 19)
    assert [class_.suspicious for class_ in classes[1:]] == [0, 0]
    means = class_mean_maps(rows, [0, 1], per_class=5)
    assert {label: count for label, (_, count) in means.items()} == {0: 5, 1: 5}
    scale = SIDE // 8
    for label, at_object in ((0, True), (1, False)):
        expected = looking(at_object).reshape(8, scale, 8, scale).mean(axis=(1, 3))
        assert means[label][0] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("guilty", [True, False])
def test_report_queue_and_terminal_share_the_verdict_of_an_intervention(tmp_path: Path, guilty: bool):
    out = write_reported(tmp_path / "out", tmp_path / "images")
    atlas = heatlas.open(str(out))
    ids = sorted(atlas.table(["id"], "label = 0 AND status = 'ok'")["id"].to_pylist())
    rows = np.arange(len(ids))
    result = Cue(0, rows, 0.5, "patch", 0.6 if guilty else 0.1, 0.02, 5.0, rows, np.ones(len(rows)))
    write_cues(str(out), CueSearch((result,)), ids)
    written = curate_store(str(out), recipes=["shortcut"])
    assert written.verdict is not None
    assert written.verdict in curation_text(written)
    page = PageReader(Path(write_report(str(out), tmp_path / "page.html", blocks=False).uri).read_text("utf-8")).words
    assert written.verdict in page
    assert (f"Look at the class {CLASSES[0]} first" in page) is guilty
    assert "Look at the class <script>" not in page, "the maps alone would name class 1"
    assert set(written.curation.queues["shortcut"]["id"].to_pylist()) == (set(ids) if guilty else set())


def test_a_class_of_small_objects_is_judged_by_its_own_chance(store: Path):
    rows = ReportRows.of(heatlas.open(str(store)))
    rule = suspicion_rule(rows, run_scores(rows))
    assert rule is not None
    [sql] = rows.ask(
        "SELECT count(*) AS n FROM rows WHERE ebpg < chance_ebpg AND main AND status = 'ok' AND label = prediction"
    )
    assert sql["n"] == 19
    query = f"SELECT label FROM (VALUES (0, 0.05, 0.02), (1, 0.05, 0.2), (2, 0.05, NULL)) AS t(label, ebpg, chance_ebpg) WHERE {rule.condition}"
    assert [row["label"] for row in rows.ask(query)] == [1, 2]


def test_a_class_is_judged_by_its_border_where_nothing_is_marked(tmp_path: Path):
    layout = replace(LAYOUT, metrics=("border_share",), chance_metrics=())
    rows = ReportRows.of(heatlas.open(str(write_reported(tmp_path / "out", tmp_path / "images", layout=layout))))
    rule = suspicion_rule(rows, run_scores(rows))
    assert rule is not None
    assert rule.metric == "border_share"
    assert most_suspicious(class_facts(rows, rule)).name == CLASSES[1]  # pyright: ignore[reportOptionalMemberAccess]


def test_means_are_those_of_the_summary(store: Path):
    atlas = heatlas.open(str(store))
    ours = run_scores(ReportRows.of(atlas))
    for row in atlas.summary().to_pylist():
        assert ours[row["metric"]] == pytest.approx(row, nan_ok=True)


def test_distributions_count_every_value_once(store: Path):
    rows = ReportRows.of(heatlas.open(str(store)))
    distributions = metric_distributions(rows)
    for name, distribution in distributions.items():
        assert sum(distribution.counts) == 57, name
        assert distribution.beyond == 0
    whole = distributions["n_components"]
    assert (whole.whole, len(whole.counts)) == (True, 3)
    assert [text for _, text, _ in whole.ticks] == ["1", "3"]


def test_show_draws_in_a_notebook(store: Path):
    atlas = heatlas.open(str(store))
    entry = atlas.show("image-0010")
    assert entry.picture is not None
    assert entry.picture.size == (2 * SIDE + 4, SIDE)
    png = entry._repr_png_()
    assert png is not None
    assert png.startswith(b"\x89PNG")
    assert base64.b64encode(png).decode() in entry._repr_html_()
    assert repr(entry) == f"<Shown 'image-0010': sise: {CLASSES[1]} (51 %)>"
    for identity in HOSTILE_IDS:
        page = PageReader(atlas.show(identity)._repr_html_())
        assert {tag for tag, _ in page.tags} <= {"figure", "img", "figcaption", "div", "b", "bdi", "code"}


def test_show_of_an_error_row_says_why_and_of_nothing_is_refused(store: Path):
    atlas = heatlas.open(str(store))
    failed = atlas.show("image-0019")
    assert "decode_error" in failed._repr_html_()
    assert "cannot" in repr(failed)
    with pytest.raises(UsageError, match="'nope' is not in this store"):
        atlas.show("nope")
    with pytest.raises(UsageError, match="ids are strings, got 3"):
        atlas.show(3)  # pyright: ignore[reportArgumentType]


def test_without_images_none_is_read(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("heatlas.pipeline.report.cards.view", lambda *_: pytest.fail("an image was read"))
    monkeypatch.setattr(
        "heatlas.pipeline.report.arrival.load_model", lambda *_: pytest.fail("a model was loaded"), raising=False
    )
    page = tmp_path / "private.html"
    assert main(["report", str(store), "--no-images", "--out", str(page)]) == 0
    text = page.read_text()
    assert "data:image/" in text
    assert "could not be read" not in text
