"""Are the demo's planted wrong labels found? `label_suspicion` against confidence alone, over thousands of training images.

    python -m bench label_noise [--start 3000] [--images 3000] [--out bench-out/label-noise]

Every image is explained, by Grad-CAM because maps do not change this queue's order. Beside the queue as listed stands its ranking of all
images (`label_suspicion.all=1`). The packaged network has seen the images below 6000 in training, wrong labels included. An interrupted call
goes on where it stopped.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import heatlas
import numpy as np
from heatlas.pipeline.demo import dataset
from PIL import Image
from sklearn.metrics import roc_auc_score


def explained(out: Path, start: int, images: int) -> tuple[heatlas.Atlas, dict[str, bool]]:
    """The store of consecutive training images, and for each id whether its label is wrong."""
    folder = out / "data"
    (folder / "images").mkdir(parents=True, exist_ok=True)
    wrong = {}
    with (folder / "manifest.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["id", "uri", "label"])
        for index in range(start, start + images):
            sample = dataset.demo_sample("train", index)
            path = folder / "images" / f"{sample.id}.png"
            if not path.exists():
                Image.fromarray(sample.image).save(path)
            table.writerow([sample.id, f"images/{sample.id}.png", sample.label])
            wrong[sample.id] = sample.label != sample.true_label
    heatlas.explain_dataset(
        model="heatlas.pipeline.demo.network:demo_model", data=folder / "manifest.csv", out=out / "store", workers=0, method="grad_cam",
        target="both", metrics="none", chance_maps=0, shard_size=100, store={"map_png": False},
    )  # fmt: skip
    return heatlas.open(out / "store"), wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--start", type=int, default=3000)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--out", type=Path, default=Path("bench-out/label-noise"))
    asked = parser.parse_args()
    atlas, truth = explained(asked.out / f"{asked.start}-{asked.images}", asked.start, asked.images)
    ids = sorted(truth)
    wrong = np.array([truth[identity] for identity in ids])
    listed = atlas.curate(["label_suspicion"], limit=asked.images)["id"].to_pylist()
    ranked = atlas.curate(["label_suspicion"], limit=asked.images, params=["label_suspicion.all=1"])
    of_label = atlas.table(["id", "confidence"], where="target = label")
    suspicion = column(ids, ranked["id"].to_pylist(), ranked["priority"].to_numpy(), 0.0)
    confidence = column(ids, of_label["id"].to_pylist(), of_label["confidence"].to_numpy(), 0.0)
    planted = int(wrong.sum())
    print(f"{asked.images} training images from {asked.start} on, {planted} with a wrong label")
    print(f"label_suspicion lists {len(listed)}, of which {sum(truth[identity] for identity in listed)} are wrong")
    print(
        f"{'ranking of all':26}{'AUROC':>8}{f'P@{planted // 2}':>8}{f'P@{planted}':>8}   (by chance {planted / asked.images:.3f})"
    )
    for name, values in {"label_suspicion.all=1": suspicion, "1 - p(label)": 1 - confidence}.items():
        half, every = (wrong[np.argsort(-values, kind="stable")[:count]].mean() for count in (planted // 2, planted))
        print(f"{name:26}{roc_auc_score(wrong, values):8.4f}{half:8.3f}{every:8.3f}")


def column(ids: list[str], keys: list[str], values: np.ndarray, default: float) -> np.ndarray:
    """The values in the order of `ids`."""
    by_id = dict(zip(keys, values, strict=True))
    return np.array([by_id.get(identity, default) for identity in ids])


if __name__ == "__main__":
    main()
