"""COCO and VOC files: what does not fit together is refused, what is missing is a row, nothing leads out of the root."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest
from heatlas.errors import SampleError
from heatlas.pipeline.shards import EXTRA
from heatlas.pipeline.sources import list_source
from heatlas.pipeline.sources.listing.options import SourceOptions
from heatlas.pipeline.sources.reading.confinement import check_data_root
from heatlas.pipeline.sources.reading.reader import FsspecReader

from ..support import data_sets
from ..support.listings import list_samples, refusal

EXTRA_TOO = SourceOptions(extra=True)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"images": None}, "'images' must be a list"),
        ({"images": [{"id": 1}]}, "an element of 'images' in"),
        ({"images": [7]}, "not an object"),
        ({"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}]}, "the image id 1 of"),
        (
            {"images": [{"id": 0, "file_name": "000.png"}, {"id": 1, "file_name": "000.png"}]},
            "the id '000.png' names two samples",
        ),
        ({"images": []}, "lists no"),
        ({"annotations": [{"id": 5, "image_id": 9, "category_id": 0}]}, "annotation 5 of"),
        (
            {"annotations": [{"id": 5, "image_id": 0, "category_id": 9}]},
            "names category 9, which is not among its categories",
        ),
        ({"annotations": [{"id": 5, "image_id": 0, "category_id": 0, "bbox": [1, 2]}]}, "annotation 5 of"),
        ({"annotations": [{"id": 5, "category_id": 0}]}, "has image_id None"),
    ],
)
def test_coco_that_does_not_fit_together_is_refused(tmp_path: pathlib.Path, change: dict, expected: str):
    path = data_sets.write_coco(tmp_path, 1, change)
    text = refusal(f"coco:{path}")
    assert expected in text or ("images" in change and not change["images"] and "no list 'images'" in text)


def test_coco_file_that_is_cut_short_or_no_coco(tmp_path: pathlib.Path):
    path = data_sets.write_coco(tmp_path, 2)
    content = path.read_text()
    for end in (1, 60, len(content) // 2, len(content) - 1):
        path.write_text(content[:end])
        assert "is not readable JSON" in refusal(path)
    for text, expected in (
        ("[]", "it does not begin with {"),
        ("{}", "no list 'images'"),
        ('{"a": ' + "[" * 100_000, "is not readable"),
    ):
        path.write_text(text)
        assert expected in refusal(path)


def test_coco_images_are_looked_for_and_missing_ones_are_rows(tmp_path: pathlib.Path):
    path = data_sets.write_coco(tmp_path / "c", 3)
    (tmp_path / "c" / "val" / "001.png").unlink()
    uris = list_samples(str(path))["uri"].to_pylist()
    assert uris == [f"{tmp_path}/c/val/00{n}.png" for n in range(3)]
    with pytest.raises(SampleError, match="no such file"):
        FsspecReader().read(uris[1])
    (tmp_path / "c" / "val").rename(tmp_path / "elsewhere")
    text = refusal(path)
    assert "none of 3 images" in text
    assert "--images FOLDER" in text
    for how in ({"images": str(tmp_path / "elsewhere")}, {"data_root": str(tmp_path / "elsewhere")}):
        listing = list_source(str(path), SourceOptions(**how)).listing
        assert listing["uri"][0].as_py() == f"{tmp_path}/elsewhere/000.png"
    assert "there is no file or folder" in refusal(path, SourceOptions(images=str(tmp_path / "nowhere")))


def test_coco_cannot_lead_out_of_the_root(tmp_path: pathlib.Path):
    (tmp_path / "secret.png").write_bytes(b"secret")
    root = tmp_path / "root"
    images = [
        {"id": 1, "file_name": "../secret.png"},
        {"id": 2, "file_name": str(tmp_path / "secret.png")},
        {"id": 3, "file_name": "val/000.png"},
    ]
    path = data_sets.write_coco(root, 1, {"images": images, "annotations": []})
    confined = FsspecReader(check_data_root(str(root)))
    uris = list_source(str(path), SourceOptions(data_root=str(root))).listing["uri"].to_pylist()
    outcomes = []
    for uri in uris:
        try:
            outcomes.append(confined.read(uri)[:4])
        except SampleError as error:
            outcomes.append("outside of the data root" in str(error))
    assert sorted(map(str, outcomes)) == ["True", "True", str(b"\x89PNG")]


def test_coco_text_of_any_script_and_masks_by_their_bytes(tmp_path: pathlib.Path):
    """Offsets are in bytes, also behind text that is not ASCII, escaped or not."""
    path = data_sets.write_coco(tmp_path, 3)
    content = json.loads(path.read_text())
    content["categories"][1]["name"] = "Bienchen 蜂 é"
    content["images"][0]["where"] = "Überall"
    for escaped in (True, False):
        path.write_text(json.dumps(content, ensure_ascii=escaped, indent=1))
        listing = list_source(str(path), EXTRA_TOO).listing
        assert listing["label"].to_pylist() == ["ant", "Bienchen 蜂 é", "cat"]
        assert listing[f"{EXTRA}where"].to_pylist() == ["Überall", None, None]
        for number, uri in enumerate(listing["mask_uri"].to_pylist()):
            mask = data_sets.pixels_of(FsspecReader().read(uri)) > 0
            x0, y0, x1, y1 = data_sets.square(number)
            expected = np.zeros((data_sets.HEIGHT, data_sets.WIDTH), bool)
            expected[y0:y1, x0:x1] = True
            assert (mask == expected).all()


def test_coco_larger_than_the_window(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    from heatlas.pipeline.sources.listing import json_stream

    path = data_sets.write_coco(tmp_path, 9)
    whole = list_source(str(path), EXTRA_TOO).listing
    for window in (1, 7, 100):
        monkeypatch.setattr(json_stream, "WINDOW", window)
        assert list_source(str(path), EXTRA_TOO).listing.equals(whole)


def test_coco_label_is_the_largest_category_and_crowds_do_not_count(tmp_path: pathlib.Path):
    def annotation(identity: int, category: int, area: float, **more: Any) -> dict:
        return {"id": identity, "image_id": 0, "category_id": category, "area": area, "bbox": [0, 0, 2, 3], **more}

    rows = [annotation(1, 0, 50), annotation(2, 10, 30), annotation(3, 10, 30), annotation(4, 20, 900, iscrowd=1)]
    path = data_sets.write_coco(tmp_path, 2, {"annotations": rows})
    first, second = list_samples(str(path)).to_pylist()
    assert (first["label"], first["boxes"]) == ("bee", [[0, 0, 2, 3], [0, 0, 2, 3]])
    assert (second["label"], second["boxes"], second["mask_uri"]) == (None, [], None)
    ids = list_source(str(path), SourceOptions(rows="annotation")).listing["id"].to_pylist()
    assert ids == ["000.png#1", "000.png#2", "000.png#3"]


# VOC


@pytest.mark.parametrize(
    ("xml", "expected"),
    [
        ("<annotation>", "is not readable XML"),
        ("<html/>", "begins with <html>"),
        ("<annotation><object><bndbox/></object></annotation>", "has no <name>"),
        ("<annotation><object><name>a</name></object></annotation>", "must have xmin, ymin, xmax and ymax"),
        ("x" * (5 << 20), "more than the limit"),
        (
            '<!DOCTYPE a [<!ENTITY a0 "ha">' + "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12)) + "]><annotation>&a11;</annotation>",
            "is not readable XML",
        ),
        ('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>', "is not readable XML"),
    ],
)  # fmt: skip
def test_voc_that_cannot_be_read_is_refused(tmp_path: pathlib.Path, xml: str, expected: str):
    data_sets.write_voc(tmp_path, 1)
    (tmp_path / "Annotations" / "2007_000.xml").write_text(xml)
    text = refusal(tmp_path)
    assert expected in text
    assert "2007_000.xml" in text


def test_voc_files_that_are_missing_or_lead_elsewhere(tmp_path: pathlib.Path):
    data_sets.write_voc(tmp_path, 2)
    (tmp_path / "Annotations" / "2007_000.xml").write_text(data_sets.voc_xml("../../secret.png", []))
    (tmp_path / "JPEGImages" / "2007_001.png").unlink()
    assert list_samples(str(tmp_path))["uri"].to_pylist() == [f"{tmp_path}/JPEGImages/2007_00{n}.png" for n in (0, 1)]
    for path in (tmp_path / "Annotations").iterdir():
        path.unlink()
    assert "there is no .xml in" in refusal(f"voc:{tmp_path}")
    assert "is not a folder" in refusal(f"voc:{tmp_path}/JPEGImages/2007_000.png")


# data sets in Python
