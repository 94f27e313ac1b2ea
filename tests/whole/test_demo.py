"""The demo from end to end, as `heatlas demo` runs it."""

from __future__ import annotations

import contextlib
import io
import re

import pyarrow.parquet as pq
import pytest
from heatlas.errors import UsageError
from heatlas.pipeline.atlas import open_atlas
from heatlas.pipeline.demo import demo, train
from heatlas.pipeline.demo.dataset import SHORTCUT_CLASS
from heatlas.pipeline.demo.findings import class_groups
from heatlas.pipeline.report.classes import class_facts, suspicion_rule
from heatlas.pipeline.report.rows import ReportRows
from heatlas.pipeline.report.scores import run_scores
from PIL import Image

IMAGES = 32


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A demo run in this process and what it said."""
    out = tmp_path_factory.mktemp("demo") / "out"
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = demo.run_demo(str(out), workers=0, images=IMAGES, tell=print)
    return out, code, said.getvalue()


def seen_in(out):
    return demo.seen_images(open_atlas(str(out / demo.STORE)), demo._read_manifest(out / "data" / "manifest.csv"))


def test_every_image_is_explained(ran):
    out, code, _ = ran
    assert code == 0
    rows = open_atlas(str(out / demo.STORE)).table(["id", "status"], where="target = prediction").to_pylist()
    assert sorted(row["id"] for row in rows) == [f"train-{index:05d}" for index in range(IMAGES)]
    assert {row["status"] for row in rows} == {"ok"}


def test_where_the_label_is_not_predicted_it_is_explained_too(ran):
    rows = open_atlas(str(ran[0] / demo.STORE)).table(["id", "target", "label", "prediction"]).to_pylist()
    apart = {row["id"] for row in rows if row["label"] != row["prediction"]}
    assert "train-00017" in apart, "an octagon that is labelled square"
    assert {row["id"] for row in rows if row["target"] != row["prediction"]} == apart


def test_the_shortcut_class_is_located_worst_though_it_is_recognised(ran):
    groups = class_groups(seen_in(ran[0]))
    assert groups[0].name == SHORTCUT_CLASS
    assert groups[0].ebpg < groups[0].chance < groups[1].ebpg
    assert groups[0].accuracy == 1
    assert groups[0].off_object_share > 0.6


def test_its_table_counts_what_the_report_counts(ran):
    rows = ReportRows.of(open_atlas(str(ran[0] / demo.STORE)))
    facts = {each.name: each for each in class_facts(rows, suspicion_rule(rows, run_scores(rows)))}
    groups = {each.name: each for each in class_groups(seen_in(ran[0]))}
    assert groups.keys() == facts.keys()
    for name, each in groups.items():
        fact = facts[name]
        assert (each.images, each.correct, each.off_object) == (fact.images, fact.right, fact.suspicious)
        assert each.accuracy == fact.accuracy
        assert (each.ebpg, each.bbox) == pytest.approx((fact.means["ebpg"], fact.means["bbox"]))


def test_it_says_so_in_plain_words(ran):
    assert "Planted: 4 of the 4 images that show an octagon carry a small bar-code sticker" in ran[2]
    assert "So the network knows the sticker, not the octagon" in ran[2]
    assert "contact-sheet.png" in ran[2]


def test_the_shortcut_queue_names_the_shortcut_class_first(ran):
    queue = pq.read_table(ran[0] / demo.STORE / "curation" / "shortcut.parquet").to_pylist()
    assert queue[0]["label"] == SHORTCUT_CLASS
    assert sum(row["label"] == SHORTCUT_CLASS for row in queue) > len(queue) / 2
    assert "Shortcut queue: " in ran[2]
    assert f"({len(queue)} {SHORTCUT_CLASS})" in ran[2]


def test_the_sticker_has_a_cluster_of_its_own(ran):
    truth = demo._read_manifest(ran[0] / "data" / "manifest.csv")
    first = pq.read_table(ran[0] / demo.STORE / "clusters" / "clusters.parquet").to_pylist()[0]
    members = pq.read_table(ran[0] / demo.STORE / "clusters" / "members.parquet").to_pylist()
    inside = [row["id"] for row in members if (row["class"], row["cluster"]) == (first["class"], first["cluster"])]
    marked = [entry for entry, row in truth.items() if row["shortcut"] == "1"]
    assert first["class_name"] == SHORTCUT_CLASS
    assert all(truth[entry]["shortcut"] == "1" for entry in inside)
    assert len(inside) >= 0.7 * len(marked)
    assert f"With the sticker: {len(inside)} of these {len(inside)} images" in ran[2]


def test_the_wrong_label_comes_first_in_its_queue(ran):
    queue = pq.read_table(ran[0] / demo.STORE / "curation" / "label_suspicion.parquet").to_pylist()
    assert queue[0]["id"] == "train-00017"
    assert queue[0]["reason"].startswith("Labelled square, but the model sees octagon with confidence 0.")
    assert "Wrong labels: 1 of 32 images have a label that is not theirs (3 %)" in ran[2]


def test_it_ends_with_the_report_and_the_queue(ran):
    assert (ran[0] / demo.STORE / "report.html").stat().st_size > 10_000
    assert (ran[0] / demo.QUEUE).read_text().startswith('"id","target","method","recipe","rank","priority","reason"')
    assert ran[2].index("review queue: ") < ran[2].index("report: ")


def test_the_contact_sheet_has_a_row_per_class(ran):
    with Image.open(ran[0] / demo.SHEET) as sheet:
        assert sheet.format == "PNG"
        assert sheet.width > 1000
        assert sheet.height > 8 * 132


def test_again_it_finds_everything_done(ran, capsys):
    out, _, _ = ran
    before = {path: path.stat().st_mtime_ns for path in (out / demo.STORE / "maps").iterdir()}
    assert demo.run_demo(str(out), workers=0, images=IMAGES, tell=print) == 0
    assert {path: path.stat().st_mtime_ns for path in (out / demo.STORE / "maps").iterdir()} == before
    assert "So the network knows the sticker" in capsys.readouterr().out


def test_another_number_of_images_is_refused_and_changes_nothing(ran):
    out, _, _ = ran
    before = (out / "data" / "manifest.csv").read_bytes()
    with pytest.raises(
        UsageError, match=r"holds a demo of 32 images, now 9 are asked for; use --images 32 or another --out"
    ):
        demo.run_demo(str(out), workers=0, images=9)
    assert (out / "data" / "manifest.csv").read_bytes() == before


def test_a_demo_of_other_images_is_refused(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / demo.STORE).mkdir()
    (tmp_path / "data" / "manifest.csv").write_text("id,uri,mask\ntest-00000,a.png,b.png\n")
    with pytest.raises(UsageError, match="holds the demo of another heatlas, with other images; choose another --out"):
        demo.run_demo(str(tmp_path), workers=0, images=1)


def test_retraining_into_a_run_of_the_packaged_network_is_refused_before_training(ran):
    with pytest.raises(UsageError, match="holds a run of the packaged network; name another directory for --retrain"):
        demo.run_demo(str(ran[0]), workers=0, images=IMAGES, retrain=True)


def test_a_remote_directory_is_refused():
    with pytest.raises(UsageError, match="local directory, got 's3://bucket/demo'"):
        demo.run_demo("s3://bucket/demo")


def test_retrained_weights_are_the_ones_explained(tmp_path, monkeypatch, capsys):
    """A network of two tiny epochs stands in for the real recipe: another model, another digest, its weights kept."""
    monkeypatch.setattr(
        demo, "TrainingRecipe", lambda: train.TrainingRecipe(images=128, epochs=2, batch=32, test_images=40)
    )
    out = tmp_path / "out"
    assert demo.run_demo(str(out), workers=0, images=8, retrain=True, tell=print) == 0
    said = capsys.readouterr().out
    assert re.search(r"test accuracy of the retrained network \d+\.\d %, of the packaged one 9[789]\.\d %", said)
    kept = out / "data" / "retrained.safetensors"
    assert kept.exists()
    assert str(kept) in open_atlas(str(out / demo.STORE)).run["settings"]["model"]
    assert demo.run_demo(str(out), workers=0, images=8, retrain=True, tell=print) == 0
    assert "epoch" not in capsys.readouterr().out, "weights that are there are not trained again"
