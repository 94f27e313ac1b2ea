"""The whole loop on planted faults: found, confirmed, spread from 40 decisions each, repaired by two recipes, judged, and a sham repair judged.

    python -m bench loop [--out bench-out/loop] [--train 960] [--test 400] [--seed 0] [--page]

The demo's images (wrong labels, nine of ten octagons with a sticker in the corner), and two more marks: a translucent cross in the middle of nine of
ten squares, and a colour cast over nine of ten stars. The person who decides is the generator: it is asked about 40 images per mark and knows no other.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import heatlas
import numpy as np
import torch
from heatlas.pipeline.cli.app import main as command
from heatlas.pipeline.decisions.rle import decode_mask, encode_mask
from heatlas.pipeline.demo.dataset import CLASS_NAMES, SHORTCUT_CLASS, demo_sample
from heatlas.pipeline.demo.network import MEAN, STD, demo_model
from heatlas.pipeline.fix.recipes import FixSettings
from heatlas.pipeline.fix.reference_trainer import train_reference
from heatlas.pipeline.fix.repair import repair_store
from heatlas.pipeline.fix.training_images import TrainingSet
from heatlas.pipeline.verdict.counterfactual_sets import load_marks, with_mark, without_mark
from heatlas.pipeline.verdict.image_decisions import DecidedImage, LoadedImages, decided_images, load_images
from heatlas.pipeline.verdict.judge import Verdict, judge_repair, lock_store
from heatlas.pipeline.verdict.text import verdict_text
from heatlas.workers.models.load import ModelSpec, load_model
from heatlas.workers.samples import Sample
from PIL import Image
from safetensors.torch import save_file

from ..page_part import DOCS, machine, table, write_part

MODEL = "heatlas.pipeline.demo.network:demo_model"
SIZE = 96
MIDDLE_CLASS, CAST_CLASS = [name for name in CLASS_NAMES if name not in (SHORTCUT_CLASS, "disc")][:2]
MARKED = (SHORTCUT_CLASS, MIDDLE_CLASS, CAST_CLASS)
DECISIONS = 40
"""Per mark: half of images with it, half of images of its class without."""
SEEDS = range(3)
IMAGES_PER_SEED = 8000
"""Images of another `--seed` begin this much later: none is drawn twice. A multiple of 10 images of each class."""
EPOCHS = 4


def drawn(split: str, index: int, seed: int) -> tuple[np.ndarray, np.ndarray, str, str, np.ndarray | None]:
    """Pixels, object mask, stated label, true label, and the mark's mask or None."""
    index += seed * IMAGES_PER_SEED
    sample = demo_sample(split, index)
    pixels, where = sample.image.copy(), None
    planted = (index // len(CLASS_NAMES)) % 10 != 4
    if sample.shortcut:
        clean = demo_sample(split, index, marking="never").image
        where = _box((sample.image != clean).any(axis=2))
    elif sample.true_label == MIDDLE_CLASS and planted:
        where = np.zeros((SIZE, SIZE), bool)
        where[44:52, 36:60] = where[36:60, 44:52] = True
        pixels[where] = (0.35 * pixels[where] + 0.65 * np.array([250, 240, 40])).astype(np.uint8)
    elif sample.true_label == CAST_CLASS and planted:
        where = np.ones((SIZE, SIZE), bool)
        pixels = np.clip(pixels * np.array([1.12, 1.0, 0.72]) + np.array([14, 2, -8]), 0, 255).astype(np.uint8)
    return pixels, sample.mask, sample.label, sample.true_label, where


def _box(mask: np.ndarray) -> np.ndarray:
    """The mask's bounding box, as a person would paint it."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = np.zeros_like(mask)
    box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    return box


def write_images(folder: Path, counts: dict[str, int], seed: int) -> dict[str, dict]:
    """PNGs, object masks and `manifest.csv`; the truth of every image by id."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    truth = {}
    with open(folder / "manifest.csv", "w", newline="") as file:
        manifest = csv.DictWriter(file, ("id", "uri", "label", "mask", "split"))
        manifest.writeheader()
        for split, count in counts.items():
            for index in range(count):
                pixels, mask, label, true_label, where = drawn(split, index, seed)
                identity = f"{split}-{index:05d}"
                Image.fromarray(pixels).save(folder / f"images/{identity}.png", compress_level=1)
                Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"masks/{identity}.png", compress_level=1)
                manifest.writerow({"id": identity, "uri": f"images/{identity}.png", "label": label, "mask": f"masks/{identity}.png", "split": split})  # fmt: skip
                truth[identity] = {"pixels": pixels, "label": label, "true": true_label, "mark": where, "split": split}
    return truth


