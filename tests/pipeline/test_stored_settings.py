"""Relative places in a run's settings mean the folder where it was started, from wherever they are read again."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import heatlas
import pytest
from heatlas.errors import DataError
from heatlas.pipeline.decisions.manifest import write_manifest
from heatlas.pipeline.store.run_file import read_run
from heatlas.pipeline.stored_settings import data_seen_from, settings_of_run
from heatlas.pipeline.view.serve import start_view

from ..support.embedded_store import write_embedded
from ..support.view_client import Client


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("data/manifest.csv", "/run/data/manifest.csv"),
        ("../data", "/data"),
        ("./shards/{000..012}.tar", "/run/./shards/{000..012}.tar"),
        ("coco:instances.json", "coco:/run/instances.json"),
        ("folder:/data/images", "folder:/data/images"),
        ("/data/images", "/data/images"),
        ("~/images", "~/images"),
        ("s3://bucket/images", "s3://bucket/images"),
        ("hf:gs://bucket/set", "hf:gs://bucket/set"),
        ("torchvision:CIFAR10@root?train=false", "torchvision:CIFAR10@/run/root?train=false"),
        ("torchvision:FakeData?size=4", "torchvision:FakeData?size=4"),
        ("python:package.module:function", "python:package.module:function"),
        ("package.module:function", "package.module:function"),
    ],
)
def test_a_place_is_that_of_the_runs_folder(data: str, expected: str) -> None:
    assert data_seen_from(data, "/run") == expected


def test_a_file_whose_name_looks_like_a_prefix_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "coco:1.csv").write_text("uri\n")
    assert data_seen_from("coco:1.csv", str(tmp_path)) == str(tmp_path / "coco:1.csv")


def test_runs_of_older_releases_keep_their_paths() -> None:
    settings: dict[str, Any] = {"data": "data", "images": "images", "model": "m"}
    assert settings_of_run({"settings": settings}) == settings
    moved = settings_of_run({"settings": settings, "started_in": "/run"})
    assert (moved["data"], moved["images"], moved["model"]) == ("/run/data", "/run/images", "m")


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store whose run was started beside its data, named by a relative path; this process is in another folder."""
    (tmp_path / "started").mkdir()
    monkeypatch.chdir(tmp_path / "started")
    out = write_embedded(tmp_path / "out", tmp_path / "started" / "images", 12, data="images/data.jsonl")
    (tmp_path / "another").mkdir()
    monkeypatch.chdir(tmp_path / "another")
    return out


def test_the_object_and_the_manifest_are_found_from_another_folder(elsewhere: Path, tmp_path: Path) -> None:
    assert read_run(str(elsewhere))["settings"]["data"] == "images/data.jsonl"
    server = start_view(str(elsewhere), who="ada")
    try:
        client = Client(server)
        assert client.get("truth/0")["kind"] == "boxes"
        client.json("decide", {"rows": [2], "kind": "drop"})
        status, headers, content = client.post("manifest", {})
        assert (status, headers["x-heatlas-name"]) == (200, "manifest.csv")
        rows = list(csv.DictReader(io.StringIO(content.decode())))
        assert [row["id"] for row in rows] == [f"image-{number:04d}" for number in range(12) if number != 2]
        assert all(os.path.isabs(row["uri"]) for row in rows)
    finally:
        server.stop()
    assert write_manifest(heatlas.open(str(elsewhere)), str(tmp_path / "labels.csv")).dropped == 1


def test_a_run_that_does_not_name_its_folder_says_what_to_do(elsewhere: Path, tmp_path: Path) -> None:
    path = elsewhere / "_run.json"
    run = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in run.items() if name != "started_in"}))
    with pytest.raises(DataError, match="run the command in the folder where the run was started"):
        write_manifest(heatlas.open(str(elsewhere)), str(tmp_path / "labels.csv"))
    server = start_view(str(elsewhere))
    try:
        assert "in the folder where the run was started" in Client(server).get("truth/0")["reason"]
    finally:
        server.stop()
