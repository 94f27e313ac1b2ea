"""The demo from end to end, as `heatlas demo` runs it."""

from __future__ import annotations

import contextlib
import io
import re

import pytest
from heatlas.engine.errors import UsageError
from heatlas.pipeline.atlas import open_atlas
from heatlas.pipeline.demo import demo, train
from heatlas.pipeline.demo.dataset import SHORTCUT_CLASS
from heatlas.pipeline.demo.findings import class_groups
from PIL import Image

IMAGES = 18


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A demo run in this process and what it said."""
    out = tmp_path_factory.mktemp("demo") / "out"
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = demo.run_demo(str(out), workers=0, images=IMAGES)
    return out, code, said.getvalue()


def seen_in(out):
    return demo.seen_images(open_atlas(str(out / demo.STORE)), demo._read_manifest(out / "data" / "manifest.csv"))


def test_every_image_is_explained(ran):
    out, code, _ = ran
    assert code == 0
    rows = open_atlas(str(out / demo.STORE)).table(columns=["id", "status", "ebpg"]).to_pylist()
    assert sorted(row["id"] for row in rows) == [f"test-{index:05d}" for index in range(IMAGES)]
    assert {row["status"] for row in rows} == {"ok"}


def test_the_shortcut_class_is_located_worst_though_it_is_recognised(ran):
    groups = class_groups(seen_in(ran[0]))
    assert groups[0].name == SHORTCUT_CLASS
    assert groups[0].ebpg < groups[0].area < groups[1].ebpg
    assert groups[0].accuracy == 1
    assert groups[0].blind_share == 1


def test_it_says_so_in_plain_words(ran):
    assert "Planted: 3 of 3 octagon images carry a small bar-code sticker" in ran[2]
    assert "So the network knows the sticker, not the octagon" in ran[2]
    assert "contact-sheet.png" in ran[2]


def test_the_contact_sheet_has_a_row_per_class(ran):
    with Image.open(ran[0] / demo.SHEET) as sheet:
        assert sheet.format == "PNG"
        assert sheet.width > 1000
        assert sheet.height > 8 * 132


def test_again_it_finds_everything_done(ran, capsys):
    out, _, _ = ran
    before = {path: path.stat().st_mtime_ns for path in (out / demo.STORE / "maps").iterdir()}
    assert demo.run_demo(str(out), workers=0, images=IMAGES) == 0
    assert {path: path.stat().st_mtime_ns for path in (out / demo.STORE / "maps").iterdir()} == before
    assert "So the network knows the sticker" in capsys.readouterr().out


def test_another_number_of_images_is_refused_and_changes_nothing(ran):
    out, _, _ = ran
    before = (out / "data" / "manifest.csv").read_bytes()
    with pytest.raises(
        UsageError, match=r"holds a demo of 18 images, now 9 are asked for; use --images 18 or another --out"
    ):
        demo.run_demo(str(out), workers=0, images=9)
    assert (out / "data" / "manifest.csv").read_bytes() == before


def test_retraining_into_a_run_of_the_packaged_network_is_refused_before_training(ran):
    with pytest.raises(UsageError, match="holds a run of the packaged network; name another directory for --retrain"):
        demo.run_demo(str(ran[0]), workers=0, images=IMAGES, retrain=True)


def test_a_remote_directory_is_refused():
    with pytest.raises(UsageError, match="local directory, got 's3://bucket/demo'"):
        demo.run_demo("s3://bucket/demo")


def test_retrained_weights_are_the_ones_explained(tmp_path, monkeypatch, capsys):
    """A network of two tiny epochs stands in for the real recipe: another model, another digest, its weights kept."""
    monkeypatch.setattr(demo, "Recipe", lambda: train.Recipe(images=128, epochs=2, batch=32, test_images=40))
    out = tmp_path / "out"
    assert demo.run_demo(str(out), workers=0, images=8, retrain=True) == 0
    said = capsys.readouterr().out
    assert re.search(r"test accuracy of the retrained network \d+\.\d %, of the packaged one 9[789]\.\d %", said)
    kept = out / "data" / "retrained.safetensors"
    assert kept.exists()
    assert str(kept) in open_atlas(str(out / demo.STORE)).run["settings"]["model"]
    assert demo.run_demo(str(out), workers=0, images=8, retrain=True) == 0
    assert "epoch" not in capsys.readouterr().out, "weights that are there are not trained again"
