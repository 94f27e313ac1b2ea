"""The corpus of bad and odd images through one real run, and again through two Ray workers: every row as its case says."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import heatlas
import numpy as np
import pytest
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.store.content_digest import logical_digest
from heatlas.statuses import OK

from ..support.checkout import ROOT, checkout_module
from ..support.corpus import CASES, CLASSES, Case, write_corpus
from ..support.listings import list_samples

COLUMNS = ["id", "status", "error", "height", "width", "prediction", "target", "confidence", "ebpg"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with `files`, `masks`, `manifest.jsonl`, and the network, which is importable meanwhile."""
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


def explain(corpus: Path, out: Path, workers: int) -> str:
    result = heatlas.explain_dataset(
        model="corpus_net:quarters", data=corpus / "manifest.jsonl", out=out, workers=workers, target="label", max_error_rate=1.0,
        batch_size=16, shard_size=16, allow_unlabelled=True,
    )  # fmt: skip
    return result.out


@pytest.fixture(scope="module")
def store(corpus: Path) -> Path:
    assert (corpus / "files" / "vanishing.png").exists()
    return Path(explain(corpus, corpus / "out", 0))


@pytest.fixture(scope="module")
def rows(store: Path) -> dict[str, dict[str, Any]]:
    result = heatlas.open(store).table(COLUMNS).to_pylist()
    assert len(result) == len(CASES), "a row for every case, whatever is wrong with it"
    return {row["id"]: row for row in result}


@pytest.mark.parametrize("case", CASES, ids=lambda case: ascii(case.id)[:40])
def test_every_case_becomes_what_it_should(case: Case, rows: dict[str, dict[str, Any]]) -> None:
    row = rows[case.id]
    assert (row["status"], case.text in (row["error"] or "")) == (case.status, True), row["error"]
    if case.status != OK:
        assert case.text, "an error says why"
        return
    assert row["error"] is None
    assert (row["height"], row["width"]) == case.size
    if case.scene:
        assert (row["prediction"], row["target"]) == (0, 0), f"the square is seen {CLASSES[row['prediction']]}"
        assert row["confidence"] > 0.99


def test_the_corpus_is_as_large_and_as_varied_as_it_should_be() -> None:
    assert len(CASES) >= 60
    assert len({case.id for case in CASES}) == len(CASES)
    assert {case.status for case in CASES} == {"ok", "decode_error", "read_error", "label_error", "truth_error"}


def test_turned_images_give_the_same_maps_and_the_same_scores_on_their_boxes(
    store: Path, rows: dict[str, dict[str, Any]]
) -> None:
    ids = [f"turned-{turn}.jpg" for turn in range(1, 9)]
    upright, *turned = heatlas.open(store).maps(ids)
    assert upright.max() > 0.5
    for entry in turned:
        assert np.abs(entry - upright).mean() < 0.02
    assert [rows[id]["ebpg"] for id in ids] == pytest.approx([rows[ids[0]]["ebpg"]] * 8, abs=0.01)


@pytest.mark.soak
def test_two_workers_store_the_same(corpus: Path, store: Path, tmp_path: Path, local_ray: None) -> None:
    assert logical_digest(explain(corpus, tmp_path / "out", 2)) == logical_digest(str(store))


def test_a_folder_lists_every_file_whatever_its_name(corpus: Path, store: Path) -> None:
    """Nothing goes missing silently; a folder named like an image is walked into."""
    suffixes = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".jp2")
    files = corpus / "files"
    names = [
        os.fsencode(name).decode("utf-8", "backslashreplace")
        for name in os.listdir(files)
        if not (files / name).is_dir()
    ]
    expected = sorted(name for name in names if name.endswith(suffixes))
    assert len(expected) > 100
    assert list_samples(str(corpus / "files"))["id"].to_pylist() == expected


def test_pictures_of_hostile_ids_stay_in_their_folder(
    corpus: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path for path in corpus.rglob("*") if "out" not in path.parts}
    ids = [case.id for case in CASES if case.group == "Names" and case.status == OK]
    assert main(["show", str(store), *(f"--id={id}" for id in ids), "--out", str(corpus / "out" / "pictures")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(ids) == len(list((corpus / "out" / "pictures").iterdir()))
    assert all(line.isprintable() and line.startswith(f"{store}/pictures/") for line in lines)
    assert {path for path in corpus.rglob("*") if "out" not in path.parts} == before
    assert not Path("/etc/heatlas-evil").exists()


def test_what_is_printed_of_hostile_names_is_harmless(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(store)]) == 0
    assert main(["show", str(store), "--limit", "999", "--out", str(store / "all")]) == 0
    assert main(["show", str(store), "--id", "\x1b[2J", "a\u202eb", "two\nlines"]) == 1
    out, err = capsys.readouterr()
    assert all(line.isprintable() for line in (out + err).splitlines())
    assert r"'two\nlines': not in" in out


def test_the_page_in_the_docs_says_what_this_corpus_says() -> None:
    table = checkout_module("docs.generate.bad_images_page")
    written = (ROOT / "docs" / "bad-images.md").read_text(encoding="utf-8")
    assert written == table.page(table.corpus()), "run `python -m docs.generate bad_images`"
    assert all(line.isprintable() for line in written.splitlines())
