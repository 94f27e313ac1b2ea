"""A whole run over every kind of source: the same images give the same rows, whatever holds them."""

from __future__ import annotations

import hashlib
import json
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator

import fsspec
import heatlas
import pytest
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.store.committed_shards import done_shards
from heatlas.pipeline.store.content_digest import logical_digest

from ..support import data_sets
from ..support.tiny_run import CLASSES, command, draw, draw_all, environment, importable_factory, program, wait_until

COUNT = 6
ROW = ("prediction", "confidence", "label", "status")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    with importable_factory(tmp_path_factory.mktemp("sources")) as folder:
        (folder / "tiny_data.py").write_text(data_sets.FACTORY)
        draw_all(folder / "images", COUNT)
        yield folder
        sys.modules.pop("tiny_data", None)


@pytest.fixture(scope="module")
def plain(place: pathlib.Path) -> dict[int, tuple]:
    """The rows of the image folder by number, to which those of all other sources are equal."""
    assert main(command(place / "images", place / "plain")) == 0
    return dict(sorted((int(identity[-7:-4]), row) for identity, row in rows(place / "plain").items()))


def rows(out: pathlib.Path) -> dict[str, tuple]:
    frame = heatlas.open(out).to_pandas(["id", *ROW])
    return {row.id: tuple(getattr(row, name) for name in ROW) for row in frame.itertuples()}


def run(data: object, out: pathlib.Path, *more: str) -> heatlas.Atlas:
    assert main(command(data, out, *more)) == 0
    return heatlas.open(out)


def test_tars(place: pathlib.Path, plain: dict[int, tuple], tmp_path: pathlib.Path):
    data_sets.write_tars(tmp_path / "tars", [4, 2])
    atlas = run(tmp_path / "tars", tmp_path / "out", "--shard-size", "auto")
    ids = [f"train-{number // 4:03d}.tar/{number:03d}" for number in range(COUNT)]
    assert rows(tmp_path / "out") == dict(zip(ids, plain.values(), strict=True))
    table = atlas.table(["id", "camera", "exposure", "ebpg"]).to_pylist()
    assert [(row["camera"], row["exposure"]) for row in table] == [(f"c{n % 2}", n / 4) for n in range(COUNT)]
    assert all(row["ebpg"] is not None for row in table), "boxes stand in the .json"
    # a tar is a shard, also where shards of equal size would be others
    assert atlas.run["fingerprint"]["plan"]["sizes"] == [4, 2]
    assert [len(heatlas.open(tmp_path / "out").sql(f"FROM '{path}'")) for path in sorted((tmp_path / "out" / "maps").iterdir())] == [4, 2]  # fmt: skip
    assert main(["verify", str(tmp_path / "out")]) == 0
    assert main(["show", str(tmp_path / "out"), "--limit", "2"]) == 0
    assert len(list((tmp_path / "out" / "_show").iterdir())) == 2


@pytest.mark.parametrize("pattern", ["train-{000..001}.tar", "train-*.tar", "train-{000,001}.tar", "train-00?.tar"])
def test_patterns_of_tars_give_the_ids_of_their_folder(tmp_path: pathlib.Path, pattern: str):
    data_sets.write_tars(tmp_path / "tars", [2, 1])
    whole = heatlas_listing(tmp_path / "tars")
    assert heatlas_listing(f"{tmp_path}/tars/{pattern}").equals(whole)
    assert whole["id"].to_pylist() == ["train-000.tar/000", "train-000.tar/001", "train-001.tar/002"]


def heatlas_listing(data: object):
    from ..support.listings import list_samples

    return list_samples(str(data))


@pytest.mark.parametrize("hugging_face", [True, False])
def test_parquet_with_images(place: pathlib.Path, plain: dict[int, tuple], tmp_path: pathlib.Path, hugging_face: bool):
    data_sets.write_parquet(tmp_path / "data" / "a.parquet", range(4), hugging_face=hugging_face)
    data_sets.write_parquet(tmp_path / "data" / "b.parquet", range(4, COUNT), hugging_face=hugging_face)
    atlas = run(tmp_path / "data", tmp_path / "out")
    ids = [*(f"a.parquet/{row:09d}" for row in range(4)), "b.parquet/000000000", "b.parquet/000000001"]
    assert rows(tmp_path / "out") == dict(zip(ids, plain.values(), strict=True))
    assert atlas.table(["site"])["site"].to_pylist() == [f"site {number % 2}" for number in range(COUNT)]
    assert atlas.class_names == (CLASSES if hugging_face else ())


