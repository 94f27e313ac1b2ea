"""What files say before a run: white of deep images, sizes for which boxes were drawn, fractions, names of folders in any case."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from heatlas.errors import DataError
from heatlas.pipeline.explain.image_files import FileEvidence, file_evidence
from heatlas.pipeline.settings.load import load_settings
from heatlas.pipeline.shards import DRAWN_ON, SCALED_FROM
from heatlas.pipeline.sources import list_source
from heatlas.pipeline.sources.listing.boxes import settle_boxes
from heatlas.pipeline.sources.listing.options import SourceOptions
from heatlas.pipeline.sources.reading.reader import FsspecReader
from PIL import Image


def evidence(folder: Path, listing: pa.Table | None = None, **settings) -> FileEvidence:
    chosen = load_settings({"model": "m", "data": str(folder), "out": "o", **settings})
    if listing is None:
        listing = list_source(str(folder), SourceOptions()).listing
    return file_evidence(listing, FsspecReader(), chosen)


def grey(folder: Path, low: float, high: float, kind: type = np.uint16, count: int = 3) -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        values = np.linspace(low, high, 80).reshape(8, 10).astype(kind)
        Image.fromarray(values).save(folder / f"{number}.tif")
    return folder


@pytest.mark.check("file", "8, 10, 12 or 14 bits of data in 16-bit files", "said")
@pytest.mark.parametrize(
    ("high", "white"), [(200, 255.0), (1000, 1023.0), (4000, 4095.0), (9000, 16383.0), (65000, None)]
)
def test_white_of_sixteen_bit_images_comes_from_the_images(tmp_path: Path, high: int, white: float | None) -> None:
    seen = evidence(grey(tmp_path / "a", 0, high))
    assert seen.levels == (None if white is None else (0.0, white))
    assert bool(seen.notes) == (white is not None)
    if white is not None:
        assert not seen.clip
        assert f"run from 0 to {high}: 0 is taken for black and {white:g} for white" in seen.notes[0]


@pytest.mark.check("file", "`decode.range`", "known")
@pytest.mark.parametrize(
    ("rule", "levels"), [("dtype", None), ("minmax", (100.0, 4000.0)), ("50,3000", (50.0, 3000.0))]
)
def test_the_user_says_what_is_white(tmp_path: Path, rule: str, levels: tuple | None) -> None:
    assert evidence(grey(tmp_path / "a", 100, 4000), decode={"range": rule}).levels == levels


def test_percentiles_leave_outliers_out(tmp_path: Path) -> None:
    levels = evidence(grey(tmp_path / "a", 0, 10000), decode={"range": "percentile"}).levels
    assert levels is not None
    assert levels[0] == pytest.approx(100, abs=10)
    assert levels[1] == pytest.approx(9900, abs=10)


@pytest.mark.check("file", "float TIFFs of a range that nobody knows", "asked")
def test_floats_of_unknown_range_are_asked_for(tmp_path: Path) -> None:
    folder = grey(tmp_path / "a", -4, 12, np.float32)
    with pytest.raises(
        DataError, match=r"run from -4 to 12, and nobody says which are black and white: --decode.range minmax"
    ):
        evidence(folder)
    assert evidence(folder, decode={"range": "minmax"}).levels == (-4.0, 12.0)
    assert evidence(grey(tmp_path / "b", 0, 1, np.float32)).levels == (0.0, 1.0)


@pytest.mark.check("file", "float TIFFs of which one alone would have another white", "said")
def test_brighter_floats_of_a_set_are_not_black(tmp_path: Path) -> None:
    """One image within [0, 1] beside brighter ones: each on its own would have another white."""
    folder = grey(tmp_path / "a", 0, 1, np.float32, count=1)
    Image.fromarray(np.full((8, 10), 40, np.float32)).save(folder / "bright.tif")
    assert evidence(folder).levels == (0.0, 255.0)


def test_a_range_without_effect_is_said(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "a" / "x.png")
    assert evidence(tmp_path / "a", decode={"range": "0,4095"}).notes == (
        "--decode.range has no effect on images of 8 bits",
    )
    assert evidence(tmp_path / "a") == FileEvidence()
    with pytest.raises(DataError, match="LOW below HIGH"):
        evidence(grey(tmp_path / "b", 0, 9), decode={"range": "9,3"})


def voc(
    folder: Path, size: tuple[int, int] | None, box: tuple, names: tuple[str, str] = ("Annotations", "JPEGImages")
) -> Path:
    said = "" if size is None else f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    corners = "".join(
        f"<{name}>{value}</{name}>" for name, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    for name in names:
        (folder / name).mkdir(parents=True)
    xml = f"<annotation><filename>a.png</filename>{said}<object><name>crack</name><bndbox>{corners}</bndbox></object></annotation>"
    (folder / names[0] / "a.xml").write_text(xml)
    Image.new("RGB", (416, 416)).save(folder / names[1] / "a.png")
    return folder


def coco(folder: Path, size: tuple[int, int], box: list) -> Path:
    folder.mkdir()
    Image.new("RGB", (416, 416)).save(folder / "a.png")
    said = {"images": [{"id": 1, "file_name": "a.png", "width": size[0], "height": size[1]}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": box}], "categories": [{"id": 1, "name": "crack"}]}  # fmt: skip
    (folder / "instances.json").write_text(json.dumps(said))
    return folder / "instances.json"


@pytest.mark.check("file", "VOC `<size>` or COCO width and height that are not the image's", "asked")
@pytest.mark.parametrize("kind", ["voc", "coco"])
def test_boxes_drawn_on_pictures_of_another_size_are_refused(tmp_path: Path, kind: str) -> None:
    small = (
        voc(tmp_path / "a", (200, 200), (11, 21, 60, 80))
        if kind == "voc"
        else coco(tmp_path / "a", (200, 200), [10, 20, 50, 60])
    )
    listing = list_source(f"{kind}:{small}", SourceOptions()).listing
    assert listing[DRAWN_ON].to_pylist() == [[200, 200]]
    checked, notes = settle_boxes(listing, None)
    assert notes == ()
    with pytest.raises(
        DataError,
        match=r"drawn on a picture of 200 x 200 pixels, the image has 416 x 416: scale them with --labels.boxes scaled",
    ):
        evidence(small, checked)
    for rule in ("scaled", "pixels"):
        settled, _ = settle_boxes(listing, rule)
        evidence(small, settled)
        assert (SCALED_FROM in settled.column_names) == (rule == "scaled")
    right = voc(tmp_path / "b", (416, 416), (1, 1, 9, 9))
    evidence(right, list_source(f"voc:{right}", SourceOptions()).listing)


@pytest.mark.check("file", "boxes as fractions", "asked")
def test_boxes_as_fractions_are_noticed(tmp_path: Path) -> None:
    folder = voc(tmp_path / "a", None, (0.1, 0.2, 0.5, 0.9))
    listing = list_source(f"voc:{folder}", SourceOptions()).listing
    assert listing["boxes"].to_pylist() == [[[0.1, 0.2, 0.5, 0.9]]]
    with pytest.raises(
        DataError, match=r"look like fractions of the image's width and height: say --labels.boxes fractions"
    ):
        settle_boxes(listing, None)
    settled, _ = settle_boxes(listing, "fractions")
    assert settled[SCALED_FROM].to_pylist() == [[1, 1]]
    with pytest.raises(DataError, match="scaled needs the size"):
        settle_boxes(listing, "scaled")
    pixels = list_source(f"voc:{voc(tmp_path / 'b', None, (3, 4, 9, 9))}", SourceOptions()).listing
    with pytest.raises(DataError, match="fractions does not fit: a box reaches to 9"):
        settle_boxes(pixels, "fractions")


def test_boxes_that_cover_nothing_are_said(tmp_path: Path) -> None:
    path = coco(tmp_path / "a", (416, 416), [10, 20, 50, 0])
    _, notes = settle_boxes(list_source(f"coco:{path}", SourceOptions()).listing, None)
    assert notes == ("1 of 1 boxes have no width or no height and cover nothing",)


@pytest.mark.check("file", "`annotations/`, `jpegimages/` in any case", "known")
@pytest.mark.parametrize("names", [("annotations", "jpegimages"), ("ANNOTATIONS", "JpegImages")])
def test_folders_are_found_whatever_their_case(tmp_path: Path, names: tuple[str, str]) -> None:
    folder = voc(tmp_path / "a", (416, 416), (1, 1, 9, 9), names)
    [row] = list_source(str(folder), SourceOptions()).listing.to_pylist()
    assert row["label"] == "crack"
    assert Path(row["uri"]).exists()


def test_dicom_files_count_as_images(tmp_path: Path) -> None:
    (tmp_path / "a.DCM").write_bytes(b"")
    assert list_source(str(tmp_path), SourceOptions()).listing["id"].to_pylist() == ["a.DCM"]


def test_a_few_odd_files_do_not_refuse_the_others(tmp_path: Path) -> None:
    folder = grey(tmp_path / "a", -4, 12, np.float32, count=1)
    for number in range(3):
        Image.new("RGB", (9, 9)).save(folder / f"{number}.png")
    assert evidence(folder) == FileEvidence()
