"""Where each kind of data set keeps its labels, in the spellings that people use: taken and said, or asked about."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from heatlas.errors import DataError
from heatlas.pipeline.sources.listing.labels import resolve_labels
from heatlas.pipeline.sources.listing.options import Listed

from ..support.listings import PIXELS, labels_of, list_samples, listed, tar_of, write_images


def said(found: Listed) -> str:
    return " / ".join(found.notes)


@pytest.mark.check("labels", "`uri, label` with a space, `Label`, semicolons, tabs", "said")
@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("uri, label\na.png, ant\nb.png, bee\n", "' label' is taken for 'label'"),
        ("URI,Label\na.png,ant\nb.png,bee\n", "'Label' is taken for 'label'"),
        ("uri;label\na.png;ant\nb.png;bee\n", "';' between its columns"),
        ("uri|label\na.png|ant\nb.png|bee\n", "'|' between its columns"),
        ("sep=;\nuri;label\na.png;ant\nb.png;bee\n", "first line 'sep=;' of"),
    ],
)
def test_headers_as_people_write_them(tmp_path: Path, text: str, note: str) -> None:
    (tmp_path / "m.csv").write_text(text)
    result = listed(tmp_path / "m.csv")
    assert labels_of(result) == ["ant", "bee"]
    assert result.listing["uri"].to_pylist() == [f"{tmp_path}/a.png", f"{tmp_path}/b.png"]
    assert note in said(result)


@pytest.mark.check("file", "CSV in UTF-16 or Latin-1", "said")
@pytest.mark.parametrize(
    ("encoding", "note"),
    [
        ("utf-16", "read as UTF-16"),
        ("utf-32", "read as UTF-32"),
        ("latin-1", "read as Windows-1252"),
        ("utf-8-sig", ""),
    ],
)
def test_encodings(tmp_path: Path, encoding: str, note: str) -> None:
    (tmp_path / "m.csv").write_bytes("uri,label\nkäfer.png,Käfer\nü.png,bee\n".encode(encoding))
    result = listed(tmp_path / "m.csv")
    assert labels_of(result) == ["Käfer", "bee"]
    assert note in said(result)


@pytest.mark.check("file", "CSV with backslashes in its paths", "said")
def test_paths_from_windows(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("uri,label\nants\\a.png,ant\nbees\\b.png,bee\n")
    result = listed(tmp_path / "m.csv")
    assert result.listing["uri"].to_pylist() == [f"{tmp_path}/ants/a.png", f"{tmp_path}/bees/b.png"]
    assert "backslashes" in said(result)
    (tmp_path / "n.csv").write_text("uri\na\\b.png\nc/d.png\n")
    assert list_samples(str(tmp_path / "n.csv"))["uri"].to_pylist() == [f"{tmp_path}/a\\b.png", f"{tmp_path}/c/d.png"]


@pytest.mark.check("labels", "labels in a column of another name, one-hot columns", "said")
@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("uri,class\na.png,ant\n", "--columns.label 'class'"),
        ("uri,Target\na.png,1\n", "--columns.label 'Target'"),
        ("uri,ant,bee,cat\na.png,1,0,0\nb.png,0,0,1\n", "look like one-hot labels"),
        ("uri,ant,bee\na.png,True,False\nb.png,False,True\n", "look like one-hot labels"),
        ("uri,ant,bee\na.png,0.9,0.1\nb.png,0.25,0.75\n", "look like class probabilities"),
        ("uri,Label,label \na.png,ant,bee\n", "none of the columns 'Label', 'label ' is taken for 'label'"),
    ],
)
def test_labels_under_another_name_are_not_taken_but_said(tmp_path: Path, text: str, note: str) -> None:
    (tmp_path / "m.csv").write_text(text)
    result = listed(tmp_path / "m.csv")
    assert set(labels_of(result)) == {None}
    assert note in said(result)


@pytest.mark.check("file", "a CSV without a header", "refused")
def test_a_csv_without_a_header_is_called_that(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("photos/a.png,ant\nphotos/b.png,bee\n")
    with pytest.raises(DataError, match=r"The first line names an image \('photos/a.png'\), so there is no header"):
        listed(tmp_path / "m.csv")


def test_columns_of_zeros_and_ones_that_are_no_classes_are_not_called_so(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("uri,sharp,night\na.png,1,1\nb.png,0,1\n")
    assert listed(tmp_path / "m.csv").notes == ()


def test_names_in_another_unicode_form_are_the_same(tmp_path: Path) -> None:
    """macOS writes folders with the dots of a letter on their own."""
    resolved = resolve_labels(pa.table({"label": ["Ka\u0308fer", "biene"]}), ["Biene", "K\u00e4fer"], 2, folders=True)
    assert resolved.listing["label"].to_pylist() == [1, 0]


def table_of(path: Path, features: dict, column: str, values: list) -> None:
    table = pa.table({"image": [PIXELS] * len(values), column: values})
    described = {"info": {"features": {"image": {"_type": "Image"}, **features}}}
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(described)}), path)


CLASSES = {"names": ["ant", "bee"], "_type": "ClassLabel"}


@pytest.mark.check("labels", "`ClassLabel` columns called `labels`, `fine_label`", "known")
@pytest.mark.parametrize("column", ["labels", "fine_label", "species"])
def test_class_labels_of_hugging_face_under_any_name(tmp_path: Path, column: str) -> None:
    table_of(tmp_path / "t.parquet", {column: CLASSES}, column, [1, 0])
    result = listed(tmp_path / "t.parquet")
    assert labels_of(result) == ["bee", "ant"]
    assert result.class_names == ("ant", "bee")
    assert f"{column!r} of class labels is taken" in said(result)


@pytest.mark.check("labels", "`ClassLabel` with names by number, as a data set's card has them", "known")
def test_class_names_by_number(tmp_path: Path) -> None:
    names = {str(number): f"kind{number}" for number in reversed(range(11))}
    table_of(tmp_path / "t.parquet", {"label": {"names": names, "_type": "ClassLabel"}}, "label", [2, 10])
    assert labels_of(listed(tmp_path / "t.parquet")) == ["kind2", "kind10"]


@pytest.mark.check("labels", "labels of tars in members or JSON keys of another name", "said")
@pytest.mark.parametrize(
    ("member", "content", "name"),
    [("0.index", b"1", "index"), ("0.class", b"1", "class"), ("0.json", b'{"category": "1"}', "category"), ("0.json", b'{"Label": "1"}', "Label")],
)  # fmt: skip
def test_labels_of_tars_under_another_name_are_said(tmp_path: Path, member: str, content: bytes, name: str) -> None:
    path = tar_of(tmp_path / "t.tar", {"0.png": PIXELS, member: content})
    assert labels_of(listed(path)) == [None]
    assert f"--columns.label {name}" in said(listed(path))
    assert labels_of(listed(path, columns={"label": name})) == ["1"]


@pytest.mark.check("labels", "two `ClassLabel` columns", "asked")
def test_two_columns_of_class_labels_are_asked_about(tmp_path: Path) -> None:
    table = pa.table({"image": [PIXELS], "coarse_label": [0], "fine_label": [1]})
    features = {"image": {"_type": "Image"}, "coarse_label": CLASSES, "fine_label": CLASSES}
    pq.write_table(
        table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})}),
        tmp_path / "t.parquet",
    )
    with pytest.raises(DataError, match=r"--columns.label coarse_label or --columns.label fine_label"):
        listed(tmp_path / "t.parquet")
    assert labels_of(listed(tmp_path / "t.parquet", columns={"label": "fine_label"})) == ["bee"]


@pytest.mark.check("labels", "`Sequence(ClassLabel)`", "refused")
@pytest.mark.parametrize(
    "feature", [{"feature": CLASSES, "_type": "Sequence"}, [CLASSES], {"feature": CLASSES, "_type": "List"}]
)
def test_several_classes_per_image_are_no_label(tmp_path: Path, feature: object) -> None:
    table_of(tmp_path / "t.parquet", {"labels": feature}, "labels", [[0, 1], [1]])
    result = listed(tmp_path / "t.parquet")
    assert labels_of(result) == [None, None]
    assert "several classes per image" in said(result)
    with pytest.raises(DataError, match="several classes per image"):
        listed(tmp_path / "t.parquet", columns={"label": "labels"})


@pytest.mark.check("labels", "tar members `.CLS`, `.cls.json`, `.txt`", "known")
@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        ("cls", b"1"),
        ("CLS", b"1\n"),
        ("cls.json", b"1"),
        ("cls.json", b'{"label": 1}'),
        ("CLS.JSON", b'"1"'),
        ("json", b'{"label": 1}'),
    ],
)
def test_spellings_of_labels_in_tars(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tar_of(tmp_path / "t.tar", {"0.png": PIXELS, f"0.{suffix}": content})
    assert labels_of(listed(path)) == ["1"]


def test_texts_in_tars_are_labels_only_where_that_is_said(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "t.tar", {"0.png": PIXELS, "0.txt": b"ant", "1.png": PIXELS, "1.txt": b"bee"})
    assert labels_of(listed(path)) == [None, None]
    assert "--columns.label txt" in said(listed(path))
    assert labels_of(listed(path, columns={"label": "txt"})) == ["ant", "bee"]


@pytest.mark.check("labels", "class folders in tars", "known")
def test_class_folders_in_tars(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "t.tar", {"ant/0.png": PIXELS, "ant/1.png": PIXELS, "bee/0.png": PIXELS})
    result = listed(path)
    assert labels_of(result) == ["ant", "ant", "bee"]
    assert "folders inside of the tars" in said(result)
    assert result.folders
    parts = tar_of(tmp_path / "u.tar", {"train/0.png": PIXELS, "val/1.png": PIXELS})
    assert labels_of(listed(parts)) == [None, None]


@pytest.mark.check("file", "macOS `._` members of tars", "known")
def test_what_macos_adds_to_tars_is_left_out(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "t.tar", {"._0.png": b"\0", "0.png": PIXELS, "__MACOSX/._0.png": b"\0", "0.cls": b"1"})
    result = listed(path)
    assert result.listing["id"].to_pylist() == ["t.tar/0"]
    assert labels_of(result) == ["1"]


@pytest.mark.check("labels", "COCO's unused category 0", "known")
def test_an_unused_category_0_of_coco_is_no_class_where_the_model_has_one_less(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(PIXELS)
    described = {
        "images": [{"id": 1, "file_name": "0.png", "width": 9, "height": 9}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 2, "bbox": [0, 0, 4, 4]}],
        "categories": [{"id": 0, "name": "background"}, {"id": 1, "name": "ant"}, {"id": 2, "name": "bee"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(described))
    result = listed(f"coco:{tmp_path}/a.json")
    for classes, expected in ((2, 1), (3, 2)):
        resolved = resolve_labels(result.listing, None, classes, result.orders)
        assert resolved.listing["label"].to_pylist() == [expected]


def coco_of(folder: Path, **parts: list) -> str:
    described = {
        "images": [{"id": 1, "file_name": "a/0.png", "width": 9, "height": 9}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 2, "bbox": [0, 0, 4, 4]}],
        "categories": [{"id": 1, "name": "ant"}, {"id": 2, "name": "bee"}],
    }
    write_images(folder, "a/0.png")
    (folder / "a.json").write_text(json.dumps({**described, **parts}))
    return f"coco:{folder}/a.json"


@pytest.mark.check("file", "COCO ids as floats, paths with backslashes", "known")
def test_ids_of_coco_as_floats_and_paths_from_windows(tmp_path: Path) -> None:
    annotations = [{"id": 1.0, "image_id": 1.0, "category_id": 2.0, "bbox": [0, 0, 4, 4]}]
    images = [{"id": 1, "file_name": "a\\0.png", "width": 9, "height": 9}]
    result = listed(coco_of(tmp_path, annotations=annotations, images=images))
    assert labels_of(result) == ["bee"]
    assert result.listing["uri"].to_pylist() == [f"{tmp_path}/a/0.png"]
    assert "backslashes" in said(result)


@pytest.mark.check("file", "COCO ids as text in one place and numbers in another", "refused")
def test_ids_of_coco_written_in_two_ways_are_named(tmp_path: Path) -> None:
    annotations = [{"id": 1, "image_id": "1", "category_id": 2, "bbox": [0, 0, 4, 4]}]
    with pytest.raises(DataError, match=r"names image '1', .* but 1 is: write ids as numbers or as texts everywhere"):
        listed(coco_of(tmp_path, annotations=annotations))


@pytest.mark.check("file", "COCO sizes written as floats", "known")
def test_sides_of_coco_images_written_as_floats_keep_their_polygons(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(PIXELS)
    described = {
        "images": [{"id": 1, "file_name": "0.png", "width": 9.0, "height": 8.0}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4], "segmentation": [[0, 0, 4, 0, 4, 4]]}
        ],
        "categories": [{"id": 1, "name": "ant"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(described))
    [row] = listed(f"coco:{tmp_path}/a.json").listing.to_pylist()
    assert row["mask_uri"].startswith("coco-mask://9x8/")


@pytest.mark.check("file", "`--images` of VOC and COCO", "known")
def test_images_of_voc_lie_where_the_user_says(tmp_path: Path) -> None:
    for folder in ("voc/Annotations", "voc/JPEGImages", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "voc" / "Annotations" / "0.xml").write_text("<annotation><filename>0.png</filename></annotation>")
    (tmp_path / "elsewhere" / "0.png").write_bytes(PIXELS)
    result = listed(f"voc:{tmp_path}/voc", images=str(tmp_path / "elsewhere"))
    assert result.listing["uri"].to_pylist() == [f"{tmp_path}/elsewhere/0.png"]
