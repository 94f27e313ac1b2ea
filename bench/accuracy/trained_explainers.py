"""Trained explainers on images they were not trained on, beside SISE, Grad-CAM, RISE, mean maps and chance; writes parts of docs/training.md.

    python -m bench trained_explainers demo [--images 96] [--sizes 12 24 48] [--epochs 16]
    python -m bench trained_explainers photographs [--images 140] [--verify 20] [--sizes 24] [--side 160]
    python -m bench trained_explainers small [--images 1600] [--verify 100] [--sizes 100 400 1500] [--epochs 8]

`small` asks how agreement grows with the images that a student is trained on: 1,600 photographs of 32 x 32 pixels and a small network.
One part of the images is to try on: students of so many of SISE's maps are trained, and T-TAME, P-TAME and the explainer network without
labels on all of it. The other part is to verify: everything explains it, and nothing was chosen by it but, on photographs, the explainer
network's epochs (raised from 3 to 12 after its figures had been seen; docs/training.md says so). An interrupted call goes on where it
stopped; --steps N ends it after so many stores or trainings.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import heatlas
import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from heatlas.engine.given_maps import evaluate_maps
from heatlas.engine.metrics.ranking import spearman
from heatlas.pipeline.run_samples import chosen_samples
from heatlas.pipeline.settings.load import load_settings
from heatlas.pipeline.shards import plan_shards, samples_of
from heatlas.pipeline.sources.reading.reader import FsspecReader
from heatlas.pipeline.train.defaults import training_settings
from heatlas.pipeline.train.train import train_settings
from heatlas.workers.images.decode import prepare
from heatlas.workers.models.load import ModelSpec, load_model
from heatlas.workers.training.agreement import MeanMaps, resized, weighted_jaccard
from heatlas.workers.training.training_spec import TeacherMap

from ..page_part import DOCS, machine, table, write_part
from .trained_cases import TrainedCase, demo_case, photograph_case, small_case

RESAMPLES = 4000
GPU_RATE = 1000
"""Forwards a second of a GPU that the estimate assumes, as `heatlas plan` does."""
MEAN = "mean SISE map of the class"
CHANCE = {"random": "random map", "gaussian": "centred Gaussian"}


class Work:
    """Stores and explainers of a case in a folder: made, or found."""

    def __init__(self, case: TrainedCase, out: Path, steps: int | None):
        self.case, self.out, self._left = case, out / case.name, steps
        self.out.mkdir(parents=True, exist_ok=True)
        self.seconds: dict[str, float] = json.loads(self._log.read_text()) if self._log.exists() else {}

    @property
    def _log(self) -> Path:
        return self.out / "training-seconds.json"

    def _spend(self) -> None:
        """One step, if there is one left.

        Raises:
            SystemExit: When there is none.
        """
        if self._left == 0:
            sys.exit("stopped; the same call goes on")
        self._left = None if self._left is None else self._left - 1

    def shared(self, ids: tuple[str, ...]) -> dict[str, object]:
        """Settings of a run over these images."""
        path = self.out / f"ids-{len(ids)}-{ids[0].replace('/', '-')}.txt"
        path.write_text("\n".join(ids) + "\n")
        return {
            "model": self.case.model,
            "data": str(self.case.data),
            "ids": str(path),
            "workers": 0,
            **self.case.settings,
        }

    def store(self, name: str, ids: tuple[str, ...], **settings: object) -> heatlas.Atlas:
        """The store of these images."""
        if not (self.out / name / "_SUCCESS").exists():
            self._spend()
            print(f"{self.case.name}: {name}", flush=True)
            heatlas.explain_dataset(
                out=self.out / name, store={"map_png": False},
                **{"metrics": self.case.metrics, "chance_maps": 0, **self.shared(ids), **settings},
            )  # fmt: skip
        return heatlas.open(self.out / name)

    def explainer(self, method: str, name: str, ids: tuple[str, ...], teacher: bool = False, **more: object) -> str:
        """The file of a trained explainer."""
        path = self.out / f"{name}.safetensors"
        if not path.exists():
            self._spend()
            print(f"{self.case.name}: {name}", flush=True)
            epochs = self.case.epochs["student" if teacher else method]
            begun = time.perf_counter()
            train_settings(
                method, load_settings({**self.shared(ids), "out": str(path)}), training_settings(method, {"epochs": epochs, **more}, teacher=teacher),
                teacher=str(self.out / "sise-try") if teacher else None, auxiliary=self.case.auxiliary if method == "ptame" else None,
            )  # fmt: skip
            self.seconds[name] = time.perf_counter() - begun
            self._log.write_text(json.dumps(self.seconds))
        return str(path)

    def stores(self) -> dict[str, tuple[heatlas.Atlas, float | None]]:
        """Stores of the images to verify by the name of what made them, with the seconds of its training."""
        case, found = self.case, dict[str, tuple[heatlas.Atlas, float | None]]()
        verify = case.to_verify
        found["Grad-CAM"] = self.store("grad-cam", verify, method="grad_cam"), None
        for method, title in (("ttame", "T-TAME"), ("ptame", "P-TAME"), ("explainer_network", "explainer network")):
            file = self.explainer(method, method, case.to_try)
            store = self.store(f"{method}-verify", verify, method=method, explainer=file)
            found[f"{title}, {len(case.to_try)} images"] = store, self.seconds.get(method)
        found["SISE"] = self.store("sise-verify", verify, chance_maps=len(verify), **case.sise), None
        found[f"RISE, {case.masks} masks"] = (
            self.store("rise", verify, method="rise", rise={"masks": case.masks}),
            None,
        )
        self.teacher()
        for size in case.sizes:
            name = f"student-{size}"
            file = self.explainer("ttame", name, case.to_try[:size], teacher=True)
            store = self.store(f"{name}-verify", verify, method="ttame", explainer=file)
            found[f"student of {size} maps"] = store, self.seconds.get(name)
        return found

    def teacher(self) -> heatlas.Atlas:
        """SISE's maps of the images to try on."""
        return self.store("sise-try", self.case.to_try[: max(self.case.sizes)], **self.case.sise)


