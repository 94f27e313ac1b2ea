"""`heatlas curate --probe` on a whole run: features are what the model gives, and planted duplicates and wrong labels come out."""

from __future__ import annotations

import csv

import heatlas
import numpy as np
import pytest
import torch
from heatlas.errors import UsageError
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.curate.curate import probe_store
from heatlas.pipeline.features.image_table import features_of
from PIL import Image

from ..support.tiny_run import FACTORY, command, draw_all, importable_factory


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    """Twenty-four images, of which the last is a brighter copy of the first under another name."""
    folder = tmp_path_factory.mktemp("features")
    draw_all(folder / "images", 24)
    first = next(iter(sorted((folder / "images" / "ant").iterdir())))
    pixels = np.asarray(Image.open(first)).astype(float) * 0.95 + 4
    Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / "bee" / "copy.png")
    (folder / "images" / "cat" / "broken.png").write_bytes(b"no image")
    with importable_factory(folder):
        assert main(command(folder / "images", folder / "out")) == 0
        yield folder


def test_features_of_the_rows_serve_before_anybody_probed(explained):
    """First in this file: later tests probe the same store."""
    atlas = heatlas.open(explained / "out")
    features = features_of(atlas)
    assert features is not None
    assert features.facts["from"] == "rows"
    assert len(features.ids) == 25
    assert len(features.hashes) == 0
    rows = {
        row["id"]: row
        for row in atlas.table(
            ["id", "features", "prediction", "label", "label_confidence"], "status = 'ok'"
        ).to_pylist()
    }
    for identity, values, own in zip(features.ids, features.confidences, features.features, strict=True):
        assert own == pytest.approx(np.array(rows[identity]["features"], np.float32))
        assert values.argmax() == rows[identity]["prediction"]
        assert values.sum() == pytest.approx(1, abs=1e-3)
        assert values[rows[identity]["label"]] == pytest.approx(rows[identity]["label_confidence"], abs=1e-6)
    assert len(atlas.curate(["outlier"], params=["outlier.all=1"])) == 25
    with pytest.raises(UsageError, match="cannot tell without perceptual hashes"):
        atlas.curate(["duplicate_images"])


def test_own_confidences_keep_ids_of_digits_and_say_whom_they_leave_out(explained, tmp_path, capsys):
    out, file = explained / "out", tmp_path / "probs.csv"
    ids = heatlas.open(out).table(["id"], "status = 'ok'")["id"].to_pylist()
    file.write_text("id,0,1,2\n" + "".join(f"{identity},0.2,0.3,0.5\n" for identity in ids[:9]))
    words = ["curate", str(out), "--recipe", "label_suspicion", "--probs", str(file)]
    assert main(words) == 0
    assert "9 of 25 labelled images have features or confidences" in capsys.readouterr().out
    file.write_text("id,0,1,2\nnobody,0.2,0.3,0.5\n")
    assert main(words) == 2
    assert "none of the 1 ids in --probs, such as 'nobody', is one of" in capsys.readouterr().err


def test_features_are_those_of_the_model(explained, capsys):
    out = explained / "out"
    assert main(["curate", str(out), "--probe", "--recipe", "duplicate_images", "outlier", "label_suspicion"]) == 0
    said = capsys.readouterr().out
    assert "left out" not in said
    features = features_of(heatlas.open(out))
    assert features is not None
    assert len(features.ids) == 25, "the broken image has none"
    assert features.facts["failed"] == 1
    rows = {
        row["id"]: row
        for row in heatlas.open(out).table(["id", "prediction", "confidence"], "status = 'ok'").to_pylist()
    }
    for identity, values in zip(features.ids, features.confidences, strict=True):
        assert values.argmax() == rows[identity]["prediction"]
        assert values.max() == pytest.approx(rows[identity]["confidence"], abs=2e-3)
    import tiny_net

    model = tiny_net.model().eval()
    with torch.no_grad():
        logits = model[-1](torch.from_numpy(features.features))
    assert logits.softmax(dim=1).numpy() == pytest.approx(features.confidences, abs=5e-3)


def test_a_copy_with_another_label_is_the_first_duplicate(explained, tmp_path):
    atlas = heatlas.open(explained / "out")
    probe_store(atlas)
    queue = atlas.curate(["duplicate_images"]).to_pylist()
    assert {queue[0]["id"], queue[0]["twin"]} == {"ant/000.png", "bee/copy.png"}
    assert "Yet this one is labelled" in queue[0]["reason"]


def test_all_images_can_be_ranked(explained):
    atlas = heatlas.open(explained / "out")
    probe_store(atlas)
    ranked = atlas.curate(["label_suspicion"], params=["all=1"])
    assert len(ranked) == 25
    assert len(atlas.curate(["outlier"], params=["outlier.all=1"])) == 25


def test_maps_are_a_reason_of_outliers_where_they_were_measured(explained):
    out = explained / "out"
    reasons = heatlas.open(out).curate(["outlier"], params=["outlier.all=1"])["reason"].to_pylist()
    assert all(reason.count(". ") == 1 and reason.endswith(".") and "border" not in reason for reason in reasons)
    assert main(["evaluate", str(out), "--metrics", "border_share", "--workers", "0"]) == 0
    rows = heatlas.open(out).curate(["outlier"], params=["outlier.all=1"]).to_pylist()
    shares = dict(zip(*heatlas.open(out).table(["id", "border_share"]).to_pydict().values(), strict=True))
    said = {row["id"]: "of the map here lies in the border of the image." in row["reason"] for row in rows}
    assert said == {identity: shares[identity] >= 0.6 for identity in said}
    assert len(rows) == 25


def test_own_confidences_replace_the_models(explained, tmp_path):
    atlas = heatlas.open(explained / "out")
    labels = dict(zip(*atlas.table(["id", "label"], "status = 'ok'").to_pydict().values(), strict=True))
    with open(tmp_path / "probs.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "0", "1", "2"])
        for identity, label in labels.items():
            sure = np.full(3, 0.02)
            sure[(label + 1) % 3 if identity == "bee/001.png" else label] = 0.96
            writer.writerow([identity, *sure])
    queue = atlas.curate(["label_suspicion"], params=["all=1"], probs=str(tmp_path / "probs.csv")).to_pylist()
    assert queue[0]["id"] == "bee/001.png"


def test_another_model_is_refused(explained, capsys):
    with importable_factory(explained, FACTORY.replace("manual_seed(0)", "manual_seed(1)")):
        assert main(["curate", str(explained / "out"), "--probe"]) == 2
    assert "has other weights or preprocessing now" in capsys.readouterr().err
