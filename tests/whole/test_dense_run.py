"""A segmentation model from the command to the store: the same pipeline, another score."""

from __future__ import annotations

import json
import pathlib
import shutil

import heatlas
import numpy as np
import pytest
from heatlas.errors import UsageError
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.compare.pairs import Side, paired
from PIL import Image

from ..support.tiny_run import importable_factory

FACTORY = '''
import torch
from torch import nn


class Segmenter(nn.Module):
    """Background, red, green and blue, by the colour of each pixel; returns torchvision's dict."""

    class_names = ("background", "red", "green", "blue")
    preprocess = {"size": [16, 20], "resize": "squash", "mean": [0, 0, 0], "std": [1, 1, 1]}

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.low, self.high, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
        with torch.no_grad():
            for conv in (self.low, self.high):
                conv.weight.mul_(0.05)
                conv.weight[[0, 1, 2], [0, 1, 2], 1, 1] = 1.0
                conv.bias.zero_()
            self.head.weight.zero_()
            self.head.weight[[1, 2, 3], [0, 1, 2]] = 6.0
            self.head.bias.copy_(torch.tensor([1.5, 0.0, 0.0, 0.0]))

    def forward(self, images):
        maps = nn.functional.max_pool2d(torch.relu(self.low(images)), 2)
        logits = self.head(torch.relu(self.high(maps)))
        return {"out": nn.functional.interpolate(logits, images.shape[2:], mode="bilinear", align_corners=False)}


def segmenter(): return Segmenter()
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    with importable_factory(tmp_path_factory.mktemp("dense"), FACTORY) as folder:
        (folder / "images").mkdir()
        for number in range(3):
            pixels = np.zeros((32, 40, 3), np.uint8)
            pixels[4:20, 4:20, number % 2] = 255  # red, green, red
            pixels[20:28, 24:36, 2] = 255
            Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        yield folder


def command(folder: pathlib.Path, out: pathlib.Path, *more: str) -> list[str]:
    what = ["explain", "--model", "tiny_net:segmenter", "--data", str(folder / "images"), "--out", str(out)]
    return [*what, "--batch-size", "8", "--workers", "0", *more]


def test_every_class_that_is_there_is_explained(folder: pathlib.Path, tmp_path: pathlib.Path):
    out = tmp_path / "out"
    assert main(command(folder, out, "--target", "top:2", "--store.map-size", "input")) == 0
    rows = heatlas.open(out).to_pandas(["id", "prediction", "target", "confidence", "status", "drop_pct"])
    assert list(rows["status"]) == ["ok"] * 6
    assert list(rows["target"]) == [1, 3, 2, 3, 1, 3], "the larger first, background never before what is there"
    assert list(rows["prediction"]) == [1, 1, 2, 2, 1, 1]
    assert rows["confidence"].between(0.3, 1).all()
    assert rows["drop_pct"].notna().all()
    atlas = heatlas.open(out)
    big, small = atlas.maps(["0.png"], target=1)[0], atlas.maps(["0.png"], target=3)[0]
    assert big[2:10, 2:10].mean() > 3 * big[10:14, 12:18].mean()
    assert small[10:14, 12:18].mean() > 3 * small[2:10, 2:10].mean()
    assert json.loads((out / "_run.json").read_text())["fingerprint"]["score"] == "segmentation"
    assert main(["evaluate", str(out), "--metrics", "average_gain_pct", "--workers", "0"]) == 0
    assert main(["verify", str(out)]) == 0
    assert main(["show", str(out)]) == 0


def test_a_class_that_is_nowhere(folder: pathlib.Path, tmp_path: pathlib.Path):
    assert main(command(folder, tmp_path / "out", "--target", "red", "--metrics", "none")) == 0
    rows = heatlas.open(tmp_path / "out").to_pandas(["status", "error", "confidence"])
    assert list(rows["status"]) == ["ok", "no_evidence", "ok"]
    assert rows["error"][1] == "the model finds class 1 nowhere in the image"


def test_plan_knows_dense_models(
    folder: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    from heatlas.pipeline.plan import probe

    monkeypatch.setattr(probe, "TIMED", 0.01)
    capsys.readouterr()
    assert main(["plan", *command(folder, folder / "none")[1:], "--target", "top:3", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["rows_per_image"] == 3
    assert result["findings"] == []


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (
            ["--confidence", "softmax"],
            "gives every pixel its class: leave --confidence out, or say segmentation or dice",
        ),
        (["--target", "above:0.5"], "is for multi-label classifiers; of a dense model explain"),
        (["--method", "bee"], "methods that fit it: "),
    ],
)
def test_what_does_not_go_together_is_refused(
    more: list[str], text: str, folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
):
    assert main(command(folder, tmp_path / "out", *more)) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def scene(folder: pathlib.Path) -> pathlib.Path:
    """One red square, two of different size with a single pixel, none, and six; what is marked is the largest of the first two."""
    images, masks = folder / "objects", folder / "masks"
    images.mkdir()
    masks.mkdir()
    squares = {
        "a": [(4, 4, 16)],
        "b": [(2, 2, 14), (20, 26, 10)],
        "c": [],
        "d": [(2 + 18 * (n // 3), 2 + 14 * (n % 3), 6) for n in range(6)],
    }
    rows = ["uri,mask,label"]
    for name, places in squares.items():
        pixels, mask = np.zeros((32, 40, 3), np.uint8), np.zeros((32, 40), np.uint8)
        for top, left, side in places:
            pixels[top : top + side, left : left + side, 0] = 255
        for top, left, side in places[:1]:
            mask[top : top + side, left : left + side] = 255
        Image.fromarray(pixels).save(images / f"{name}.png")
        Image.fromarray(mask).save(masks / f"{name}.png")
        rows.append(f"objects/{name}.png,masks/{name}.png,red")
    (folder / "objects.csv").write_text("\n".join(rows) + "\n")
    return folder / "objects.csv"


@pytest.fixture(scope="module")
def objects_store(folder: pathlib.Path, scene: pathlib.Path) -> pathlib.Path:
    out = folder / "objects-out"
    what = [
        "explain",
        "--model",
        "tiny_net:segmenter",
        "--data",
        str(scene),
        "--out",
        str(out),
        "--batch-size",
        "8",
        "--workers",
        "0",
    ]
    more = [
        "--target",
        "components:red:4",
        "--method",
        "rise",
        "--rise.masks",
        "300",
        "--metrics",
        "ebpg",
        "iou_half",
        "context_class",
        "--store.map-size",
        "input",
    ]
    assert main([*what, *more]) == 0
    return out


def test_every_object_of_a_class_has_a_row(objects_store: pathlib.Path):
    atlas = heatlas.open(objects_store)
    rows = atlas.to_pandas(["id", "object_id", "target", "status", "error", "box", "ebpg", "confidence"])
    keys = [
        (row["id"][-5], row["object_id"], row["status"])
        for row in atlas.table(["id", "object_id", "status"]).to_pylist()
    ]
    assert keys == [
        ("a", "001", "ok"), ("b", "001", "ok"), ("b", "002", "ok"), ("c", None, "no_evidence"),
        *(("d", f"{number:03d}", "ok") for number in range(1, 5)), ("d", "more", "no_target"),
    ]  # fmt: skip
    assert set(rows["target"]) == {1}
    assert rows["error"][3] == "the model finds class 1 nowhere in the image"
    assert rows["error"].iloc[-1].startswith("2 of 6 components of class 1 are not explained: at most 4 of an image")
    first, second = rows["box"][1], rows["box"][2]
    assert all(
        abs(first[side] - value) <= 4 for side, value in zip(("x0", "y0", "x1", "y1"), (2, 2, 16, 16), strict=True)
    ), first
    assert all(
        abs(second[side] - value) <= 4 for side, value in zip(("x0", "y0", "x1", "y1"), (26, 20, 36, 30), strict=True)
    ), second
    assert rows["ebpg"].notna().tolist() == [True, True, False, False, True, False, False, False, False], (
        "what is marked belongs to the largest"
    )
    large, small = (atlas.maps([rows["id"][1]], object_id=each)[0] for each in ("001", "002"))
    assert large[1:8, 1:8].sum() / large[10:15, 13:18].sum() > 1.2 * small[1:8, 1:8].sum() / small[10:15, 13:18].sum()
    with pytest.raises(UsageError, match="choose one with target=CLASS and object_id=ID"):
        atlas.maps([rows["id"][1]], target=1)
    with pytest.raises(UsageError, match="for the object 007"):
        atlas.maps([rows["id"][1]], object_id="007")
    assert json.loads((objects_store / "_run.json").read_text())["fingerprint"]["score"] == "dice"


def test_every_command_tells_objects_apart(
    objects_store: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
):
    out, before = str(objects_store), heatlas.open(objects_store).table(["id", "object_id", "ebpg"]).to_pylist()
    assert main(["evaluate", out, "--metrics", "insertion_auc", "del_iou", "--workers", "0"]) == 0
    rows = heatlas.open(objects_store).to_pandas(["id", "object_id", "status", "insertion_auc", "del_iou", "ebpg"])
    assert rows["insertion_auc"].notna().tolist() == (rows["status"] == "ok").tolist()
    assert rows["del_iou"].notna().tolist() == rows["ebpg"].notna().tolist()
    assert rows["insertion_auc"][1] != rows["insertion_auc"][2]
    joined = (
        heatlas.open(objects_store)
        .sql("SELECT object_id, insertion_auc FROM atlas WHERE status = 'ok' ORDER BY id, object_id")
        .fetchall()
    )
    assert [value for _, value in joined] == pytest.approx(rows.loc[rows["status"] == "ok", "insertion_auc"].tolist())
    assert main(["verify", out]) == 0
    assert main(["compact", out]) == 0
    assert heatlas.open(objects_store).table(["id", "object_id", "ebpg"]).to_pylist() == before
    assert main(["show", out, "--out", str(tmp_path / "pictures")]) == 0
    assert len(list((tmp_path / "pictures").iterdir())) == 7
    assert main(["curate", out]) == 0
    assert main(["narrate", out]) == 0
    assert main(["report", out]) == 0
    for form, count in (("overlays", 7), ("coco", 7), ("csv", 9)):
        place = tmp_path / {"overlays": "overlays", "coco": "boxes.json", "csv": "rows.csv"}[form]
        assert main(["export", out, "--format", form, "--out", str(place)]) == 0
        if form == "overlays":
            assert len(list(place.rglob("*.png"))) == count
        elif form == "coco":
            assert (
                len({(each["image_id"], each["object_id"]) for each in json.loads(place.read_text())["annotations"]})
                == count
            )
        else:
            assert len(place.read_text().splitlines()) == count + 1
    shutil.copytree(out, tmp_path / "again")
    assert main(["compare", out, str(tmp_path / "again")]) == 0
    sides = [Side.of(heatlas.open(place), None) for place in (out, tmp_path / "again")]
    assert len(paired(*sides, ()).table) == 9
    assert main(["status", out]) == 0


def test_objects_outlive_a_repair_and_an_append(folder: pathlib.Path, scene: pathlib.Path, tmp_path: pathlib.Path):
    images = tmp_path / "images"
    images.mkdir()
    shutil.copy(folder / "objects" / "a.png", images / "a.png")
    (images / "b.png").write_bytes(b"no image")
    out = tmp_path / "out"
    call = [
        "explain",
        "--model",
        "tiny_net:segmenter",
        "--data",
        str(images),
        "--out",
        str(out),
        "--workers",
        "0",
        "--method",
        "rise",
        "--rise.masks",
        "20",
    ]
    call += ["--target", "components:1", "--metrics", "none"]

    def keys() -> list[tuple[str, str | None, str]]:
        rows = heatlas.open(out).table(["id", "object_id", "status"]).to_pylist()
        return [(row["id"][0], row["object_id"], row["status"]) for row in rows]

    assert main(call) == 0
    assert keys() == [("a", "001", "ok"), ("b", None, "decode_error")]
    shutil.copy(folder / "objects" / "b.png", images / "b.png")
    assert main([*call, "--retry-errors"]) == 0
    assert keys() == [("a", "001", "ok"), ("b", "001", "ok"), ("b", "002", "ok")]
    shutil.copy(folder / "objects" / "d.png", images / "d.png")
    assert main([*call, "--append"]) == 0
    assert keys()[3:] == [("d", f"{number:03d}", "ok") for number in range(1, 7)]
    assert main(call) == 0, "nothing is left to do"
    assert main(["verify", str(out)]) == 0


@pytest.mark.parametrize(
    ("target", "more", "text"),
    [
        ("components:", (), "names no class"),
        ("components:reed", (), "did you mean 'red'"),
        ("components:red:0", (), "with K, the most of an image, from 1 to 999"),
        ("components:red", ("--method", "lafam"), "gives every class, and every object of one, the same map"),
    ],
)
def test_targets_that_name_no_objects(
    target: str,
    more: tuple[str, ...],
    text: str,
    folder: pathlib.Path,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
):
    assert main(command(folder, tmp_path / "out", "--target", target, *more)) == 2
    assert text in capsys.readouterr().err
