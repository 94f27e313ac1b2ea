"""Round trips through the annotation tools' own libraries, and our ranking of labels beside cleanlab's: `make test-integrations`.

The libraries want other versions than ours, so they live in an environment of their own, whose interpreter HEATLAS_INTEGRATIONS_PYTHON names.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from heatlas.pipeline.annotate.coco_tasks import coco_bytes, read_coco_answers
from heatlas.pipeline.annotate.fiftyone_tasks import read_fiftyone_answers, write_fiftyone_tasks
from heatlas.pipeline.annotate.label_studio import label_config, label_studio_bytes, read_label_studio_answers
from heatlas.pipeline.annotate.suggestion import Suggestion
from heatlas.pipeline.decisions.rle import decode_mask, encode_mask
from heatlas.pipeline.features.label_ranking import label_probes, label_quality, linear_probe
from heatlas.pipeline.sources.reading.reader import FsspecReader
from PIL import Image
from sklearn.metrics import roc_auc_score

PYTHON = os.environ.get("HEATLAS_INTEGRATIONS_PYTHON")
NAMES = ("ant", "bee")
pytestmark = pytest.mark.skipif(not PYTHON, reason="needs the tools' own libraries: make test-integrations")


def with_tools(name: str, folder: Path) -> None:
    ran = subprocess.run([str(PYTHON), str(Path(__file__).with_name("with_tools.py")), name, str(folder)], capture_output=True, text=True,
                         env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"}, timeout=280)  # fmt: skip
    if ran.returncode == 3:
        pytest.skip(ran.stderr.strip()[-300:])
    assert ran.returncode == 0, ran.stderr[-2000:]


@pytest.fixture(scope="module")
def masks():
    """By image: odd sizes, a hole, one pixel, all pixels, 4097 pixels wide."""
    random = np.random.default_rng(0)
    ring = np.zeros((37, 53), bool)
    ring[4:30, 6:44] = True
    ring[10:20, 15:30] = False
    pixel = np.zeros((9, 14), bool)
    pixel[8, 0] = True
    wide = random.random((5, 4097)) < 0.3
    return {
        "ring": ring,
        "noise": random.random((23, 11)) < 0.5,
        "pixel": pixel,
        "full": np.ones((6, 7), bool),
        "wide": wide,
    }


@pytest.fixture(scope="module")
def suggestions(masks):
    return [
        Suggestion(
            f"{number:020d}",
            name,
            f"{name}.png",
            "shortcut",
            *mask.shape,
            1,
            0.5,
            "Look & see <here>.",
            "bee",
            encode_mask(mask),
        )
        for number, (name, mask) in enumerate(masks.items())
    ]


def test_label_studios_converter_reads_our_brush_and_we_read_its(masks, suggestions, tmp_path):
    (tmp_path / "tasks.json").write_bytes(label_studio_bytes(suggestions, NAMES))
    (tmp_path / "tasks.xml").write_text(label_config(NAMES))
    with_tools("label-studio", tmp_path)
    decoded = np.load(tmp_path / "decoded.npz")
    answers = {
        answer.id: answer
        for answer in read_label_studio_answers((tmp_path / "export.json").read_bytes(), "export.json", {})
    }
    for name, mask in masks.items():
        assert np.array_equal(decoded[name], mask), name
        assert np.array_equal(decode_mask(answers[name].mask), mask), name


def test_datumaro_reads_our_coco_and_we_read_its(masks, suggestions, tmp_path):
    """CVAT imports and exports COCO by this library."""
    (tmp_path / "coco" / "annotations").mkdir(parents=True)
    (tmp_path / "coco" / "images" / "default").mkdir(parents=True)
    (tmp_path / "coco" / "annotations" / "instances_default.json").write_bytes(coco_bytes(suggestions, NAMES))
    for name, mask in masks.items():
        Image.new("RGB", mask.shape[::-1]).save(tmp_path / "coco" / "images" / "default" / f"{name}.png")
    with_tools("datumaro", tmp_path)
    decoded = np.load(tmp_path / "decoded.npz")
    [file] = (tmp_path / "again" / "annotations").glob("*.json")
    again = json.loads(file.read_text())
    ids = {image["file_name"]: Path(image["file_name"]).stem for image in again["images"]}
    answers = {answer.id: answer for answer in read_coco_answers(file.read_bytes(), file.name, ids)}
    for name, mask in masks.items():
        assert np.array_equal(decoded[f"{name}|shortcut"], mask), name
        assert np.array_equal(decode_mask(answers[name].mask), mask), name


def test_labels_are_ranked_no_worse_than_by_cleanlab(tmp_path):
    """1200 points of five overlapping classes, 6 % of the labels wrong at random or preferring one class."""
    for kind in ("symmetric", "asymmetric"):
        random = np.random.default_rng(1)
        truth = np.repeat(np.arange(5), 240)
        features = random.normal(0, 1, (1200, 16)) + 2.2 * np.eye(5, 16)[truth]
        labels, wrong = truth.copy(), np.zeros(1200, bool)
        wrong[random.permutation(1200 if kind == "symmetric" else 480)[:72]] = True
        labels[wrong] = (truth[wrong] + (random.integers(1, 5, 72) if kind == "symmetric" else 1)) % 5
        probe = linear_probe(features, labels, 5)
        np.savez(tmp_path / "labels.npz", labels=labels, values=probe / probe.sum(axis=1, keepdims=True))
        with_tools("cleanlab", tmp_path)
        scores = np.load(tmp_path / "scores.npz")
        ours = roc_auc_score(wrong, label_quality(probe, label_probes(probe, features, labels), labels).suspicion)
        best = max(roc_auc_score(wrong, -scores[name]) for name in ("self_confidence", "normalized_margin"))
        assert ours >= best - 0.005, (kind, ours, best)


def test_fiftyone_imports_our_folder_and_we_read_its_export(masks, suggestions, tmp_path):
    folder = tmp_path / "dataset"
    folder.mkdir()
    local = []
    for it in suggestions:
        Image.new("RGB", (it.width, it.height)).save(tmp_path / it.uri)
        local.append(replace(it, uri=str(tmp_path / it.uri)))
    assert write_fiftyone_tasks(local, folder, FsspecReader(str(tmp_path))) == 0
    with_tools("fiftyone", tmp_path)
    answers = read_fiftyone_answers(str(tmp_path / "again"))
    assert {answer.id for answer in answers if answer.called == "unsure"} == set(masks)
    for answer in answers:
        if answer.called == "shortcut":
            assert np.array_equal(decode_mask(answer.mask), masks[answer.id]), answer.id
