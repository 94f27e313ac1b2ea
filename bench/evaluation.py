"""SISE, Grad-CAM and two floors by every metric on real images with boxes and masks; writes docs/evaluation.md.

    python -m bench.evaluation [--images 300] [--metrics standard] [--mu 0 0.3 0.5] [--precision fp32] [--scores FOLDER]
        [--compute imagenet_boxes magnetic_tile]

Images are taken in the order of a digest of their names, a few at a time through every method, and every score is appended to a file
at once: the same command continues after an interruption, a larger --images goes on from a smaller one. The page is made from the images
that all methods have so far; --compute with one data set lets two processes share the work, with none it only writes the page.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from captum.attr import LayerAttribution, LayerGradCam
from heatlas.engine.measurement import MetricSet
from heatlas.engine.metrics import METRICS, spelt_out
from heatlas.engine.metrics.floors import FLOORS, floored
from heatlas.engine.session import Explained, ExplainSession
from heatlas.engine.sise import SISE, Explanation
from heatlas.engine.statuses import CONSTANT_MAP, OK
from heatlas.pipeline.sources.reader import FsspecReader
from heatlas.workers.decode import prepare
from heatlas.workers.preprocess import Preprocess
from heatlas.workers.shard_attempt import seed_of
from heatlas.workers.shards import Sample
from torch import Tensor, nn

from .evaluation_data import DATA, DATA_SETS, DataSet
from .evaluation_page import PAGE, Scores, page

PREPROCESS = Preprocess(
    size=(224, 224), resize="squash", interpolation="bilinear", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)
AT_ONCE = 8
Draw = Callable[[Tensor, int, Sample], Tensor | None]
"""Makes the map `(height, width)` in [0, 1] of an image for a class; None where it would be the same everywhere."""
SEED = 0


class Method:
    """Something that makes maps, and the session that measures them."""

    def __init__(self, name: str, sise: SISE, metrics: Sequence[str]):
        self.name = name
        self.sise = sise
        self.metrics = tuple(metrics)
        self.session = ExplainSession(sise, metrics, seed=SEED)

    def forwards(self, one: Explained) -> int:
        """Forward passes that the map took."""
        return 1 + sum(one.mask_counts)

    def given(self, image: Tensor, sample: Sample) -> Explanation | None:
        """The map; None where the session makes it, by SISE."""
        return None

    def push(self, key: int, image: Tensor, truth: Tensor | None, sample: Sample) -> list[Explained]:
        given = self.given(image, sample)
        return self.session.push(
            key, image, truth=truth, label=sample.label, sample_seed=seed_of(sample.id), given=given
        )


class GivenMethod(Method):
    """A method whose maps are made elsewhere and measured by the session; not by metrics that would ask SISE for more of them."""

    def __init__(self, name: str, sise: SISE, metrics: Sequence[str], draw: Draw, cost: int):
        super().__init__(name, sise, [metric.name for metric in floored(MetricSet.of(metrics).metrics)])
        self.draw = draw
        self.cost = cost

    def forwards(self, one: Explained) -> int:
        return self.cost

    def given(self, image: Tensor, sample: Sample) -> Explanation:
        with torch.no_grad():
            logits = self.sise.model(image[None])[0].float()
        target = int(logits.argmax())
        found = Explanation(OK, None, target, target, float(logits.softmax(0)[target]), float(logits[target]))
        heat = self.draw(image, target, sample)
        if heat is None:
            return replace(found, status=CONSTANT_MAP, error="the map is the same everywhere")
        return replace(found, map=heat)


def grad_cam(model: nn.Module, layer: str) -> Draw:
    """captum's, of the logit, positive part, bilinear to the image's size, over its maximum."""
    explainer = LayerGradCam(model, model.get_submodule(layer))

    def draw(image: Tensor, target: int, sample: Sample) -> Tensor | None:
        coarse = explainer.attribute(image[None], target=target, relu_attributions=True)
        heat = LayerAttribution.interpolate(coarse, tuple(image.shape[1:]), "bilinear")[0, 0].detach()
        return None if heat.amax() <= heat.amin() else heat / heat.amax()

    return draw


def floor(name: str) -> Draw:
    def draw(image: Tensor, target: int, sample: Sample) -> Tensor | None:
        return FLOORS[name]((image.shape[1], image.shape[2]), seed=SEED, sample=seed_of(sample.id)).to(image)

    return draw


def methods(model: nn.Module, device: str, arguments: argparse.Namespace) -> list[Method]:
    """All that are compared, over one model."""
    metrics = spelt_out(arguments.metrics)

    def sise(mu: float) -> SISE:
        return SISE(model, mu=mu, batch_size=arguments.batch_size, precision=arguments.precision)

    last = sise(0.5).plan(torch.zeros(3, *PREPROCESS.size, device=device)).names[-1]
    return [
        *(Method(f"SISE, mu = {mu:g}", sise(mu), metrics) for mu in arguments.mu),
        GivenMethod("Grad-CAM", sise(0.5), metrics, grad_cam(model, last), cost=1),
        GivenMethod("random map", sise(0.5), metrics, floor("random"), cost=0),
        GivenMethod("centred Gaussian", sise(0.5), metrics, floor("gaussian"), cost=0),
    ]  # fmt: skip


class ScoreFile:
    """Scores of one method on one data set, a JSON line per image."""

    def __init__(self, folder: Path, data_set: DataSet, method: str, facts: str):
        digest = hashlib.sha256(facts.encode()).hexdigest()[:10]
        slug = "".join(letter if letter.isalnum() else "-" for letter in method.lower())
        self.path = folder / f"{data_set.name}-{slug}-{digest}.jsonl"
        self.found: dict[str, dict[str, Any]] = {}
        for line in self.path.read_text().splitlines() if self.path.exists() else ():
            try:
                record = json.loads(line)
            except ValueError:
                continue  # cut short when the run was killed: its image is done again
            self.found[record["id"]] = record
        if self.found:
            self.path.write_text("".join(json.dumps(record) + "\n" for record in self.found.values()))

    def add(self, sample: Sample, one: Explained, forwards: int) -> None:
        record = {"id": sample.id, "status": one.status, "forwards": forwards, "values": one.metrics}
        self.found[sample.id] = record
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")


def evaluate(data_set: DataSet, arguments: argparse.Namespace) -> Scores:
    """Scores of all methods on the data set, those of earlier runs included."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = data_set.model().to(device)
    compared = methods(model, device, arguments)
    files = {one.name: ScoreFile(arguments.scores, data_set, one.name, facts(one, arguments)) for one in compared}
    samples = data_set.samples(arguments.images)
    for few in batches(samples) if data_set.name in arguments.compute else ():
        for method in compared:
            measure(method, few, files[method.name], device)
        done = sum(all(sample.id in file.found for file in files.values()) for sample in samples)
        print(f"{data_set.name}: {done} of {len(samples)} images", flush=True)
    return Scores(
        data_set.title, len(samples), {name: file.found for name, file in files.items()}, [one.id for one in samples]
    )


