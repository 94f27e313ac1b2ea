"""Trained explainers on images they were not trained on, beside their teacher, Grad-CAM and mean maps; writes a part of docs/training.md.

    python -m bench trained_explainers [--images 240] [--sizes 30 60 120] [--epochs 20] [--out bench-out/trained]

The demo's images and network. One half of the images is to try on: SISE explains it, and students of so many of its maps are trained, and
T-TAME without labels on all of it. The other half is to verify: every explainer explains it, and nothing was chosen by it. An interrupted
call goes on where it stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import heatlas
import numpy as np
import torch
from heatlas.engine.metrics.ranking import spearman
from heatlas.engine.training.head_settings import HeadSettings
from heatlas.pipeline.cli.train import STUDENT
from heatlas.pipeline.demo.dataset import write_dataset
from heatlas.pipeline.settings.load import load_settings
from heatlas.pipeline.train.train import train_settings
from heatlas.workers.training.agreement import MeanMaps, weighted_jaccard
from heatlas.workers.training.training_spec import TeacherMap

from ..page_part import DOCS, machine, table, write_part

MODEL = "heatlas.pipeline.demo.network:demo_model"
METRICS = ("drop_pct", "insertion_auc", "ebpg")
RESAMPLES = 4000


def ids_file(folder: Path, name: str, start: int, stop: int) -> Path:
    """The ids of training images, one a line."""
    path = folder / f"{name}.txt"
    path.write_text("".join(f"train-{number:05d}\n" for number in range(start, stop)))
    return path


def explained(data: Path, ids: Path, out: Path, **settings: object) -> heatlas.Atlas:
    """The store of these images, made or finished."""
    heatlas.explain_dataset(
        model=MODEL, data=data, out=out, ids=str(ids), workers=0, metrics=METRICS, chance_maps=0, store={"map_png": False}, **settings
    )  # fmt: skip
    return heatlas.open(out)


def trained(data: Path, ids: Path, out: Path, epochs: int, teacher: Path | None) -> Path:
    """The explainer of these images, made or finished."""
    if not out.exists():
        settings = load_settings({"model": MODEL, "data": str(data), "out": str(out), "ids": str(ids), "workers": 0})
        head = HeadSettings(**{**(STUDENT if teacher else {}), "epochs": epochs})
        train_settings("ttame", settings, head, teacher=None if teacher is None else str(teacher))
    return out


def maps_of(atlas: heatlas.Atlas, ids: list[str]) -> torch.Tensor:
    """`(image, height, width)` of these ids, in their order."""
    return torch.from_numpy(np.stack([atlas.maps([id])[0] for id in ids]))


def interval(values: np.ndarray) -> str:
    """Mean and 95 % bootstrap interval over images."""
    draws = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.percentile(np.nanmean(values[draws], axis=1), [2.5, 97.5])
    return f"{np.nanmean(values):.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=240)
    parser.add_argument("--sizes", type=int, nargs="+", default=[30, 60, 120])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("bench-out/trained"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    half, out = arguments.images // 2, arguments.out / str(arguments.images)
    out.mkdir(parents=True, exist_ok=True)
    data = write_dataset(out / "data", "train", arguments.images)
    data = data if data.is_file() else out / "data" / "manifest.csv"
    to_try, to_verify = ids_file(out, "try", 0, half), ids_file(out, "verify", half, arguments.images)
    teacher_try = explained(data, to_try, out / "sise-try")
    stores = {"SISE (the teacher)": explained(data, to_verify, out / "sise-verify")}
    stores["Grad-CAM"] = explained(data, to_verify, out / "grad-cam", method="grad_cam")
    epochs = arguments.epochs
    for size in arguments.sizes:
        ids = ids_file(out, f"try-{size}", 0, min(size, half))
        student = trained(data, ids, out / f"student-{size}-{epochs}.safetensors", epochs, out / "sise-try")
        name = f"student of {min(size, half)} maps"
        stores[name] = explained(
            data, to_verify, out / f"student-{size}-{epochs}", method="ttame", explainer=str(student)
        )
    alone = trained(data, to_try, out / f"ttame-{epochs}.safetensors", epochs, None)
    stores[f"T-TAME, {half} images"] = explained(
        data, to_verify, out / f"ttame-{epochs}", method="ttame", explainer=str(alone)
    )
    report(stores, teacher_try, half, epochs)


def report(stores: dict[str, heatlas.Atlas], teacher_try: heatlas.Atlas, half: int, epochs: int) -> None:
    """Write the table."""
    frames = {
        name: atlas.to_pandas(["id", "target", "status", "seconds", *METRICS]).set_index("id")
        for name, atlas in stores.items()
    }
    usable = [frame[frame["status"] == "ok"].index for frame in frames.values()]
    ids = sorted(set(usable[0]).intersection(*usable[1:]))
    teacher = maps_of(stores["SISE (the teacher)"], ids)
    known = teacher_try.to_pandas(["id", "target"], where="status = 'ok'")
    means = MeanMaps(
        TeacherMap(int(target), teacher_try.maps([id])[0].astype(np.float16))
        for id, target in zip(known["id"], known["target"], strict=True)
    )
    targets = frames["SISE (the teacher)"].loc[ids, "target"]
    own = {name: maps_of(atlas, ids) for name, atlas in stores.items()}
    own["mean SISE map of the class"] = torch.from_numpy(np.stack([means.of(int(target)) for target in targets]))
    rows = []
    for name, maps in own.items():
        correlation = spearman(maps.flatten(1).float(), teacher.flatten(1).float()).numpy()
        overlap = weighted_jaccard(maps.float(), teacher.float()).numpy()
        cells = ["-"] * (len(METRICS) + 1)
        if name in frames:
            frame = frames[name].loc[ids]
            cells = [
                *(interval(frame[metric].to_numpy(dtype=float)) for metric in METRICS), f"{frame['seconds'].median():.3f}",
            ]  # fmt: skip
        rows.append([name, interval(correlation), interval(overlap), *cells])
    head = ("map", "Spearman with SISE", "weighted Jaccard", *(f"`{metric}`" for metric in METRICS), "seconds/image")
    text = [
        f"The demo's network and images, {half} to try on, {len(ids)} others to verify, {epochs} epochs; means with 95 % bootstrap intervals over images.",
        "Seconds are the median of a row's wall time, metrics included, on a machine that did other work, too. `python -m bench trained_explainers`, "
        f"{machine()}.",
        "",
        *table(head, rows),
        "",
        verdict(own, teacher),
    ]
    write_part(DOCS / "training.md", "trained", "\n".join(text))


def verdict(own: dict[str, torch.Tensor], teacher: torch.Tensor) -> str:
    """Which explainers are nearer to the teacher than the mean map of the class, by the interval of the paired difference."""
    reference = spearman(own["mean SISE map of the class"].flatten(1).float(), teacher.flatten(1).float()).numpy()
    parts = []
    for name in own:
        if name.startswith(("student", "T-TAME")):
            difference = spearman(own[name].flatten(1).float(), teacher.flatten(1).float()).numpy() - reference
            low, high = (float(end) for end in interval(difference).partition("[")[2].rstrip("]").split(", "))
            word = "nearer than" if low > 0 else "**farther than**" if high < 0 else "**not shown to be nearer than**"
            parts.append(f"{name}: {word} the mean map ({np.nanmean(difference):+.3f} [{low:.3f}, {high:.3f}])")
    return "Spearman with SISE beside the mean map of the class, paired: " + "; ".join(parts) + "."


if __name__ == "__main__":
    main()