def train_before(truth: dict[str, dict], out: Path, first_seed: int) -> list[str]:
    """The demo's network (which knows shapes, and hangs on the sticker) trained on with the training images as they are, three seeds."""
    rows = {identity: row for identity, row in truth.items() if row["split"] == "train"}
    pixels = np.stack([row["pixels"] for row in rows.values()]).astype(np.float32) / 255
    inputs = (
        torch.from_numpy((pixels - np.array(MEAN, np.float32)) / np.array(STD, np.float32))
        .permute(0, 3, 1, 2)
        .contiguous()
    )
    labels = [CLASS_NAMES.index(row["label"]) for row in rows.values()]
    images = tuple(
        DecidedImage(Sample(identity, ""), label, label) for identity, label in zip(rows, labels, strict=True)
    )
    empty = torch.zeros(len(rows), SIZE, SIZE, dtype=torch.bool)
    data = TrainingSet(LoadedImages(images, inputs, empty, empty, ("",) * len(rows)), torch.tensor(labels), {}, ())
    settings = FixSettings("none", epochs=EPOCHS, learning_rate=2e-3, patience=EPOCHS)
    weights = []
    for seed in SEEDS:
        weights.append(str(out / f"before-{seed}.safetensors"))
        if not Path(weights[-1]).exists():
            save_file(train_reference(demo_model(), data, settings, first_seed + seed), weights[-1])
    return weights


