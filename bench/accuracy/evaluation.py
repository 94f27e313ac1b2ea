"""Every method and two chance baselines by every metric on real images with boxes and masks; writes docs/evaluation.md.

    python -m bench evaluation [--images 300] [--methods sise sise:mu=0.3 grad_cam ...] [--metrics standard infidelity]
        [--precision bf16] [--scores FOLDER] [--compute imagenet_boxes magnetic_tile] [--part 1/2] [--time 8] [--minutes 15]

Methods are named as `heatlas methods --names` does, settings behind a colon; without --methods all that fit the network. Images are
taken in the order of a digest of their names, a few at a time through every method, and every score is appended to a file at once:
the same command continues after an interruption, a larger --images goes on from a smaller one, and methods may be computed in several
commands. The page says where a method was measured on fewer images than another; --part 1/2 and --part 2/2 let two processes share the
work, --minutes begins no further images after that time, --compute with no name only writes the page. `python -m bench evaluation_all` does all
of this for every method.

SISE's maps at all mu and both gates are made of the same scores of masks, which are kept (`bench/accuracy/known_scores.py`): seconds are therefore
measured apart, by --time N on the first N images, all methods in one process.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from heatlas.engine.metrics import METRICS, spelt_out
from heatlas.engine.scoring.scoring_options import Scoring
from heatlas.engine.session import Explained, ExplainSession
from heatlas.errors import SettingsError
from heatlas.workers.samples import Sample
from heatlas.workers.worker.malloc import keep_freed_memory
from heatlas.workers.worker.shard_attempt import seed_of

from ..data_sets import DATA, DATA_SETS, PREPROCESS, DataSet, prepared
from ..records import Records
from .evaluation_methods import SEED, Asked, Contender, contenders
from .evaluation_page import PAGE, Scores, page

AT_ONCE = 8


class ScoreFile:
    """Scores of one method on one data set, a JSON line per image."""

    def __init__(self, folder: Path, data_set: DataSet, method: str, facts: str):
        digest = hashlib.sha256(facts.encode()).hexdigest()[:10]
        slug = "".join(letter if letter.isalnum() else "-" for letter in method.lower())
        self.path = folder / f"{data_set.name}-{slug}-{digest}.jsonl"
        self.found: dict[str, dict[str, Any]] = {}
        text = self.path.read_text() if self.path.exists() else ""
        for line in text.splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue  # cut short when the run was killed: its image is done again
            self.found[record["id"]] = record
        if text and not text.endswith("\n"):
            with self.path.open("a") as file:  # appended, since another process may be writing, too
                file.write("\n")

    def add(self, sample: Sample, explanation: Explained, passes: tuple[int, int]) -> None:
        record = {
            "id": sample.id, "status": explanation.status, "forwards": passes[0], "backwards": passes[1], "values": explanation.metrics,
        }  # fmt: skip
        self.found[sample.id] = record
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")


def evaluate(data_set: DataSet, arguments: argparse.Namespace) -> Scores:
    """Scores of all methods on the data set, those of earlier commands included."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = data_set.model().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    scoring = Scoring(batch_size=arguments.batch_size, precision=arguments.precision)
    example = torch.zeros(3, *PREPROCESS.size, device=device)
    known = arguments.scores / f"scores-{data_set.scores}-{arguments.precision}"
    compared = contenders(model, example, arguments.methods, scoring, spelt_out(arguments.metrics), known)
    files = {
        contender.name: ScoreFile(arguments.scores, data_set, contender.name, facts(contender, arguments))
        for contender in compared
    }
    samples = data_set.samples(arguments.images)
    part, parts = map(int, arguments.part.split("/"))
    begun = time.monotonic()
    for few in batches(samples[part - 1 :: parts]) if data_set.name in arguments.compute else ():
        if arguments.minutes is not None and time.monotonic() - begun > 60 * arguments.minutes:
            print(f"{data_set.name}: the {arguments.minutes:g} minutes are over", flush=True)
            break
        for method in compared:
            measure(method, few, files[method.name], device)
        done = sum(all(sample.id in file.found for file in files.values()) for sample in samples)
        print(f"{data_set.name}: {done} of {len(samples)} images", flush=True)
    seconds = Records("evaluation-seconds")
    keys = {name: f"{file.path.stem} {arguments.precision}" for name, file in files.items()}
    for method in compared if arguments.time and data_set.name in arguments.compute else ():
        if keys[method.name] not in seconds:
            seconds.add(keys[method.name], timed(method, samples[: arguments.time], device))
    return Scores(
        data_set.title, len(samples), {name: file.found for name, file in files.items() if file.found}, [sample.id for sample in samples],
        {name: seconds.found[key] for name, key in keys.items() if key in seconds},
    )  # fmt: skip


