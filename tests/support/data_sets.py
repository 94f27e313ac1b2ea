"""The same images as data sets of every kind, made by the test: `draw` of `tiny_run`, in files of the kind's own form."""

from __future__ import annotations

import io
import json
import pathlib
import tarfile
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from .tiny_run import CLASSES, draw

WIDTH, HEIGHT = 36, 30


def png(number: int, folder: pathlib.Path) -> bytes:
    """The bytes of `draw(..., number)`."""
    path = folder / "one.png"
    draw(path, number)
    data = path.read_bytes()
    path.unlink()
    return data


def square(number: int) -> list[int]:
    """Where `draw` puts the square: x0 y0 x1 y1."""
    left = 4 + number % 12
    return [left, 6, left + 12, 18]


def write_tar(path: pathlib.Path, members: Iterable[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def tar_members(numbers: Iterable[int], folder: pathlib.Path) -> Iterable[tuple[str, bytes]]:
    """A WebDataset: image, class and facts of every number."""
    for number in numbers:
        facts = {"camera": f"c{number % 2}", "exposure": number / 4, "boxes": [square(number)]}
        yield f"{number:03d}.png", png(number, folder)
        yield f"{number:03d}.cls", str(number % 3).encode()
        yield f"{number:03d}.json", json.dumps(facts).encode()


def write_tars(folder: pathlib.Path, counts: Iterable[int]) -> None:
    start = 0
    for shard, count in enumerate(counts):
        write_tar(folder / f"train-{shard:03d}.tar", tar_members(range(start, start + count), folder))
        start += count


def write_parquet(path: pathlib.Path, numbers: Iterable[int], *, hugging_face: bool = True, group: int = 2) -> None:
    """A table with images: Hugging Face's struct with its features, or plain bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = list(numbers)
    images = [png(number, path.parent) for number in numbers]
    label = pa.array([number % 3 for number in numbers], pa.int64())
    site = pa.array([f"site {number % 2}" for number in numbers])
    if not hugging_face:
        return pq.write_table(pa.table({"photo": images, "label": label, "site": site}), path, row_group_size=group)
    struct = pa.array(
        [{"bytes": image, "path": None} for image in images], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )
    features = {"image": {"_type": "Image"}, "label": {"names": list(CLASSES), "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({"image": struct, "label": label, "site": site}).replace_schema_metadata(metadata)
    return pq.write_table(table, path, row_group_size=group)


def write_coco(folder: pathlib.Path, count: int, change: Mapping[str, Any] | None = None) -> pathlib.Path:
    """`annotations/instances_val.json` and `val/`; every image has its square as a polygon and a small one of another class."""
    images, annotations = [], []
    for number in range(count):
        name = f"{number:03d}.png"
        draw(folder / "val" / name, number)
        images.append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT, "license": number % 2})
        x0, y0, x1, y1 = square(number)
        annotations.append({
            "id": 2 * number, "image_id": number, "category_id": 10 * (number % 3), "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": 144, "iscrowd": 0, "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],
        })  # fmt: skip
        annotations.append({
            "id": 2 * number + 1, "image_id": number, "category_id": 10 * ((number + 1) % 3), "bbox": [0, 20, 4, 5], "area": 20,
            "iscrowd": 0, "segmentation": [[0, 20, 4, 20, 4, 25, 0, 25]],
        })  # fmt: skip
    categories = [{"id": 10 * number, "name": name} for number, name in enumerate(CLASSES)]
    content = {
        "info": {"year": 2026},
        "images": images,
        "annotations": annotations,
        "categories": categories,
        **(change or {}),
    }
    path = folder / "annotations" / "instances_val.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def voc_xml(name: str, objects: Iterable[tuple[str, list[int]]]) -> str:
    """An annotation; boxes x0 y0 x1 y1 as elsewhere, written as VOC counts."""
    rows = "".join(
        f"<object><name>{kind}</name><pose>Left</pose><difficult>0</difficult><bndbox><xmin>{x0 + 1}</xmin>"
        f"<ymin>{y0 + 1}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for kind, (x0, y0, x1, y1) in objects
    )
    return f"<annotation><folder>VOC</folder><filename>{name}</filename>{rows}</annotation>"


def write_voc(folder: pathlib.Path, count: int) -> None:
    (folder / "Annotations").mkdir(parents=True)
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    for number in range(count):
        name = f"2007_{number:03d}"
        draw(folder / "JPEGImages" / f"{name}.png", number)
        objects = [(CLASSES[number % 3], square(number)), (CLASSES[(number + 1) % 3], [0, 0, 3, 3])]
        (folder / "Annotations" / f"{name}.xml").write_text(voc_xml(f"{name}.png", objects))
    (folder / "ImageSets" / "Main" / "val.txt").write_text("2007_001\n2007_002\n")


def write_hf(folder: pathlib.Path, count: int, **how: Any) -> None:
    """With `datasets` itself, as a user would."""
    import datasets

    rows = {
        "image": [Image.open(io.BytesIO(png(number, folder.parent))) for number in range(count)],
        "label": [number % 3 for number in range(count)],
        "source": [f"s{number % 2}" for number in range(count)],
    }
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=list(CLASSES)),
            "source": datasets.Value("string"),
        }
    )
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(folder), **how)


FACTORY = """
import numpy as np


class Squares:
    classes = ["ant", "bee", "cat"]

    def __len__(self):
        return 6

    def __getitem__(self, index):
        if index == 4:
            raise OSError("disk on fire")
        pixels = np.random.default_rng(index).integers(0, 60, (30, 36, 3), dtype=np.uint8)
        pixels[6:18, 4 + index % 12 : 16 + index % 12, index % 3] = 220
        return pixels, index % 3

    @property
    def targets(self):
        return [index % 3 for index in range(6)]


def squares():
    return Squares()


def without_targets():
    return [(np.zeros((8, 8, 3), np.uint8), number % 3) for number in range(6)]


def broken():
    raise RuntimeError("no licence")


def nothing():
    return 7
"""


def pixels_of(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))
