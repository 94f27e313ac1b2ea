"""What files say before a run: white of deep images, sizes for which boxes were drawn, fractions, names of folders in any case."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from heatlas.errors import DataError, SampleError
from heatlas.pipeline.explain.image_files import FileEvidence, file_evidence
from heatlas.pipeline.settings.load import load_settings
from heatlas.pipeline.shards import DRAWN_ON, SCALED_FROM
from heatlas.pipeline.sources import list_source
from heatlas.pipeline.sources.listing.boxes import settle_boxes
from heatlas.pipeline.sources.listing.options import SourceOptions
from heatlas.pipeline.sources.reading.reader import FsspecReader
from heatlas.workers.images.decode import decode_input
from heatlas.workers.images.preprocess import Preprocess, with_overrides
from heatlas.workers.models.load import ModelSpec
from PIL import Image, ImageCms


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
    assert evidence(tmp_path / "a") == FileEvidence(clip=False), "a deep image would be an error: nobody said its white"
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
    seen = evidence(folder)
    assert (seen.levels, seen.clip) == (None, False)
    assert (
        "1 of 4 images looked at become error rows: of one of them, its numbers (float32) run from -4 to 12"
        in seen.notes[0]
    )


def saved(folder: Path, name: str, values: np.ndarray, **options) -> None:
    folder.mkdir(exist_ok=True)
    Image.fromarray(values).save(folder / name, **options)


def decoded(folder: Path, name: str, **settings) -> np.ndarray | str:
    """What the run makes of one file: its first grey values in [0, 1], or the reason for its error row."""
    chosen = load_settings({"model": "m", "data": str(folder), "out": "o", **settings})
    seen = evidence(folder, **settings)
    spec = seen.applied_to(ModelSpec(spec="m"), chosen)
    plain = Preprocess(size=(8, 10), resize="squash", mean=(0.0,) * 3, std=(1.0,) * 3)
    try:
        image, _ = decode_input((folder / name).read_bytes(), with_overrides(plain, spec.overrides()))
        return with_overrides(plain, spec.overrides()).tensor(image)[0].numpy()
    except SampleError as error:
        return f"{error.status}: {error.text}"


def few_among(folder: Path, odd: np.ndarray, count: int = 2, of: int = 64) -> Path:
    """3 % of odd images among those of 8 bits."""
    for number in range(of):
        saved(folder, f"{number:03}.png", np.full((8, 10, 3), number, np.uint8))
    for number in range(count):
        saved(folder, f"odd{number}.tif", odd)
    return folder


RAMP = np.linspace(0, 1, 80).reshape(8, 10)


@pytest.mark.check("file", "3 % of 16-bit, 32-bit or float images among those of 8 bits: error rows with the reason, said by `plan`", "refused")  # fmt: skip
@pytest.mark.parametrize(
    "odd",
    [
        (4000 * RAMP).astype(np.uint16),
        (200 * RAMP).astype(np.uint16),
        (60000 * RAMP).astype(np.int32),
        (RAMP * 0.7).astype(np.float32),
        (RAMP * 90).astype(np.float32),
    ],
    ids=["12 bit", "8 in 16", "32 bit", "fractions", "floats"],
)
def test_a_few_deep_images_are_never_scaled_in_silence(tmp_path: Path, odd: np.ndarray) -> None:
    folder = few_among(tmp_path / "a", odd)
    [note] = evidence(folder).notes
    assert note.startswith("2 of 66 images looked at become error rows: of one of them, its numbers")
    refusal = str(decoded(folder, "odd1.tif"))
    assert "nobody says which are black and white: say --decode.range" in refusal
    assert "damaged" not in refusal, "one remedy per cause"
    assert np.allclose(decoded(folder, "003.png"), 3 / 255)
    top = float(odd.max())
    told = decoded(folder, "odd0.tif", decode={"range": f"0,{top:g}"})
    assert np.allclose(told, RAMP, atol=0.02)
    assert np.allclose(decoded(folder, "003.png", decode={"range": f"0,{top:g}"}), 3 / 255), "8 bits stay as they are"


@pytest.mark.check("file", "a few images that fill 16 bits among those of 8 bits", "said")
def test_a_few_images_of_full_16_bits_are_what_they_are(tmp_path: Path) -> None:
    folder = few_among(tmp_path / "a", (65000 * RAMP).astype(np.uint16))
    assert evidence(folder).notes == ("2 of 66 images looked at have more than 8 bits beside those of 8 bits",)
    assert np.allclose(decoded(folder, "odd0.tif"), RAMP * 65000 / 65535, atol=0.01)


@pytest.mark.check("file", "a few floats among 12-bit images, and the other way round", "refused")
@pytest.mark.parametrize(
    ("usual", "odd", "text"),
    [
        ((4000 * RAMP).astype(np.uint16), RAMP.astype(np.float32), "from images whose numbers are whole numbers"),
        (RAMP.astype(np.float32), (4000 * RAMP).astype(np.uint16), "from images whose numbers are floats"),
        ((65000 * RAMP).astype(np.uint16), RAMP.astype(np.float32), "from images whose numbers are whole numbers"),
    ],
    ids=["floats among 12 bit", "12 bit among floats", "floats among 16 bit"],
)
def test_deep_images_of_the_other_kind_are_not_scaled_by_the_levels_of_the_majority(
    tmp_path: Path, usual: np.ndarray, odd: np.ndarray, text: str
) -> None:
    for number in range(30):
        saved(tmp_path, f"{number}.tif", usual)
    saved(tmp_path, "odd.tif", odd)
    assert any(text in note for note in evidence(tmp_path).notes)
    assert text in str(decoded(tmp_path, "odd.tif"))
    assert not isinstance(decoded(tmp_path, "3.tif"), str)


def test_12_bits_among_full_16_bits_are_scaled_like_the_majority(tmp_path: Path) -> None:
    for number in range(30):
        saved(tmp_path, f"{number}.tif", (65000 * RAMP).astype(np.uint16))
    saved(tmp_path, "odd.tif", (4000 * RAMP).astype(np.uint16))
    assert np.allclose(decoded(tmp_path, "odd.tif"), RAMP * 4000 / 65535, atol=0.01)


@pytest.mark.check("file", "a few images with alpha, of CMYK, or of 4 bands without alpha", "said")
def test_what_is_dropped_beside_red_green_and_blue_is_said(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    folder = few_among(tmp_path / "a", np.full((8, 10, 3), 9, np.uint8))
    saved(folder, "alpha.png", np.full((8, 10, 4), 9, np.uint8))
    Image.new("CMYK", (10, 8)).save(folder / "inks.jpg")
    tifffile.imwrite(
        folder / "infrared.tif", np.full((8, 10, 4), 9, np.uint8), photometric="rgb", extrasamples=["unspecified"]
    )
    tifffile.imwrite(
        folder / "two.tif", np.full((8, 10, 2), 9, np.uint8), photometric="minisblack", planarconfig="contig"
    )
    said = " / ".join(evidence(folder).notes)
    for text in (
        "2 of 70 images looked at have bands of which nobody says which are red, green and blue, and become error rows",
        "1 of 70 images looked at have an alpha channel or a transparent colour, which is dropped",
        "1 of 70 images looked at are CMYK and are converted",
    ):
        assert text in said
    for name in ("infrared.tif", "two.tif"):
        assert "choose bands with --decode.bands" in str(decoded(folder, name))


def test_16_bit_colour_among_8_bits_is_an_error_row(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    folder = few_among(tmp_path / "a", np.full((8, 10, 3), 9, np.uint8))
    tifffile.imwrite(folder / "dark.tif", np.full((8, 10, 3), 900, np.uint16), photometric="rgb")
    tifffile.imwrite(folder / "float.tif", np.full((8, 10, 3), 0.5, np.float32), photometric="rgb")
    for name in ("dark.tif", "float.tif"):
        assert "nobody says which are black and white" in str(decoded(folder, name))
    told = decoded(folder, "float.tif", decode={"range": "0,1"})
    assert np.allclose(told, 0.5, atol=0.01)


@pytest.mark.parametrize("kind", [np.float32, np.uint16])
def test_the_whole_range_of_a_type(tmp_path: Path, kind: type) -> None:
    top = 1.0 if kind is np.float32 else 65535
    folder = grey(tmp_path / "a", 0, top / 2, kind)
    assert np.allclose(decoded(folder, "0.tif", decode={"range": "dtype"}), RAMP / 2, atol=0.01)
    bright = grey(tmp_path / "b", 0, 9, np.float32)
    assert "expected are 0 to 1" in str(decoded(bright, "0.tif", decode={"range": "dtype"}))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_what_becomes_of_colour_profiles_is_said(tmp_path: Path, kind: type) -> None:
    """Of bands that are chosen no profile is applied, whatever their depth."""
    tifffile = pytest.importorskip("tifffile")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    named = profile.replace("sRGB".encode("utf-16-be"), "wide".encode("utf-16-be"))
    values = np.full((8, 10, 3), np.iinfo(kind).max, kind)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", iccprofile=named)
    said = "1 of 1 image looked at have a colour profile (wide built-in) and are "
    assert evidence(tmp_path).notes == (f"{said}converted to sRGB",)
    chosen = evidence(tmp_path, decode={"bands": (3, 2, 1)}).notes
    assert chosen == (f"{said}not converted to sRGB, because their bands are taken as stored",)