def test_hugging_face_directory(place: pathlib.Path, plain: dict[int, tuple], tmp_path: pathlib.Path):
    pytest.importorskip("datasets")
    data_sets.write_hf(tmp_path / "set", COUNT, num_shards=2)
    atlas = run(tmp_path / "set", tmp_path / "out")
    assert rows(tmp_path / "out") == {f"{number:09d}": row for number, row in plain.items()}
    assert atlas.table(["source"])["source"].to_pylist() == [f"s{number % 2}" for number in range(COUNT)]
    assert atlas.class_names == CLASSES


def test_coco_images(place: pathlib.Path, plain: dict[int, tuple], tmp_path: pathlib.Path):
    annotations = data_sets.write_coco(tmp_path / "coco", COUNT)
    atlas = run(f"coco:{annotations}", tmp_path / "out")
    assert rows(tmp_path / "out") == {f"{number:03d}.png": row for number, row in plain.items()}
    table = atlas.table(["id", "ebpg", "categories", "image_id", "license"]).to_pylist()
    assert [row["categories"] for row in table[:3]] == ["ant, bee", "bee, cat", "ant, cat"]
    assert [(row["image_id"], row["license"]) for row in table] == [(number, number % 2) for number in range(COUNT)]
    # the polygon is the square, so boxes alone measure the same
    content = json.loads(annotations.read_text())
    for annotation in content["annotations"]:
        del annotation["segmentation"]
    annotations.write_text(json.dumps(content))
    boxed = run(annotations, tmp_path / "boxed").table(["ebpg"])["ebpg"].to_pylist()
    assert boxed == [row["ebpg"] for row in table]
    assert None not in boxed


