"""The engine beside pytorch-grad-cam's and torchcam's Score-CAM and captum's occlusion: masks per second, and quality.

    python -m bench versus_peers [--networks mobilenet_v2] [--images 3] [--masks 0] [--quality 0] [--score-cam 0] [--fresh]

Needs the `bench` extra. Every method gets the same model, the same image and, where it can be told, the number of masks that SISE scores
for that image (Score-CAM: so many maps of the last layer, through each library's `reshape_transform`; occlusion: a square grid of about
as many windows). Each peer runs as its users call it, and once more as `tuned`: channels_last under our bf16 autocast. Its batch size is
the fastest of 16, 32, 64 in a trial. Methods take turns on each image; ratios are within an image, and the median over images counts.
--quality N measures the maps of N boxed images with our metrics, each method with all of its own masks.
--score-cam N races our Score-CAM and RISE, N images sharing mask batches, with the peers' Score-CAM at the same number of masks per image.
Images are stored when done: the same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from heatlas.engine.explanation import Explanation
from heatlas.engine.methods.sise import SISE
from heatlas.engine.scoring.scoring_options import FORWARDS, ForwardKind
from heatlas.engine.session import ExplainSession
from heatlas.statuses import CONSTANT_MAP, OK
from heatlas.workers.worker.malloc import keep_freed_memory, return_freed_memory
from heatlas.workers.worker.shard_attempt import seed_of
from torch import Tensor, nn

from ..data_sets import boxed_samples, network, prepared
from ..page_part import table, write_section
from ..records import Records
from .peers import PEERS, RUNS
from .shared_batch_rates import score_cam_lines, score_cams

METRICS = ("drop_pct", "increase", "ebpg", "insertion_auc", "deletion_auc")
BATCHES = (16, 32, 64)
TRIAL = 64


def timed(peer: str, tuned: bool, models: tuple[nn.Module, nn.Module], *arguments: Any) -> tuple[float, int]:
    """Seconds and masks of one peer on one image."""
    model = models[tuned]
    device = next(model.parameters()).device
    (keep_freed_memory if tuned else return_freed_memory)()
    sync(device)
    begun = time.perf_counter()
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=tuned):
        _, masks = RUNS[peer](model, *arguments)
    sync(device)
    return time.perf_counter() - begun, masks


def sync(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def engine(model: nn.Module, image: Tensor, target: int, precision: str, forward: ForwardKind) -> tuple[float, int]:
    """Seconds and masks of SISE on one image; the batch that packs the next image's masks too is here padded, which costs us."""
    keep_freed_memory()
    sise = SISE(model, precision=precision, batch_size=32, forward=forward)
    sise.plan(image)
    sise.scorer.warm_up(image)
    sync(image.device)
    begun = time.perf_counter()
    result = sise(image[None], target)
    sync(image.device)
    return time.perf_counter() - begun, int(result.mask_counts.sum())


def best_batch(
    peer: str, tuned: bool, models: tuple[nn.Module, nn.Module], layer: str, image: Tensor, target: int
) -> int:
    rates = {}
    for batch in BATCHES:
        seconds, masks = timed(peer, tuned, models, layer, image, target, TRIAL, batch)
        rates[batch] = masks / seconds
    return max(rates, key=lambda batch: rates[batch])


def race(name: str, images: int, cap: int, records: Records) -> None:
    """Masks per second of everything on every image, in turns."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    plain, fast = network(name).to(device), network(name).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    models = (plain, fast)
    samples = boxed_samples(images)
    first = prepared(samples[0]).image.to(device)
    layer = SISE(plain).plan(first).names[-1]
    for peer in PEERS:
        for tuned in (False, True):
            key = f"batch|{name}|{peer}|{tuned}"
            if key not in records:
                records.add(key, best_batch(peer, tuned, models, layer, first, 0))
    for number, sample in enumerate(samples):
        key = f"race|{name}|{cap}|{sample.id}"
        if key in records:
            continue
        image = prepared(sample).image.to(device)
        with torch.no_grad():
            target = int(plain(image[None]).argmax())
        wanted = min(sum(layer_mask.job.count for layer_mask in SISE(fast).layer_masks(image, target)[1]), cap or 10**9)
        runs: dict[str, Callable[[], tuple[float, int]]] = {}
        for precision in ("fp32", "bf16"):
            for forward in FORWARDS[:2]:
                label = f"heatlas {precision}{'' if forward == 'eager' else ' ' + forward}"
                runs[label] = partial(engine, fast, image, target, precision, forward)
        for peer in PEERS:
            for tuned in (False, True):
                batch = records.found[f"batch|{name}|{peer}|{tuned}"]
                label = f"{peer}{' tuned' if tuned else ''}"
                runs[label] = partial(timed, peer, tuned, models, layer, image, target, wanted, batch)
        turn = 3 * number % len(runs)  # so that nobody always comes first
        timings = {label: runs[label]() for label in [*list(runs)[turn:], *list(runs)[:turn]]}
        result = {label: timings[label] for label in runs}
        records.add(
            key, {label: {"masks": masks, "rate": masks / seconds} for label, (seconds, masks) in result.items()}
        )


def quality(name: str, images: int, records: Records) -> None:
    """Our metrics of everyone's maps, each made with all of its masks; seconds of the map alone."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = network(name).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    sise = SISE(model, precision="bf16", batch_size=32)
    for sample in boxed_samples(images):
        result = prepared(sample)
        image = result.image.to(device)
        layer = sise.plan(image).names[-1]
        with torch.no_grad():
            logits = model(image[None])[0].float()
        target = int(logits.argmax())
        for method in ("heatlas bf16", *PEERS):
            key = f"quality|{name}|{method}|{sample.id}"
            if key in records:
                continue
            begun = time.perf_counter()
            if method in RUNS:
                map = RUNS[method](model, layer, image, target, None, 32)[0].to(device).float()
                map = map / map.amax().clamp(min=1e-12)
            else:
                map = sise(image[None], target).maps[0]
            seconds = time.perf_counter() - begun
            status = OK if bool(map.amax() > map.amin()) else CONSTANT_MAP
            given = Explanation(status, None, target, target, float(logits.softmax(0)[target]), float(logits[target]))
            given.map = map if status == OK else None
            session = ExplainSession(SISE(model, batch_size=32), METRICS)
            left = (
                session.push(0, image, truth=result.truth, sample_seed=seed_of(sample.id), given=given)
                + session.finish()
            )
            records.add(key, {"seconds": seconds, "status": status, "metrics": left[0].metrics})