def asked(truth: dict[str, dict], name: str, random: np.random.Generator) -> tuple[list[str], list[str]]:
    """Images of a class, half with its mark and half without as far as there are any, of both splits."""
    own = [identity for identity, row in truth.items() if row["true"] == name and row["label"] == name]
    own = [own[place] for place in random.permutation(len(own))]
    carriers = [identity for identity in own if truth[identity]["mark"] is not None][: DECISIONS // 2]
    others = [identity for identity in own if truth[identity]["mark"] is None][: DECISIONS // 2]
    return carriers, others


@contextlib.contextmanager
def timed(name: str, seconds: dict[str, float]) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start
    print(f"[{name}: {seconds[name]:.0f} s]", flush=True)


def said(*arguments: str) -> str:
    """What a command prints."""
    buffer = io.StringIO()
    with contextlib.redirect_stdout(buffer):
        if code := command(list(arguments)):
            raise SystemExit(f"heatlas {' '.join(arguments)} ended with {code}")
    return buffer.getvalue()


def found_lines(store: str) -> list[str]:
    """What `heatlas curate --probe` accuses."""
    said("curate", store, "--probe", "--recipe", "shortcut")
    queue = heatlas.open(store).curate(["shortcut"]).to_pylist()
    names = [CLASS_NAMES[row["target"]] for row in queue]
    return [f"{name}: {names.count(name)}" for name in sorted(set(names), key=names.count, reverse=True)]


def decide_from_truth(store: str, truth: dict[str, dict], seed: int) -> None:
    """The generator answers for 40 images of each mark."""
    atlas, random = heatlas.open(store), np.random.default_rng(seed)
    for name in MARKED:
        carriers, others = asked(truth, name, random)
        rows = [{"id": identity, "kind": "shortcut", "target": CLASS_NAMES.index(name), "mask": dict(encode_mask(truth[identity]["mark"]))} for identity in carriers]  # fmt: skip
        atlas.decide(rows, who="generator")
        atlas.decide(others, "core", who="generator")


def spread_lines(store: str, truth: dict[str, dict]) -> list[list[str]]:
    """Spread the decisions; F1 of the carriers over all images that nobody was asked about, and mean mask IoU, by mark."""
    print(said("spread", store), flush=True)
    decisions = {
        decision.id: decision for decision in heatlas.open(store).decisions().current if decision.kind == "shortcut"
    }
    asked_about = {identity for identity, decision in decisions.items() if decision.source != "spread"}
    rows = []
    for name in MARKED:
        own = [identity for identity, row in truth.items() if row["true"] == name and identity not in asked_about]
        real = {identity for identity in own if truth[identity]["mark"] is not None}
        told = {
            identity
            for identity, decision in decisions.items()
            if decision.source == "spread" and decision.target == CLASS_NAMES.index(name)
        }
        hits = real & told
        f1 = 2 * len(hits) / max(1, len(real) + len(told))
        shares = [_iou(truth[identity]["mark"], decisions[identity].mask) for identity in sorted(hits)]
        rows.append([name, f"{f1:.2f}", f"{np.mean(shares):.2f}" if shares else "none", f"{len(told)}", f"{len(real)}"])
    return rows


def _iou(mask: np.ndarray, rle: dict | None) -> float:
    if rle is None:
        return 0.0
    other = decode_mask(rle)
    return float((mask & other).sum() / max(1, (mask | other).sum()))


def confirmed_lines(store: str) -> list[str]:
    """What `heatlas intervene` says of the painted masks."""
    return [
        line
        for line in said("intervene", store, "--region", "masks").splitlines()
        if not line.startswith("interventions:")
    ]


def sham_store(store: str, out: Path, truth: dict[str, dict], seed: int) -> str:
    """A copy of the store that blames a corner of images drawn at random, whatever their class."""
    sham = str(
        shutil.copytree(store, out / "sham-store", ignore=shutil.ignore_patterns("decisions"), dirs_exist_ok=True)
    )
    mask = np.zeros((SIZE, SIZE), bool)
    mask[4:18, 76:92] = True
    own = [identity for identity, row in truth.items() if row["split"] == "train" and row["label"] in MARKED]
    chosen = np.random.default_rng(seed + 1).permutation(len(own))[: len(own) // 2]
    heatlas.open(sham).decide([own[place] for place in chosen], "shortcut", mask=mask, who="sham")
    return sham


def repaired(store: str, test: str, weights: list[str], recipe: str, out: Path) -> str:
    settings = FixSettings(recipe, epochs=EPOCHS, learning_rate=1e-3, patience=EPOCHS)
    return repair_store(store, settings, models=weights, test=test, out=str(out), overwrite=True).out


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("bench-out/loop"))
    parser.add_argument("--train", type=int, default=960)
    parser.add_argument("--test", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0, help="Other images, networks, decisions and shams.")
    parser.add_argument("--page", action="store_true", help="Write the results into docs/loop.md.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in (
        "data",
        "store",
        "sham-store",
        "dfr",
        "patchmix",
        "sham",
    ):  # networks that were trained before are used again
        shutil.rmtree(given.out / name, ignore_errors=True)
    seconds: dict[str, float] = {}
    with timed("images", seconds):
        truth = write_images(given.out / "data", {"train": given.train, "test": given.test}, given.seed)
    with timed("training before", seconds):
        weights = train_before(truth, given.out, len(SEEDS) * given.seed)
    store = str(given.out / "store")
    with timed("explain", seconds):
        heatlas.explain_dataset(
            model=f"{MODEL}@{weights[0]}", data=str(given.out / "data" / "manifest.csv"), out=store, workers=0, method="grad_cam",
            metrics=["ebpg"], chance_maps=0,
        )  # fmt: skip
    lock_store(store, "split = 'test'")
    with timed("find", seconds):
        accused = found_lines(store)
    decide_from_truth(store, truth, given.seed)
    with timed("confirm", seconds):
        confirmed = confirmed_lines(store)
    with timed("spread", seconds):
        spread = spread_lines(store, truth)
    print("accused:", accused, "\nconfirmed:", *confirmed, "\nspread:", *spread, sep="\n", flush=True)
    rows: list[list[str]] = []
    for recipe, expected in (("dfr", "better"), ("patchmix", "better"), ("sham", "no evidence or worse")):
        with timed(recipe, seconds):
            source = sham_store(store, given.out, truth, given.seed) if recipe == "sham" else store
            after = repaired(source, store, weights, "dfr" if recipe == "sham" else recipe, given.out / recipe)
        with timed(f"verdict on {recipe}", seconds):
            verdict = judge_repair(weights, [after], store=store)
        print(verdict_text(verdict), flush=True)
        rows += verdict_rows(recipe, expected, verdict)
    total = sum(seconds.values())
    print(f"{total:.0f} s in all", json.dumps({name: round(value) for name, value in seconds.items()}))
    if given.page:
        draw_pictures(store, weights[0], DOCS / "loop.png")
        write_page(given, accused, confirmed, spread, rows, total)


def draw_pictures(store: str, weights: str, to: Path) -> None:
    """A row per mark: an image that carries it, the mask that was spread, the mark removed; an image of another class, and the mark pasted into it."""
    images, reader = decided_images(heatlas.open(store))
    model = load_model(ModelSpec(spec=f"{MODEL}@{weights}"))
    test = [image for identity, image in images.items() if identity.startswith("test")]
    marks, _ = load_marks(images, [image.sample.id for image in test], reader, model.preprocess)
    sheet = Image.new("RGB", (5 * (SIZE + 6) + 6, len(marks) * (SIZE + 6) + 6), "white")
    for row, (label, mark) in enumerate(marks.items()):
        carrier = next(image for image in test if image.mark == label and image.region is not None and image.spread)
        other = next(image for image in test if image.mark is None and image.label not in (label, None))
        with_it, without_it = (load_images([image], reader, model.preprocess) for image in (carrier, other))
        outlined = with_it.inputs.clone()
        outlined[0, :, ~with_it.regions[0]] *= 0.25
        tiles = [with_it.inputs, outlined, without_mark(with_it, marks), without_it.inputs, with_mark(without_it, mark)]
        for place, tile in enumerate(tiles):
            pixels = tile[0].permute(1, 2, 0).numpy() * np.array(STD) + np.array(MEAN)
            picture = Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8))
            sheet.paste(picture, (6 + place * (SIZE + 6), 6 + row * (SIZE + 6)))
    sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.NEAREST).quantize(128).save(to, optimize=True)