def test_coco_annotations(place: pathlib.Path, plain: dict[int, tuple], tmp_path: pathlib.Path):
    annotations = data_sets.write_coco(tmp_path / "coco", 3)
    atlas = run(f"coco:{annotations}", tmp_path / "out", "--rows", "annotation")
    result = rows(tmp_path / "out")
    assert list(result) == [f"{number // 2:03d}.png#{number}" for number in range(6)]
    for number, (prediction, score, label, status) in enumerate(result.values()):
        assert (prediction, score, status) == (plain[number // 2][0], plain[number // 2][1], "ok")
        assert label == (number // 2 + number % 2) % 3
    ebpg = atlas.table(["ebpg"])["ebpg"].to_pylist()
    assert ebpg[0] > ebpg[1] > 0, "the square has more of the map's mass than the small one"


@pytest.mark.parametrize("rows_of", ["image", "annotation"])
def test_voc(place: pathlib.Path, plain: dict[int, tuple], tmp_path: pathlib.Path, rows_of: str):
    data_sets.write_voc(tmp_path / "voc", 3)
    atlas = run(tmp_path / "voc", tmp_path / "out", "--rows", rows_of)
    result = rows(tmp_path / "out")
    if rows_of == "image":
        assert result == {f"2007_{number:03d}": plain[number] for number in range(3)}
        assert atlas.table(["classes"])["classes"].to_pylist() == ["ant, bee", "bee, cat", "ant, cat"]
        ids = tmp_path / "voc" / "ImageSets" / "Main" / "val.txt"
        assert list(rows_after(tmp_path / "voc", tmp_path / "val", "--ids", str(ids))) == ["2007_001", "2007_002"]
    else:
        assert list(result) == [f"2007_{number // 2:03d}#{number % 2}" for number in range(6)]
        assert atlas.table(["pose", "difficult"]).to_pylist() == [{"pose": "Left", "difficult": 0}] * 6
    assert None not in atlas.table(["ebpg"])["ebpg"].to_pylist()


def rows_after(data: object, out: pathlib.Path, *more: str) -> dict[str, tuple]:
    run(data, out, *more)
    return rows(out)


def test_torchvision_image_folder_is_read_as_files(
    place: pathlib.Path, plain: dict[int, tuple], tmp_path: pathlib.Path
):
    atlas = run(f"torchvision:ImageFolder@{place}/images", tmp_path / "out")
    assert rows(tmp_path / "out") == rows(place / "plain")
    assert atlas.class_names == CLASSES


def test_torchvision_cifar10_from_disk(place: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    write_cifar10(tmp_path / "root", monkeypatch)
    data = f"torchvision:CIFAR10@{tmp_path}/root?train=false"
    atlas = run(data, tmp_path / "out", "--where", "label = 'cat'", "--allow-unlabelled")
    assert atlas.table(["id", "label", "height", "status"]).to_pylist() == [
        {
            "id": "000000001",
            "label": None,
            "height": 32,
            "status": "ok",
        }  # three classes in this model, cat is another's fourth
    ]
    assert main(["show", str(tmp_path / "out")]) == 1, "its images come from code"
    assert main(["show", str(tmp_path / "out"), "--trust-code"]) == 0


def write_cifar10(root: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of CIFAR10's own form, whose checksums torchvision is told."""
    import pickle

    import numpy as np
    from torchvision.datasets import CIFAR10

    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    batch = {"data": np.random.default_rng(0).integers(0, 255, (3, 3072), dtype=np.uint8), "labels": [0, 3, 9]}
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    sums = {}
    for name, content in (("test_batch", batch), ("batches.meta", {"label_names": names})):
        (folder / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR10, "train_list", [])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(
        CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]}
    )


def test_torchvision_voc_is_read_as_voc(place: pathlib.Path, plain: dict[int, tuple], tmp_path: pathlib.Path):
    root = tmp_path / "root" / "VOCdevkit" / "VOC2012"
    data_sets.write_voc(root, 3)
    for path in list((root / "JPEGImages").iterdir()):
        path.rename(path.with_suffix(".jpg"))
    data = f"torchvision:VOCDetection@{tmp_path}/root?year=2012&image_set=val"
    result = run(data, tmp_path / "out", "--allow-unlabelled").table(["id", "confidence", "status", "ebpg"]).to_pylist()
    assert [(row["id"], row["confidence"], row["status"]) for row in result] == [
        (f"2007_{number:03d}", plain[number][1], "ok") for number in (1, 2)
    ]
    assert all(row["ebpg"] is not None for row in result), "boxes come from the annotations"


def test_python_factory(place: pathlib.Path, plain: dict[int, tuple], tmp_path: pathlib.Path):
    atlas = run("tiny_data:squares", tmp_path / "out")
    result = rows(tmp_path / "out")
    assert {int(result): row for result, row in result.items() if row[3] == "ok"} == {
        n: plain[n] for n in (0, 1, 2, 3, 5)
    }
    [error] = atlas.table(["error"], where="status = 'read_error'")["error"].to_pylist()
    assert error == "cannot read item://4/python:tiny_data:squares: item 4 raised OSError: disk on fire"
    assert run("python:tiny_data:squares", tmp_path / "again").table(["uri", "error"]) == atlas.table(["uri", "error"])
    assert atlas.class_names == CLASSES


def test_manifest_columns_travel_and_can_be_chosen(place: pathlib.Path, tmp_path: pathlib.Path, capsys):
    lines = ["uri,label,width,camera,007,when"]
    lines += [
        f"images/{CLASSES[n % 3]}/{n:03d}.png,{n % 3},{100 + n},cam{n % 2},00{n},2026-01-0{n + 1}" for n in range(COUNT)
    ]
    (place / "manifest.csv").write_text("\n".join(lines) + "\n")
    assert "data_width" in run(place / "manifest.csv", tmp_path / "as-it-is").schema.names
    assert main(command(place / "manifest.csv", tmp_path / "out", "--columns.extra", "width")) == 2
    told = capsys.readouterr().err
    assert "the data set's column 'width' would be 'width' in the store, which has a column 'width' already" in told
    assert "--columns.extra all,width=NEW" in told
    assert not (tmp_path / "out").exists()
    atlas = run(place / "manifest.csv", tmp_path / "out", "--columns.extra", "all,width=pixels")
    [first] = atlas.table(["pixels", "camera", "007", "when"], where="id LIKE '%001.png'").to_pylist()
    assert first == {"pixels": 101, "camera": "cam1", "007": "001", "when": "2026-01-02"}
    assert atlas.sql("SELECT camera, count(*) FROM atlas GROUP BY 1 ORDER BY 1").fetchall() == [
        ("cam0", 3),
        ("cam1", 3),
    ]
    assert "pixels" not in {row["metric"] for row in atlas.summary().to_pylist()}, "a number, but no metric"
    assert main(["verify", str(tmp_path / "out")]) == 0
    names = run(place / "manifest.csv", tmp_path / "none", "--columns.extra", "none").schema.names
    assert not {"pixels", "camera", "007", "when"} & set(names)
    assert run(place / "manifest.csv", tmp_path / "one", "--columns.extra", "camera").schema.names == [*names, "camera"]
    # what the store holds belongs to the run
    assert main(command(place / "manifest.csv", tmp_path / "one", "--columns.extra", "none")) == 2
    assert "belongs to another run" in capsys.readouterr().err


def test_metrics_are_added_to_a_run_over_tars(place: pathlib.Path, tmp_path: pathlib.Path):
    data_sets.write_tars(tmp_path / "tars", [2, 1])
    out = tmp_path / "out"
    run(tmp_path / "tars", out, "--store.map-size", "input")
    assert main(["evaluate", str(out), "--metrics", "gini", "--workers", "0"]) == 0
    atlas = heatlas.open(out)
    assert None not in atlas.table(["gini", "camera"])["gini"].to_pylist()
    assert atlas.table(["camera"])["camera"].to_pylist() == ["c0", "c1", "c0"]


def test_error_rows_of_a_coco_run_are_retried(place: pathlib.Path, plain: dict[int, tuple], tmp_path: pathlib.Path):
    annotations = data_sets.write_coco(tmp_path / "coco", 4)
    (tmp_path / "coco" / "val" / "002.png").unlink()
    result = rows_after(annotations, tmp_path / "out")
    assert [row[3] for row in result.values()] == ["ok", "ok", "read_error", "ok"]
    draw(tmp_path / "coco" / "val" / "002.png", 2)
    assert main(command(annotations, tmp_path / "out", "--retry-errors")) == 0
    assert rows(tmp_path / "out") == {f"{number:03d}.png": plain[number] for number in range(4)}


@pytest.mark.parametrize("kind", ["tar", "coco"])
def test_killed_run_resumes_to_the_same_content(place: pathlib.Path, tmp_path: pathlib.Path, kind: str):
    count = 24
    if kind == "tar":
        data_sets.write_tars(tmp_path / "set", [2] * (count // 2))
        data = tmp_path / "set"
    else:
        data = data_sets.write_coco(tmp_path / "set", count)
    how = ("--shard-size", "auto") if kind == "tar" else ("--shard-size", "2", "--rows", "annotation")
    calm, out = tmp_path / "calm", tmp_path / "out"
    run(data, calm, *how)
    with subprocess.Popen(
        program(*command(data, out, *how)), env=environment(place), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as driver:
        assert wait_until(lambda: ((out / "_run.json").exists() and done_shards(str(out))) or driver.poll() is not None)
        driver.send_signal(signal.SIGKILL)
    before = done_shards(str(out))
    assert 0 < len(before) < len(done_shards(str(calm)))
    run(data, out, *how)
    assert logical_digest(str(out)) == logical_digest(str(calm))
    assert before.items() <= done_shards(str(out)).items()


def test_tars_coco_and_parquet_in_memory(place: pathlib.Path, plain: dict[int, tuple], tmp_path: pathlib.Path):
    """Remote for fsspec: every byte goes through its file systems."""
    memory = fsspec.filesystem("memory")
    root = f"/sources-{tmp_path.name}"
    data_sets.write_tars(tmp_path / "tars", [2, 2])
    data_sets.write_parquet(tmp_path / "pq" / "a.parquet", range(3))
    data_sets.write_coco(tmp_path / "coco", 3)
    data_sets.write_voc(tmp_path / "voc", 3)
    memory.put(str(tmp_path), root, recursive=True)
    for kind, data, count in (
        ("tar", f"memory:/{root}/tars/train-{{000..001}}.tar", 4),
        ("parquet", f"memory:/{root}/pq", 3),
        ("coco", f"coco:memory:/{root}/coco/annotations/instances_val.json", 3),
        ("voc", f"memory:/{root}/voc", 3),
    ):
        result = rows_after(data, tmp_path / f"out-{kind}")
        assert list(result.values()) == [plain[number] for number in range(count)], kind
    memory.rm(root, recursive=True)
