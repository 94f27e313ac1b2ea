"""The whole loop on planted faults: found, confirmed, spread from 40 decisions each, repaired by two recipes, judged, and a sham repair judged.

    python -m bench loop [--data shapes|tiles] [--out bench-out/loop] [--train 960] [--test 400] [--seed 0] [--page]

`shapes`: the demo's images (wrong labels, nine of ten octagons with a sticker in the corner), and two more marks: a translucent cross in the middle of nine
of ten squares, and a colour cast over nine of ten of another class. `tiles`: cut-outs of magnetic tiles with and without a defect, and a tick of crayon on
nine of ten defects. The person who decides is the generator: it is asked about 40 images per mark and knows no other.
"""

from __future__ import annotations

import argparse
import contextlib
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
from heatlas.pipeline.demo.network import MEAN, STD
from heatlas.pipeline.fix.recipes import FixSettings
from heatlas.pipeline.fix.reference_trainer import train_reference
from heatlas.pipeline.fix.repair import repair_store
from heatlas.pipeline.fix.training_images import TrainingSet
from heatlas.pipeline.verdict.image_decisions import DecidedImage, LoadedImages
from heatlas.pipeline.verdict.judge import judge_repair, lock_store
from heatlas.pipeline.verdict.text import verdict_text
from heatlas.workers.samples import Sample
from safetensors.torch import save_file

from ..page_part import DOCS
from .loop_page import PARTS, LoopResult, draw_pictures, write_page
from .loop_sets import SETS, SIZE, LoopSet, write_images

DECISIONS = 40
"""Per mark: half of images with it, half of images of its class without."""
SEEDS = range(3)
REPAIRS = (("dfr", "better"), ("patchmix", "better"), ("sham", "no evidence or worse"))
"""What is done, and what the verdict should say."""


def train_before(chosen: LoopSet, truth: dict[str, dict], out: Path, first_seed: int) -> list[str]:
    """The set's network (the demo's knows shapes, and hangs on the sticker) trained on with the training images as they are, three seeds."""
    rows = {identity: row for identity, row in truth.items() if row["split"] == "train"}
    pixels = np.stack([row["pixels"] for row in rows.values()]).astype(np.float32) / 255
    inputs = (
        torch.from_numpy((pixels - np.array(MEAN, np.float32)) / np.array(STD, np.float32))
        .permute(0, 3, 1, 2)
        .contiguous()
    )
    labels = [chosen.class_names.index(row["label"]) for row in rows.values()]
    images = tuple(
        DecidedImage(Sample(identity, ""), label, label) for identity, label in zip(rows, labels, strict=True)
    )
    empty = torch.zeros(len(rows), SIZE, SIZE, dtype=torch.bool)
    data = TrainingSet(LoadedImages(images, inputs, empty, empty, ("",) * len(rows)), torch.tensor(labels), {}, ())
    settings = FixSettings("none", epochs=chosen.epochs, learning_rate=2e-3, patience=chosen.epochs)
    weights = []
    for seed in SEEDS:
        weights.append(str(out / f"before-{seed}.safetensors"))
        if not Path(weights[-1]).exists():
            save_file(train_reference(chosen.network(), data, settings, first_seed + seed), weights[-1])
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


def accused_counts(chosen: LoopSet, store: str) -> dict[str, int]:
    """What `heatlas curate --probe` accuses: rows of the queue by class, most first."""
    said("curate", store, "--probe", "--recipe", "shortcut")
    queue = heatlas.open(store).curate(["shortcut"]).to_pylist()
    names = [chosen.class_names[row["target"]] for row in queue]
    return {name: names.count(name) for name in sorted(set(names), key=names.count, reverse=True)}


def right_counts(chosen: LoopSet, store: str, truth: dict[str, dict]) -> dict[str, tuple[int, int]]:
    """By marked class: images of it that are predicted right, with and without the mark."""
    rows = heatlas.open(store).table(["id", "label", "prediction"]).to_pylist()
    right = [truth[row["id"]] for row in rows if row["label"] is not None and row["label"] == row["prediction"]]
    counts = {}
    for name in chosen.marked:
        own = [row["mark"] is not None for row in right if row["label"] == name]
        counts[name] = sum(own), len(own) - sum(own)
    return counts


def decide_from_truth(chosen: LoopSet, store: str, truth: dict[str, dict], seed: int) -> None:
    """The generator answers for 40 images of each mark."""
    atlas, random = heatlas.open(store), np.random.default_rng(seed)
    for name in chosen.marked:
        carriers, others = asked(truth, name, random)
        rows = [{"id": identity, "kind": "shortcut", "target": chosen.class_names.index(name), "mask": dict(encode_mask(truth[identity]["mark"]))} for identity in carriers]  # fmt: skip
        atlas.decide(rows, who="generator")
        atlas.decide(others, "core", who="generator")