def facts(method: Method, arguments: argparse.Namespace) -> str:
    """What makes another score: definitions, numbers, weights are the data's own."""
    definitions = [METRICS[name].definition for name in method.metrics]
    return json.dumps([definitions, arguments.precision, SEED, torch.__version__])


def batches(samples: Sequence[Sample]) -> Iterator[Sequence[Sample]]:
    return (samples[start : start + AT_ONCE] for start in range(0, len(samples), AT_ONCE))


def measure(method: Method, samples: Sequence[Sample], file: ScoreFile, device: str) -> None:
    """Score the samples that the file does not have."""
    reader = FsspecReader()
    todo = [sample for sample in samples if sample.id not in file.found]
    left: list[Explained] = []
    for key, sample in enumerate(todo):
        prepared = prepare(sample, reader, PREPROCESS)
        left += method.push(key, prepared.image.to(device), prepared.truth, sample)
    for one in [*left, *method.session.finish()]:
        file.add(todo[one.key], one, method.forwards(one))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.evaluation")
    parser.add_argument("--images", type=int, default=300, help="at most, of each data set")
    parser.add_argument("--metrics", nargs="+", default=["standard"])
    parser.add_argument("--mu", type=float, nargs="+", default=[0.0, 0.3, 0.5])
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--scores", type=Path, default=Path("bench-out"), help="where scores are kept")
    names = [one.name for one in DATA_SETS]
    parser.add_argument(
        "--compute", nargs="*", default=names, choices=names, help="only these data sets; none: write the page only"
    )
    arguments = parser.parse_args()
    if not DATA.exists():
        raise SystemExit(f"needs the evaluation data in {DATA}")
    arguments.scores.mkdir(parents=True, exist_ok=True)
    scores = [evaluate(data_set, arguments) for data_set in DATA_SETS]
    PAGE.write_text(page(scores, arguments.precision))
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