def verdict_rows(recipe: str, expected: str, verdict: Verdict) -> list[list[str]]:
    """The judged lines of a verdict, with the values of every seed."""
    rows = [[f"**{recipe}**", "whole", "", "", "", f"**{verdict.word}** (expected {expected})", ""]]
    for line in verdict.lines:
        if line.judged:
            measured = line.measured
            seeds = [
                " ".join(f"{value:.2f}" for value in values) for values in (measured.first_seeds, measured.second_seeds)
            ]
            pairs = ", ".join(f"{line.pair_words.count(word)} {word}" for word in dict.fromkeys(line.pair_words))
            rows.append(
                [
                    "",
                    line.name,
                    *seeds,
                    f"{measured.difference:+.2f} ({measured.low:+.2f} to {measured.high:+.2f})",
                    line.word,
                    pairs,
                ]
            )
    return rows


def write_page(
    given: argparse.Namespace,
    accused: list[str],
    confirmed: list[str],
    spread: list[list[str]],
    rows: list[list[str]],
    seconds: float,
) -> None:
    """The results between the markers of docs/loop.md."""
    text = [
        f"{given.train} training and {given.test} test images, three seeds; marks on nine of ten {SHORTCUT_CLASS}s (sticker), {MIDDLE_CLASS}s (translucent cross in "
        f"the middle) and {CAST_CLASS}s (colour cast); 3 % of the training labels wrong; {seconds / 60:.0f} minutes in all.", "",
        f"- **Found** by `curate --probe`, rows of the shortcut queue by class: {', '.join(accused) or 'none'}.",
        *(f"- **Confirmed**: {line}" for line in confirmed), "",
        f"Spread from at most {DECISIONS} decisions per mark:", "",
        *table(("mark of", "F1 of images with it", "mask IoU", "spread to", "true"), spread), "",
        *table(("repair", "line", "before, by seed", "after, by seed", "after - before (95 %)", "verdict", "single pairs of seeds"), rows), "",
        f"`python -m bench loop --seed {given.seed} --page`, {machine()}; not measured on a GPU.",
    ]  # fmt: skip
    write_part(DOCS / "loop.md", "loop", "\n".join(text))


if __name__ == "__main__":
    main()
