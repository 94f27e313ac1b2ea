"""Are the demo's planted wrong labels found? `label_suspicion` against confidence alone, over thousands of training images.

    python -m bench label_noise [--start 3000] [--images 3000] [--usual 300] [--out bench-out/label-noise]

The recipe lists only images whose label has little of the score, so of the others no more are explained than it needs to know what is
usual (the first `--usual`); for the comparison an image that is not listed counts as the least suspicious. The recipe was written with
the images from 0 to 2999 in sight, so those from 3000 on are the ones to judge it by.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import heatlas
import numpy as np
import torch
from heatlas.pipeline.demo import dataset, network, train
from heatlas.pipeline.demo.suspicion import auroc, precision_at
from PIL import Image

DOUBT = 0.25
"""A little less than the recipe asks for, so that none of its images is missing."""
METRICS = ("drop_pct", "gini", "insertion_auc", "label_overlap")


def scores_of(images: int, start: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities `(n, classes)`, stated labels and true ones of consecutive training images."""
    torch.set_num_threads(1)
    model, result, labels, truths = network.demo_model(), [], [], []
    for first in range(start, start + images, 100):
        samples = [dataset.demo_sample("train", index) for index in range(first, min(first + 100, start + images))]
        batch = torch.from_numpy(np.stack([sample.image for sample in samples])).permute(0, 3, 1, 2)
        with torch.no_grad():
            result.append(model(train.as_input(batch)).softmax(1).numpy())
        labels += [dataset.CLASS_NAMES.index(sample.label) for sample in samples]
        truths += [dataset.CLASS_NAMES.index(sample.true_label) for sample in samples]
    return np.concatenate(result), np.array(labels), np.array(truths)


def explained(out: Path, indices: list[int]) -> heatlas.Atlas:
    """The store of these training images, both targets each."""
    folder = out / "data"
    (folder / "images").mkdir(parents=True, exist_ok=True)
    with (folder / "manifest.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["id", "uri", "label"])
        for index in indices:
            sample = dataset.demo_sample("train", index)
            Image.fromarray(sample.image).save(folder / "images" / f"{sample.id}.png")
            table.writerow([sample.id, f"images/{sample.id}.png", sample.label])
    heatlas.explain_dataset(
        model="heatlas.pipeline.demo.network:demo_model", data=folder / "manifest.csv", out=out / "store", workers=0,
        target="both", metrics=METRICS, chance_maps=0,
    )  # fmt: skip
    return heatlas.open(out / "store")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--start", type=int, default=3000)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--usual", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("bench-out/label-noise"))
    asked = parser.parse_args()
    scores, label, truth = scores_of(asked.images, asked.start)
    prediction, rows = scores.argmax(axis=1), np.arange(asked.images)
    doubted = np.flatnonzero(1 - scores[rows, label] >= DOUBT)
    chosen = sorted({*range(min(asked.usual, asked.images)), *doubted.tolist()})
    atlas = explained(asked.out / f"{asked.start}-{asked.images}", [asked.start + index for index in chosen])
    queue = atlas.curate(["label_suspicion"], limit=asked.images)
    places = [int(id.rpartition("-")[2]) - asked.start for id in queue["id"].to_pylist()]
    suspicion = np.zeros(asked.images)
    suspicion[places] = queue["priority"].to_numpy()
    wrong = label != truth
    ways = {
        "label_suspicion": suspicion,
        "1 - p(label)": 1 - scores[rows, label],
        "p(prediction) - p(label)": scores[rows, prediction] - scores[rows, label],
        "p(prediction) where it is not the label": np.where(prediction != label, scores[rows, prediction], 0),
    }
    planted = int(wrong.sum())
    print(f"{asked.images} training images from {asked.start} on, {planted} with a wrong label; "
          f"{int((prediction != label).sum())} whose label is not predicted")  # fmt: skip
    print(f"{'':42}{'AUROC':>8}{f'P@{planted // 2}':>8}{f'P@{planted}':>8}   (by chance {planted / asked.images:.3f})")
    for name, values in ways.items():
        print(
            f"{name:42}{auroc(wrong, values):8.4f}{precision_at(wrong, values, planted // 2):8.3f}{precision_at(wrong, values, planted):8.3f}"
        )


if __name__ == "__main__":
    main()
