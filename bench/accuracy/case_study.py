"""Right for the wrong reason? Industrial defects of ../shared/data, explained, curated and clustered: writes docs/case-study.md.

    python -m bench case_study [--budget 64] [--per-class 8] [--out bench-out/case-study]

An interrupted call goes on where it stopped. The page holds numbers, mean maps and plots, none of the source images.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
from collections import defaultdict
from pathlib import Path

import heatlas
import numpy as np
from torch import nn

from ..data_sets import DATA, tile_network
from .case_study_page import Defect, write_page

CLASSES = ("Blowhole", "Break", "Crack", "Fray", "Free", "Uneven")
METRICS = ("paper", "border_share", "gini", "entropy", "spread", "centroid_x", "centroid_y", "top_area")
MODEL = "bench.accuracy.case_study:named_tiles"


def named_tiles() -> nn.Module:
    """The network with what heatlas asks of a factory: class names and preprocessing."""
    model = tile_network()
    model.class_names = CLASSES  # pyright: ignore[reportAttributeAccessIssue]
    model.preprocess = {"size": 224, "resize": "squash", "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}  # pyright: ignore
    return model


def chosen(out: Path, per_class: int) -> Path:
    """A manifest of at most `per_class` images of each class, the first by the digest of their names."""
    with (DATA / "magnetic_tile" / "labels.csv").open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: hashlib.sha256(row["file"].encode()).hexdigest())
    of_class: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        of_class[row["class_name"]].append(row)
    out.mkdir(parents=True, exist_ok=True)
    manifest = out / f"tiles-{per_class}.csv"
    with manifest.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["id", "uri", "mask", "label"])
        for name in CLASSES:
            for row in of_class[name][:per_class]:
                paths = [str(DATA / "magnetic_tile" / row[column]) for column in ("file", "mask")]
                table.writerow([row["file"], *paths, name])
    return manifest


def defects() -> dict[str, Defect]:
    """Where the defect lies in each image that has one, by id."""
    from PIL import Image

    result = {}
    for path in sorted((DATA / "magnetic_tile").glob("*.png")):
        with Image.open(path) as picture:
            mask = np.asarray(picture) > 0
        if mask.any():
            height, width = mask.shape
            inner = mask[height // 10 : height - height // 10, width // 10 : width - width // 10]
            result[f"{path.stem}.jpg"] = Defect(float(mask.mean()), 1 - float(inner.sum() / mask.sum()))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--budget", type=int, default=64)
    parser.add_argument("--per-class", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path("bench-out/case-study"))
    asked = parser.parse_args()
    if not DATA.exists():
        raise SystemExit(f"{DATA} is not there; this study needs its images and weights")
    store = asked.out / f"store-{asked.per_class}-{asked.budget}"
    heatlas.explain_dataset(
        model=MODEL, data=chosen(asked.out, asked.per_class), out=store, workers=0, budget=asked.budget, target="both",
        metrics=METRICS, batch_size=32, store={"map_png": False},
    )  # fmt: skip
    write_page(heatlas.open(store), defects(), asked.budget)


if __name__ == "__main__":
    main()