def lines(figures: dict[str, Any]) -> list[str]:
    out = [
        "## Beside other libraries",
        "",
        "`python -m bench versus_peers`: the same model, image and number of masks (occlusion: a grid of about as many windows). *tuned* is the",
        "peer under our bf16 autocast with a channels_last model in a process that keeps freed memory, which its users would have to do by",
        "themselves; heatlas's workers do it. Ratios are within an image; the median over images counts, in brackets the least and the largest.",
    ]
    for name in dict.fromkeys(key.split("|")[1] for key in figures if key.startswith("race")):
        races = [record for key, record in figures.items() if key.startswith(f"race|{name}|")]
        labels = list(races[0])
        plain = [max(race[peer]["rate"] for peer in PEERS) for race in races]
        tuned = [max(race[f"{peer} tuned"]["rate"] for peer in PEERS) for race in races]
        rows = []
        for label in labels:
            rates = [race[label]["rate"] for race in races]
            batch = figures.get(f"batch|{name}|{label.removesuffix(' tuned')}|{label.endswith(' tuned')}", 32)
            rows.append([label, batch, f"{statistics.mean(race[label]['masks'] for race in races):.0f}", f"{statistics.median(rates):.1f}",
                         spread(rates, plain), spread(rates, tuned)])  # fmt: skip
        head = ("method", "batch", "masks", "masks/s", "x the best peer", "x the best tuned peer")
        out += ["", f"### {name}, {len(races)} images", "", *table(head, rows)]
    for name in dict.fromkeys(key.split("|")[1] for key in figures if key.startswith("quality")):
        rows = []
        cells = [record for key, record in figures.items() if key.startswith(f"quality|{name}|")]
        ids = {key.split("|")[3] for key in figures if key.startswith(f"quality|{name}|")}
        for method in ("heatlas bf16", *PEERS):
            of = [figures[f"quality|{name}|{method}|{id}"] for id in ids if all(f"quality|{name}|{other}|{id}" in figures for other in ("heatlas bf16", *PEERS))]  # fmt: skip
            values = [
                [record["metrics"][metric] for record in of if record["metrics"].get(metric) is not None]
                for metric in METRICS
            ]
            rows.append(
                [
                    method,
                    len(of),
                    f"{np.median([record['seconds'] for record in of]):.1f}",
                    *(f"{np.mean(value):.3f}" if value else "-" for value in values),
                ]
            )
        if cells:
            out += ["", f"### Quality beside speed, {name}", "", "Every map measured by the same code; each Score-CAM with all maps of the last layer, "
                    "all on the channels_last model.", "", *table(("method", "images", "median seconds", *METRICS), rows)]  # fmt: skip
    return [*out, *([] if torch.cuda.is_available() else ["", "Not measured on a GPU."])]


def spread(rates: list[float], best: list[float]) -> str:
    ratios = [rate / peak for rate, peak in zip(rates, best, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["mobilenet_v2"])
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--masks", type=int, default=0, help="at most so many for the peers, 0: as many as SISE")
    parser.add_argument("--quality", type=int, default=0, help="images on which maps are measured")
    parser.add_argument(
        "--score-cam", type=int, default=0, help="images for Score-CAM and RISE beside the peers' Score-CAM"
    )
    parser.add_argument("--rounds", type=int, default=3, help="of that race")
    parser.add_argument("--layer", help="of Score-CAM; the last block layer unless named")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    arguments = parser.parse_args()
    try:
        import pytorch_grad_cam  # noqa: F401
        import torchcam  # noqa: F401
    except ImportError as error:
        raise SystemExit(f"{error.name} is not installed; pip install 'heatlas[bench]'") from error
    records = Records("versus_peers", fresh=arguments.fresh)
    for name in arguments.networks:
        race(name, arguments.images, arguments.masks, records)
        if arguments.quality:
            quality(name, arguments.quality, records)
        if arguments.score_cam:
            score_cams(name, arguments.score_cam, arguments.layer, arguments.rounds, records)
    write_section(
        "versus_peers",
        [*lines(records.found), *score_cam_lines(records.found)],
        packages=("grad-cam", "torchcam", "captum"),
    )


if __name__ == "__main__":
    main()