def maps_of(atlas: heatlas.Atlas, ids: list[str]) -> torch.Tensor:
    """`(image, height, width)` of these ids, in their order, float32."""
    return torch.from_numpy(np.stack([atlas.maps([id])[0] for id in ids])).float()


def mean_maps(work: Work, ids: list[str], targets: pd.Series) -> torch.Tensor:
    """The mean SISE map of each image's class over the images to try on; of all where a class has none."""
    teacher = work.teacher()
    known = teacher.to_pandas(["id", "target"], where="status = 'ok'")
    means = MeanMaps(
        TeacherMap(int(target), teacher.maps([id])[0].astype(np.float16))
        for id, target in zip(known["id"], known["target"], strict=True)
    )
    return torch.from_numpy(np.stack([means.of(int(targets[id])) for id in ids]))


def measured(work: Work, ids: list[str], targets: pd.Series, maps: torch.Tensor) -> pd.DataFrame:
    """The metrics of given maps."""
    path = work.out / "mean-maps.json"
    if not path.exists():
        settings = load_settings({**work.shared(work.case.to_verify), "out": "unused"})
        listing = chosen_samples(settings, None).listing
        place = listing.schema.get_field_index("label")
        listing = listing.set_column(place, "label", pa.nulls(len(listing), pa.int32()))  # labels are not used
        [shard] = plan_shards(len(listing), len(listing))
        model = load_model(ModelSpec(spec=settings.model, **settings.preprocess.model_dump()))
        samples = {sample.id: sample for sample in samples_of(listing, shard)}
        rows = {}
        for id, own in zip(ids, maps, strict=True):
            image = prepare(samples[id], FsspecReader(), model.preprocess)
            whole = resized(own[None], (image.image.shape[1], image.image.shape[2])).clamp(0, 1)
            truth = None if image.truth is None else image.truth[None]
            values = evaluate_maps(
                model.module, image.image[None], whole, [int(targets[id])], metrics=list(work.case.metrics), truth=truth
            )
            rows[id] = {name: float(column[0]) for name, column in values.values.items()}
        path.write_text(json.dumps(rows))
    return pd.DataFrame.from_dict(json.loads(path.read_text()), orient="index").loc[ids]


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and 95 % bootstrap interval over images."""
    draws = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.percentile(np.nanmean(values[draws], axis=1), [2.5, 97.5])
    return float(np.nanmean(values)), float(low), float(high)


def cell(values: np.ndarray) -> str:
    return "{:.3f} [{:.3f}, {:.3f}]".format(*interval(values))


def report(work: Work) -> None:
    """Write the table."""
    stores = work.stores()
    metrics = work.case.metrics
    columns = ["id", "target", "status", "n_forwards", *metrics]
    frames = {name: atlas.to_pandas(columns).set_index("id") for name, (atlas, _) in stores.items()}
    usable = [frame[frame["status"] == "ok"].index for frame in frames.values()]
    ids = sorted(set(usable[0]).intersection(*usable[1:]))
    teacher, targets = maps_of(stores["SISE"][0], ids), frames["SISE"]["target"]
    own = {name: maps_of(atlas, ids) for name, (atlas, _) in stores.items()}
    values = {name: frame.loc[ids, list(metrics)].astype(float) for name, frame in frames.items()}
    own[MEAN] = mean_maps(work, ids, targets)
    values[MEAN] = measured(work, ids, targets, own[MEAN])
    floors = stores["SISE"][0].to_pandas(["id", "floors"]).set_index("id").loc[ids, "floors"]
    for kind, name in CHANCE.items():
        values[name] = pd.DataFrame(
            [{metric: row[kind].get(metric) for metric in metrics} for row in floors], index=ids
        ).astype(float)
    alike = {
        name: {
            "Spearman": spearman(maps.flatten(1), teacher.flatten(1)).numpy(), "Jaccard": weighted_jaccard(maps, teacher).numpy(),
        }
        for name, maps in own.items()
    }  # fmt: skip
    rows = []
    for name in [
        *(name for name in stores if "student" not in name),
        *(name for name in stores if "student" in name),
        MEAN,
        *CHANCE.values(),
    ]:
        cells = [cell(alike[name][kind]) for kind in ("Spearman", "Jaccard")] if name in alike else ["-", "-"]
        cells += [cell(values[name][metric].to_numpy()) for metric in metrics]
        training = stores[name][1] if name in stores else None
        cells += [
            f"{frames[name].loc[ids, 'n_forwards'].mean():,.0f}" if name in frames else "-", "-" if training is None else f"{training:.0f}",
        ]  # fmt: skip
        rows.append([name, *cells])
    head = (
        "map",
        "Spearman with SISE",
        "weighted Jaccard",
        *(f"`{metric}`" for metric in metrics),
        "forwards/image",
        "seconds of training",
    )
    case = work.case
    epochs = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in case.epochs.items())
    text = [
        f"{case.title}; {len(ids)} others to verify; epochs: {epochs}. Means with 95 % bootstrap intervals over images.",
        f"Forwards are those of map and metrics together. Seconds of training are wall time on a machine that did other work, too. `python -m bench trained_explainers {case.name.partition('-')[0]}`, {machine()}.",
        "",
        *table(head, rows),
        "",
        *verdicts(stores, values, alike),
        "",
        *(rates(work) if case.rates else [estimate(work, frames, ids)]),
    ]  # fmt: skip
    write_part(DOCS / "training.md", f"trained {case.name.partition('-')[0]}", "\n".join(text))


def estimate(work: Work, frames: dict[str, pd.DataFrame], ids: list[str]) -> str:
    """What a day of a GPU would give, from passes measured here and an assumed rate."""
    case = work.case
    settings = load_settings({**work.shared(case.to_verify), "out": "unused"})
    model = load_model(ModelSpec(spec=settings.model, **settings.preprocess.model_dump()))
    image = torch.zeros(16, model.preprocess.channels, *model.preprocess.size)
    with torch.no_grad():
        model.module(image)
        begun = time.perf_counter()
        model.module(image)
    forward = (time.perf_counter() - begun) / len(image)
    costs = {
        name.replace("_", " "): work.seconds[name] / (case.epochs[name] * len(case.to_try)) / forward
        for name in ("ttame", "ptame", "explainer_network")
        if name in work.seconds
    }
    said = ", ".join(f"{name} {cost:.1f}" for name, cost in costs.items())
    by_sise = float(frames["SISE"].loc[ids, "n_forwards"].mean() - frames["Grad-CAM"].loc[ids, "n_forwards"].mean())
    day = 86400 * GPU_RATE
    return (
        f"A forward of an image takes {1000 * forward:.0f} ms here in batches of 16. An image and epoch of training costs, decoding, held-out images and the end included, as much as so many forwards, within a factor of two on so busy a machine: {said}. "
        f"A GPU that makes {GPU_RATE:,} forwards a second (**assumed**; nothing here was measured on a GPU) would in a day train on {day / max(costs.values()) / 1e6:.0f} to "
        f"{day / min(costs.values()) / 1e6:.0f} million images x epochs, or explain {day / 1e6:.0f} million images by T-TAME, one forward each; by SISE as it is set here, {by_sise:,.0f} forwards each, "
        f"{day / max(by_sise, 1) / 1e6:.1f} million. Decoding so many images is not counted."
    )


def rates(work: Work) -> Iterator[str]:
    """Images a second of maps alone, by SISE and by the last student."""
    size = work.case.sizes[-1]
    student = {"method": "ttame", "explainer": work.explainer("ttame", f"student-{size}", (), teacher=True)}
    said = []
    for name, settings in (("SISE", work.case.sise), (f"the student of {size} maps", student)):
        store = work.store(
            f"rate-{'sise' if name == 'SISE' else 'student'}", work.case.to_verify, metrics="none", **settings
        )
        seconds = store.to_pandas(["status", "seconds"], where="status = 'ok'")["seconds"]
        said.append(f"{name} {len(seconds) / seconds.sum():,.1f}")
    yield f"Maps alone, one worker on one core, images a second by the rows' own seconds: {', '.join(said)}."


def verdicts(stores: dict, values: dict[str, pd.DataFrame], alike: dict[str, dict[str, np.ndarray]]) -> Iterator[str]:
    """Each trained explainer beside the mean map, by the interval of the paired difference."""
    yield "Beside the mean map of the class, paired by image (difference with its 95 % interval; better is: more Spearman with SISE, insertion, EBPG):"
    yield ""
    for name, (_, training) in stores.items():
        if training is None:
            continue
        differences = {"Spearman with SISE": alike[name]["Spearman"] - alike[MEAN]["Spearman"]}
        differences |= {
            metric: (values[name][metric] - values[MEAN][metric]).to_numpy()
            for metric in ("insertion_auc", "ebpg")
            if metric in values[name]
        }
        words = []
        for what, difference in differences.items():
            mean, low, high = interval(difference)
            word = "better" if low > 0 else "**worse**" if high < 0 else "**no better than the mean map of its class**"
            words.append(f"{what} {word} ({mean:+.3f} [{low:+.3f}, {high:+.3f}])")
        yield f"- {name}: {'; '.join(words)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=["demo", "photographs", "small"])
    parser.add_argument("--images", type=int)
    parser.add_argument("--verify", type=int)
    parser.add_argument("--sizes", type=int, nargs="+")
    parser.add_argument("--epochs", type=int, help="16 on the demo, 8 on small photographs")
    parser.add_argument("--side", type=int, default=160)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--out", type=Path, default=Path("bench-out/trained"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.case == "demo":
        case = demo_case(
            arguments.out / "demo-data",
            arguments.images or 96,
            tuple(arguments.sizes or (12, 24, 48)),
            arguments.epochs or 16,
        )
    elif arguments.case == "small":
        case = small_case(
            arguments.out / "small-data",
            arguments.images or 1600,
            arguments.verify or 100,
            tuple(arguments.sizes or (100, 400, 1500)),
            arguments.epochs or 8,
        )
    else:
        case = photograph_case(
            arguments.images or 140, arguments.verify or 20, tuple(arguments.sizes or (24,)), arguments.side
        )
    report(Work(case, arguments.out, arguments.steps))


if __name__ == "__main__":
    main()