def facts(method: Contender, arguments: argparse.Namespace) -> str:
    """What makes another score: definitions, settings, numbers; weights are the data's own."""
    definitions = [METRICS[name].definition for name in method.metrics]
    return json.dumps([definitions, method.facts, arguments.precision, "folded", SEED, torch.__version__])


def batches(samples: Sequence[Sample]) -> Iterator[Sequence[Sample]]:
    return (samples[start : start + AT_ONCE] for start in range(0, len(samples), AT_ONCE))


def measure(method: Contender, samples: Sequence[Sample], file: ScoreFile, device: torch.device) -> None:
    """Make the maps that the file does not have, then measure them."""
    todo = [sample for sample in samples if sample.id not in file.found]
    if not todo:
        return
    inputs = [prepared(sample) for sample in todo]
    images = [ready.image.to(device) for ready in inputs]
    seeds = [seed_of(sample.id) for sample in todo]
    maps = method.maps(images, seeds, [sample.id for sample in todo])
    session = ExplainSession(method.explainer, method.metrics, seed=SEED)
    left: list[Explained] = []
    for key, (sample, ready, image, given) in enumerate(zip(todo, inputs, images, maps, strict=True)):
        left += session.push(key, image, truth=ready.truth, label=sample.label, sample_seed=seeds[key], given=given)
    for explanation in [*left, *session.finish()]:
        file.add(
            todo[explanation.key], explanation, (maps[explanation.key].n_forwards, maps[explanation.key].n_backwards)
        )


def timed(method: Contender, samples: Sequence[Sample], device: torch.device) -> float:
    """Seconds per image of the maps alone, once the method has seen its model."""
    images = [prepared(sample).image.to(device) for sample in samples]
    method.anew(images[:1], [0])
    wait(device)
    begun = time.perf_counter()
    method.anew(images, [seed_of(sample.id) for sample in samples])
    wait(device)
    return (time.perf_counter() - begun) / len(images)


def wait(device: torch.device) -> None:
    """Until the accelerator has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def command(arguments: argparse.Namespace) -> str:
    """What to call for the same page."""
    methods = f" --methods {' '.join(method.text for method in arguments.methods)}" if arguments.methods else ""
    sets = f" --sets {' '.join(arguments.sets)}" if len(arguments.sets) < len(DATA_SETS) else ""
    return (
        f"python -m bench evaluation --images {arguments.images} --metrics {' '.join(arguments.metrics)}{methods}{sets}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench evaluation")
    parser.add_argument("--images", type=int, default=300, help="at most, of each data set")
    parser.add_argument(
        "--methods", nargs="+", default=[], metavar="NAME[:SETTING=VALUE,...]", help="all that fit the network"
    )
    parser.add_argument("--metrics", nargs="+", default=["standard", "infidelity"])
    parser.add_argument("--precision", default="bf16", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--scores", type=Path, default=Path("bench-out"), help="where scores are kept")
    parser.add_argument("--page", type=Path, default=PAGE, help="where the page is written")
    parser.add_argument("--title", default="Evaluation", help="of the page")
    parser.add_argument("--part", default="1/1", metavar="I/N", help="of the images, for the I-th of N processes")
    parser.add_argument(
        "--minutes", type=float, default=None, help="begin no further images of a data set after so many minutes"
    )
    parser.add_argument("--time", type=int, default=0, metavar="IMAGES", help="time every method on so many images")
    names = [data_set.name for data_set in DATA_SETS]
    parser.add_argument(
        "--compute", nargs="*", default=names, choices=names, help="only these data sets; none: write the page only"
    )
    parser.add_argument("--sets", nargs="+", default=names, choices=names, help="data sets on the page")
    arguments = parser.parse_args()
    try:
        arguments.methods = [Asked.of(text) for text in arguments.methods]
    except SettingsError as error:
        parser.error(str(error))
    if not DATA.exists():
        raise SystemExit(f"needs the evaluation data in {DATA}")
    torch.set_num_threads(1)
    keep_freed_memory()
    arguments.scores.mkdir(parents=True, exist_ok=True)
    scores = [evaluate(data_set, arguments) for data_set in DATA_SETS if data_set.name in arguments.sets]
    arguments.page.write_text(page(scores, arguments.precision, arguments.title, command(arguments)))
    print(f"wrote {arguments.page}")


if __name__ == "__main__":
    main()