def spread_lines(chosen: LoopSet, store: str, truth: dict[str, dict]) -> list[list[str]]:
    """Spread the decisions; F1 of the carriers over all images that nobody was asked about, and mean mask IoU, by mark."""
    print(said("spread", store), flush=True)
    decisions = {
        decision.id: decision for decision in heatlas.open(store).decisions().current if decision.kind == "shortcut"
    }
    asked_about = {identity for identity, decision in decisions.items() if decision.source != "spread"}
    rows = []
    for name in chosen.marked:
        own = [identity for identity, row in truth.items() if row["true"] == name and identity not in asked_about]
        real = {identity for identity in own if truth[identity]["mark"] is not None}
        told = {
            identity
            for identity, decision in decisions.items()
            if decision.source == "spread" and decision.target == chosen.class_names.index(name)
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


def sham_store(chosen: LoopSet, store: str, out: Path, truth: dict[str, dict], seed: int) -> str:
    """A copy of the store that blames a place of images drawn at random, whether or not they carry a mark."""
    sham = str(
        shutil.copytree(store, out / "sham-store", ignore=shutil.ignore_patterns("decisions"), dirs_exist_ok=True)
    )
    mask = np.zeros((SIZE, SIZE), bool)
    mask[chosen.sham] = True
    own = [identity for identity, row in truth.items() if row["split"] == "train" and row["label"] in chosen.marked]
    blamed = np.random.default_rng(seed + 1).permutation(len(own))[: len(own) // 2]
    heatlas.open(sham).decide([own[place] for place in blamed], "shortcut", mask=mask, who="sham")
    return sham


def repaired(chosen: LoopSet, store: str, test: str, weights: list[str], recipe: str, out: Path) -> str:
    settings = FixSettings(recipe, epochs=chosen.epochs, learning_rate=1e-3, patience=chosen.epochs)
    return repair_store(store, settings, models=weights, test=test, out=str(out), overwrite=True).out


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", choices=list(SETS), default="shapes")
    parser.add_argument("--out", type=Path, help="Default: bench-out/loop, or bench-out/loop-tiles.")
    parser.add_argument("--train", type=int, help="Training images; default: 960 shapes, 520 cut-outs of tiles.")
    parser.add_argument("--test", type=int, help="Test images; default: 400, 220.")
    parser.add_argument("--seed", type=int, default=0, help="Other images, networks, decisions and shams.")
    parser.add_argument(
        "--page",
        type=Path,
        nargs="?",
        const=DOCS / "loop.md",
        help="Write the results into docs/loop.md (or a copy of it).",
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    chosen = SETS[given.data]
    counts = {"train": given.train or chosen.counts[0], "test": given.test or chosen.counts[1]}
    out = given.out or Path("bench-out") / PARTS[given.data]
    for name in ("data", "store", "sham-store", *(recipe for recipe, _ in REPAIRS)):
        shutil.rmtree(out / name, ignore_errors=True)  # networks that were trained before are used again
    seconds: dict[str, float] = {}
    with timed("images", seconds):
        truth = write_images(chosen, out / "data", counts, given.seed)
    with timed("training before", seconds):
        weights = train_before(chosen, truth, out, len(SEEDS) * given.seed)
    store = str(out / "store")
    with timed("explain", seconds):
        heatlas.explain_dataset(
            model=f"{chosen.model}@{weights[0]}", data=str(out / "data" / "manifest.csv"), out=store, workers=0, method="grad_cam",
            metrics=["ebpg"], chance_maps=0,
        )  # fmt: skip
    lock_store(store, "split = 'test'")
    with timed("find", seconds):
        accused = accused_counts(chosen, store)
    decide_from_truth(chosen, store, truth, given.seed)
    with timed("confirm", seconds):
        confirmed = confirmed_lines(store)
    with timed("spread", seconds):
        spread = spread_lines(chosen, store, truth)
    print("accused:", accused, "\nconfirmed:", *confirmed, "\nspread:", *spread, sep="\n", flush=True)
    verdicts = []
    for recipe, expected in REPAIRS:
        with timed(recipe, seconds):
            source = sham_store(chosen, store, out, truth, given.seed) if recipe == "sham" else store
            after = repaired(chosen, source, store, weights, "dfr" if recipe == "sham" else recipe, out / recipe)
        with timed(f"verdict on {recipe}", seconds):
            verdict = judge_repair(weights, [after], store=store)
        print(verdict_text(verdict), flush=True)
        verdicts.append((recipe, expected, verdict))
    total = sum(seconds.values())
    print(f"{total:.0f} s in all", json.dumps({name: round(value) for name, value in seconds.items()}))
    if given.page:
        result = LoopResult(
            chosen, counts, given.seed, accused, right_counts(chosen, store, truth), confirmed, spread, verdicts, total
        )
        if chosen.name == "shapes":  # of the tiles nothing but numbers is published
            draw_pictures(chosen, store, weights[0], given.page.with_name("loop.png"))
        write_page(given.page, result, DECISIONS)


if __name__ == "__main__":
    main()
