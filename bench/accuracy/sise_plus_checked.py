"""SISE+ on what it was not chosen by: the second half of the photographs, the same with SqueezeNet, and the tiles; a part of docs/sise.md.

    python -m bench sise_plus_checked [--images 24] [--first 150] [--minutes 15] [--case mobilenet_v2 squeezenet1_0 magnetic_tile]

Methods on the same images and metrics: SISE, SISE+, Grad-CAM, UCAG, RISE with 500 masks, occlusion. For every metric the table has the means, and for
SISE+ its mean difference to SISE and to the best of {Grad-CAM, UCAG, RISE, occlusion}, with the paired 95 % bootstrap interval over images. An
interrupted call goes on where it stopped, and so does one whose minutes were over: the table tells the images of each case.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from heatlas.engine.metrics import METRICS, spelt_out
from heatlas.engine.scoring.scoring_options import Scoring
from heatlas.workers.worker.malloc import keep_freed_memory

from ..data_sets import DATA_SETS, PREPROCESS, SQUEEZENET, DataSet
from ..page_part import DOCS, circumstances, table, write_part
from .evaluation import ScoreFile, batches, facts, measure
from .evaluation_methods import Asked, contenders
from .resampled_means import mean_interval, shown_change

CASES = {"mobilenet_v2": DATA_SETS[0], "squeezenet1_0": SQUEEZENET, "magnetic_tile": DATA_SETS[1]}
OURS, BASE = "sise_plus", "sise"
RIVALS = ("grad_cam", "ucag", "rise:masks=500", "occlusion")
WANTED = ("drop_pct", "insertion_auc", "deletion_auc", "ebpg", "pointing_hit", "infidelity")
RESAMPLES = 4000
Values = dict[str, np.ndarray]
"""By method, `(image, metric)`; NaN where a metric is not defined."""


def measured(case: str, data_set: DataSet, arguments: argparse.Namespace, until: float) -> Values:
    """What is known after the minutes, of the images that every method has."""
    model = data_set.model().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    scoring = Scoring(batch_size=32, precision=arguments.precision)
    asked = [Asked.of(text) for text in (BASE, OURS, *RIVALS)]
    known = arguments.scores / f"scores-{data_set.scores}-{arguments.precision}"
    compared = contenders(model, torch.zeros(3, *PREPROCESS.size), asked, scoring, spelt_out(WANTED), known)[
        : len(asked)
    ]
    files = {
        each.name: ScoreFile(arguments.scores, data_set, f"{each.name}-{case}", facts(each, arguments))
        for each in compared
    }
    whole = data_set.samples(arguments.first + arguments.images)
    samples = whole[arguments.first :] if len(whole) > arguments.first else whole[-arguments.images :]
    for few in batches(samples):
        if time.monotonic() > until:
            break
        for each in compared:
            measure(each, few, files[each.name], torch.device("cpu"))
        print(
            f"{case}: {sum(sample.id in files[OURS].found for sample in samples)} of {len(samples)} images", flush=True
        )
    ids = [sample.id for sample in samples if all(sample.id in file.found for file in files.values())]
    return {
        name: np.array(
            [[number(file.found[id]["values"].get(metric)) for metric in WANTED] for id in ids], dtype=np.float64
        )
        for name, file in files.items()
    }


def number(value: float | None) -> float:
    return np.nan if value is None else float(value)


def difference(ours: np.ndarray, rival: np.ndarray, metric: str) -> str:
    """The mean of the paired differences with its interval, and what that says."""
    paired = ours - rival
    if np.isnan(paired).all():
        return "-"
    low, high = mean_interval(paired, RESAMPLES)
    said = {1: "better", 0: "no difference shown", -1: "worse"}[shown_change((low, high), metric)]
    return f"{np.nanmean(paired):+.3g} [{low:.3g}, {high:.3g}] {said}"


def rows_of(values: Values) -> list[list[str]]:
    """A row for every metric."""
    rows = []
    for place, metric in enumerate(WANTED):
        columns = {name: each[:, place] for name, each in values.items()}
        if all(np.isnan(column).all() for column in columns.values()):
            continue
        sign = 1 if METRICS[metric].better == "higher" else -1
        best = max(RIVALS, key=lambda name, columns=columns, sign=sign: sign * np.nanmean(columns[name]))
        arrow = "↑" if sign > 0 else "↓"
        rows.append(
            [
                f"`{metric}` {arrow}", *(f"{np.nanmean(columns[name]):.3g}" for name in (BASE, OURS, *RIVALS)),
                difference(columns[OURS], columns[BASE], metric), f"{best}: {difference(columns[OURS], columns[best], metric)}",
            ]
        )  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench sise_plus_checked")
    parser.add_argument("--images", type=int, default=24, help="of each case, at most")
    parser.add_argument(
        "--first",
        type=int,
        default=150,
        help="images that ideas were chosen by, which are left out where a set has more",
    )
    parser.add_argument(
        "--minutes", type=float, default=15, help="of all cases, shared equally; no images are begun later"
    )
    parser.add_argument("--case", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--precision", default="bf16", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--scores", type=Path, default=Path("bench-out"), help="where scores are kept")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    arguments.scores.mkdir(parents=True, exist_ok=True)
    text: list[str] = []
    begun = time.monotonic()
    for place, case in enumerate(arguments.case, start=1):
        data_set = CASES[case]
        values = measured(case, data_set, arguments, begun + 60 * arguments.minutes * place / len(arguments.case))
        count = len(values[OURS])
        print(json.dumps({case: count}), flush=True)
        if count == 0:
            continue
        heads = [
            "metric",
            *(f"`{name}`" for name in (BASE, OURS, *RIVALS)),
            "SISE+ less SISE",
            "SISE+ less the best other",
        ]
        text += [f"**{data_set.title}** ({count} images)", "", *table(heads, rows_of(values)), ""]
    text += [
        "Means, and paired differences with their 95 % bootstrap interval over images; \"best other\" is the one of Grad-CAM, UCAG, RISE and occlusion with the best mean. "
        f"224 x 224, {arguments.precision}. `python -m bench sise_plus_checked`.", "", circumstances(),
    ]  # fmt: skip
    write_part(DOCS / "sise.md", "sise_plus_checked", "\n".join(text))


if __name__ == "__main__":
    main()
