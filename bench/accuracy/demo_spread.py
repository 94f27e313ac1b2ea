"""Are the demo's stickers confirmed by intervention, and do 40 decisions spread to all of them? Against what was planted.

    python -m bench demo_spread [--images 300] [--out bench-out/demo-spread]

Images are explained by Grad-CAM. Decisions are taken from the truth: 15 stickers (all painted, one painted, none painted), and 25 images without. Masks are judged
against the sticker's box on images that nobody decided on.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import heatlas
import numpy as np
from heatlas.pipeline.decisions.rle import decode_mask, encode_mask
from heatlas.pipeline.demo import dataset
from heatlas.pipeline.intervene.intervene import intervene_store
from heatlas.pipeline.spread.spread import spread_decisions

MARKED, CLEAN = 15, 25
CORNER = "0,0.79,0.21,1"
MODEL = "heatlas.pipeline.demo.network:demo_model"


def sticker_box(identity: str) -> np.ndarray:
    """The box around what the sticker changes, in pixels of the image."""
    index = int(identity.split("-")[1])
    pictures = [
        dataset.demo_sample("train", index, marking=marking).image.astype(int) for marking in ("planted", "never")
    ]
    changed = np.abs(pictures[0] - pictures[1]).sum(axis=2) > 0
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    box = np.zeros_like(changed)
    box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    return box


def decide(store: str, stickers: set[str], painted: int) -> set[str]:
    """Take decisions about a random part of the images; returns their ids."""
    atlas = heatlas.open(store)
    octagon = atlas.class_names.index(dataset.SHORTCUT_CLASS)
    rows = atlas.table(["id", "prediction", "label"], "target = prediction").to_pylist()
    rows = [rows[place] for place in np.random.default_rng(0).permutation(len(rows))]
    marked = [row["id"] for row in rows if row["id"] in stickers and row["prediction"] == octagon][:MARKED]
    clean = sorted(
        (row for row in rows if row["id"] not in stickers),
        key=lambda row: octagon not in (row["label"], row["prediction"]),
    )[:CLEAN]
    atlas.decide([
        {"id": identity, "kind": "shortcut", "mask": encode_mask(sticker_box(identity)) if place < painted else None}
        for place, identity in enumerate(marked)
    ])  # fmt: skip
    atlas.decide([row["id"] for row in clean], "core")
    return {*marked, *(row["id"] for row in clean)}


def judged(store: str, stickers: set[str], decided: set[str], name: str) -> str:
    """One row of the table."""
    spread = spread_decisions(store)
    print(spread.text())
    chances = {row["id"]: row["shortcut_probability"] for row in spread.rows.to_pylist() if row["id"] not in decided}
    hits = sum(chance > 0.5 and identity in stickers for identity, chance in chances.items())
    wrong = sum((chance > 0.5) != (identity in stickers) for identity, chance in chances.items())
    overlaps = []
    for decision in heatlas.open(store).decisions().current:
        if decision.source == "spread" and decision.mask is not None and decision.id in stickers - decided:
            mask, box = decode_mask(decision.mask), sticker_box(decision.id)
            overlaps.append((mask & box).sum() / (mask | box).sum())
    values = np.array(overlaps)
    return f"| {name} | {2 * hits / max(1, 2 * hits + wrong):.2f} of {len(chances)} | {values.mean():.2f} of {len(values)} | {100 * (values >= 0.6).mean():.0f} % |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("bench-out/demo-spread"))
    options = parser.parse_args()
    manifest = dataset.write_dataset(options.out / "data", "train", options.images)
    whole = str(options.out / "store")
    heatlas.explain_dataset(
        model=MODEL,
        data=str(manifest),
        out=whole,
        workers=0,
        method="grad_cam",
        metrics="none",
        chance_maps=0,
        shard_size=100,
    )
    print(intervene_store(whole, CORNER, images=32).text())
    stickers = {f"train-{index:05d}" for index in range(options.images) if dataset.demo_sample("train", index).shortcut}
    lines = [
        "| painted | F1 of carrying the sticker | mean IoU of masks | masks with IoU of 0.6 or more |",
        "|---|---|---|---|",
    ]
    for painted, name in ((MARKED, f"all {MARKED}"), (1, "1"), (0, "none")):
        copy = options.out / f"painted-{painted}"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(whole, copy)
        lines.append(judged(str(copy), stickers, decide(str(copy), stickers, painted), name))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
