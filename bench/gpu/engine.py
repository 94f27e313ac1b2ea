"""The engine on a GPU: agreement with the CPU, efficiency beside plain and compiled forwards, peers, every method, memory.

    python -m bench engine [--steps agreement efficiency ...] [--smallest] [--out FOLDER] [--limit SECONDS]

Each step prints its figures as they come and appends them to FOLDER/engine.log; one that fails is reported and the next one begins.
--smallest runs on any CPU in seconds: it shows that the steps work, its figures mean nothing. Exit code 1 where a step failed.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import io
import os
import pstats
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import heatlas
import torch
from heatlas.engine.methods.registry import entries, find_method
from heatlas.engine.scoring.fast_forward import folded
from heatlas.engine.scoring.scoring_options import Scoring
from torch import Tensor, nn

from bench.gpu.workload import (
    FULL,
    SMALLEST,
    Workload,
    on_device,
    rate,
    seconds_of,
    synchronise,
    transformer,
)

GRADIENTS_IN_FP32 = ("integrated_gradients",)
COMPARED_WITH_CPU = (
    "grad_cam", "layer_cam", "integrated_gradients", "occlusion", "ucag", "refine_cam", "grad_cam_pp",
)  # fmt: skip


class Measurement:
    """The steps over one workload, and where their figures go."""

    def __init__(self, work: Workload, out: Path):
        self.work = work
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.begun = time.perf_counter()
        self.inputs = work.inputs()
        self.log = out / "engine.log"
        out.mkdir(parents=True, exist_ok=True)

    def report(self, *words: object) -> None:
        """Print a line and keep it."""
        line = f"[{time.perf_counter() - self.begun:6.1f}] {' '.join(map(str, words))}"
        print(line, flush=True)
        with self.log.open("a") as file:
            file.write(line + "\n")

    def images(self, count: int) -> Tensor:
        """`count` images on the device, repeated where there are fewer."""
        repeats = -(-count // len(self.inputs))
        return self.inputs.repeat(repeats, 1, 1, 1)[:count].to(self.device)

    def agreement(self) -> None:
        """Maps on this device beside those of the CPU, and with faster forwards beside fp32."""
        images, mu = self.inputs[:3], self.work.mu
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        reference = heatlas.SISE(on_device(self.work.accurate, "cpu"), mu=mu)(images)
        model = on_device(self.work.accurate, self.device)
        exact = heatlas.SISE(model, mu=mu)(images.to(self.device))
        worst = float((exact.maps.cpu() - reference.maps).abs().max())
        equal = bool((exact.mask_counts.cpu() == reference.mask_counts).all())
        self.report(
            f"fp32 without tf32, {self.device} beside cpu: max abs {worst}, counts equal {equal}, {exact.statuses}"
        )
        torch.backends.cudnn.allow_tf32 = True
        variants: dict[str, dict[str, object]] = {
            "fp32, tf32 as by default": {}, "bf16": {"precision": "bf16"}, "fp16": {"precision": "fp16"},
            "bf16 fold_bn": {"precision": "bf16", "forward": "fold_bn"},
        }  # fmt: skip
        for name, options in variants.items():
            if options.get("precision") == "fp16" and self.device == "cpu":
                continue
            maps = heatlas.SISE(model, mu=mu, **options)(images.to(self.device)).maps  # pyright: ignore[reportArgumentType]
            overlaps = [round(weighted_jaccard(*pair), 4) for pair in zip(maps, exact.maps, strict=True)]
            self.report(
                f"{name} beside fp32: weighted Jaccard {overlaps}, max abs {float((maps - exact.maps).abs().max()):.4f}"
            )

    def efficiency(self) -> None:
        """Masks per second beside plain forwards of the same network, batch and precision."""
        work = self.work
        for name, count in work.networks.items():
            model = on_device(name, self.device)
            for precision in work.precisions:
                plain = {size: self.plain_rate(model, size, precision) for size in work.batch_sizes}
                self.report(
                    name, precision, "plain forwards/s", {size: round(value, 1) for size, value in plain.items()}
                )
                for size in work.batch_sizes:
                    masks, speed = self.engine_rate(model, count, batch_size=size, precision=precision)
                    self.report(
                        f"{name} {precision} batch {size}: {speed:.0f} masks/s, {masks} masks, / plain {speed / plain[size]:.3f}, "
                        f"/ best plain {speed / max(plain.values()):.3f}"
                    )
                size = work.batch_sizes[len(work.batch_sizes) // 2]
                for options in ({"forward": "fold_bn"}, {"mu": 0.3}):
                    masks, speed = self.engine_rate(model, count, batch_size=size, precision=precision, **options)
                    self.report(
                        f"{name} {precision} batch {size} {options}: {speed:.0f} masks/s, / plain {speed / plain[size]:.3f}"
                    )
                for budget in ("balanced", "fast"):
                    sise = heatlas.SISE(model, batch_size=work.batch_sizes[0], precision=precision, budget=budget)
                    images = self.images(count)
                    sise(images[:1])
                    seconds = seconds_of(lambda sise=sise, images=images: sise(images), self.device)
                    self.report(f"{name} {precision} budget {budget}: {1000 * seconds / count:.0f} ms/image")

    def plain_rate(self, model: nn.Module, size: int, precision: str) -> float:
        """Images per second of bare forwards."""
        batch = torch.randn(size, 3, self.work.side, self.work.side, device=self.device).to(
            memory_format=torch.channels_last
        )

        def forward() -> None:
            with (
                torch.inference_mode(),
                torch.autocast(self.device, dtype=torch.bfloat16, enabled=precision == "bf16"),
            ):
                model(batch)

        return rate(forward, size, self.work.rate_seconds, self.device)

    def engine_rate(self, model: nn.Module, count: int, **options: object) -> tuple[int, float]:
        """Masks scored, and masks per second, all of the engine's work included."""
        sise, images = heatlas.SISE(model, **options), self.images(count)  # pyright: ignore[reportArgumentType]
        sise(images[:1])
        results = []
        seconds = seconds_of(lambda: results.append(sise(images)), self.device)
        masks = int(results[0].mask_counts.sum())
        return masks, masks / seconds

    def methods(self) -> None:
        """Milliseconds per image of every method, and its largest difference from the CPU."""
        work = self.work
        model, on_cpu = on_device(self.work.accurate, self.device), on_device(self.work.accurate, "cpu")
        for name in (name for name in entries() if not find_method(name).trained):
            settings = work.method_settings.get(name, {})
            precision = "bf16" if self.device == "cuda" and name not in GRADIENTS_IN_FP32 else "fp32"
            network = transformer(work.side, self.device) if name == "daam" else model
            scoring = Scoring(batch_size=max(work.batch_sizes[0], 2), images=4, precision=precision)
            method, images = (
                heatlas.explainer(name, network, scoring=scoring, **settings),
                self.images(min(4, work.many)),
            )
            method.explain(images[:1])
            results = []
            seconds = seconds_of(
                lambda method=method, images=images, results=results: results.append(method.explain(images)),
                self.device,
            )
            difference = ""
            if self.device == "cuda" and name in COMPARED_WITH_CPU:
                reference = heatlas.explainer(name, on_cpu, scoring=Scoring(batch_size=16), **settings).explain(
                    self.inputs[:1]
                )
                difference = (
                    f", max difference from cpu {float((reference.maps[0] - results[0].maps[0].cpu()).abs().max()):.4f}"
                )
            self.report(f"{name}: {1000 * seconds / len(images):.1f} ms/image, {results[0].statuses}{difference}")
        for name in ("grad_cam", "layer_cam"):
            many = self.images(work.many)
            method = heatlas.explainer(name, model, scoring=Scoring(batch_size=work.many, images=work.many))
            method.explain(many[: max(1, work.many // 4)])
            seconds = seconds_of(lambda method=method, many=many: method.explain(many), self.device)
            self.report(f"{name}: {work.many / seconds:.0f} images/s on {work.many} images, engine alone")

    def peers(self) -> None:
        """Score-CAM of other libraries beside ours, masks per second."""
        from bench.speed.peers import PEERS, RUNS

        for name in self.work.networks:
            model, image = on_device(name, self.device), self.images(1)[0]
            layer = heatlas.block_layers(model, image[None])[-1].name
            for peer, tuned, size in product(PEERS, (False, True), self.work.batch_sizes[:2]):
                run = partial(RUNS[peer], model, layer, image, 1, None, size)
                with torch.autocast(self.device, dtype=torch.bfloat16, enabled=tuned):
                    masks = run()[1]
                    seconds = seconds_of(run, self.device)
                self.report(f"{name} {peer}{' tuned' if tuned else ''} batch {size}: {masks / seconds:.0f} masks/s")
            size = self.work.batch_sizes[len(self.work.batch_sizes) // 2]
            ours = heatlas.explainer(
                "score_cam",
                model,
                scoring=Scoring(batch_size=size, images=16, precision="bf16" if self.device == "cuda" else "fp32"),
            )
            pair, results = self.images(2), []
            ours.explain(pair)
            seconds = seconds_of(lambda: results.append(ours.explain(pair)), self.device)  # noqa: B023
            self.report(f"{name} heatlas score_cam batch {size}: {sum(results[0].n_forwards) / seconds:.0f} masks/s")

    def limit(self) -> None:
        """What forwards alone reach at best: weights in bf16, batch norms folded, compiled."""
        name, size, side = next(iter(self.work.networks)), self.work.batch_sizes[-1], self.work.side
        batch = torch.randn(size, 3, side, side, device=self.device).to(memory_format=torch.channels_last).bfloat16()
        example = torch.randn(2, 3, side, side, device=self.device)
        plain = on_device(name, self.device)
        variants: dict[str, nn.Module] = {
            "weights in bf16": on_device(name, self.device).bfloat16(),
            "batch norms folded, weights in bf16": folded(plain, example)
            .to(memory_format=torch.channels_last)
            .bfloat16(),
        }
        if self.work.compile:
            variants["the same compiled"] = torch.compile(  # type: ignore[assignment]
                variants["batch norms folded, weights in bf16"], dynamic=False
            )
        for title, model in variants.items():
            with torch.inference_mode():
                speed = rate(lambda model=model: model(batch), size, self.work.rate_seconds, self.device)
            self.report(f"{name} {title}, batch {size}: {speed:.0f} forwards/s")

    def compiled(self) -> None:
        """The engine with forward `compile`."""
        if not self.work.compile:
            self.report("left out of the smallest form: needs a C++ compiler and a minute")
            return
        name, count = next(iter(self.work.networks.items()))
        sise = heatlas.SISE(on_device(name, self.device), batch_size=256, precision="bf16", forward="compile")
        images, results = self.images(count), []
        self.report(f"warm-up {seconds_of(lambda: sise(images[:1]), self.device):.1f} s")
        seconds = seconds_of(lambda: results.append(sise(images)), self.device)
        self.report(f"{name} bf16 compile fold_bn batch 256: {int(results[0].mask_counts.sum()) / seconds:.0f} masks/s")

    def profile(self) -> None:
        """Where the time of Python goes."""
        model, work = on_device(self.work.accurate, self.device), self.work
        grad_cam = heatlas.explainer("grad_cam", model, scoring=Scoring(batch_size=work.many, images=work.many))
        sise = heatlas.SISE(model, batch_size=work.batch_sizes[-1], mu=work.mu)
        many, few = self.images(work.many), self.images(min(12, work.many))
        runs: dict[str, Callable[[], object]] = {
            f"grad_cam, {work.many} images": lambda: grad_cam.explain(many),
            f"sise mu = {work.mu}, {len(few)} images": lambda: sise(few),
        }
        for title, run in runs.items():
            run()
            profile, text = cProfile.Profile(), io.StringIO()
            profile.enable()
            seconds_of(run, self.device)
            profile.disable()
            pstats.Stats(profile, stream=text).sort_stats("tottime").print_stats(14)
            self.report(title, text.getvalue()[:2600])

    def memory(self) -> None:
        """Device memory beside a plain forward's, and the halved batch where memory runs out."""
        if self.device != "cuda":
            self.report("left out: no GPU here")
            return
        model = on_device(self.work.accurate, self.device)
        for size in self.work.batch_sizes:
            torch.cuda.reset_peak_memory_stats()
            self.plain_rate(model, size, "bf16")
            plain = torch.cuda.max_memory_allocated() / 2**20
            torch.cuda.reset_peak_memory_stats()
            heatlas.SISE(model, batch_size=size, precision="bf16", mu=self.work.mu)(self.images(2))
            self.report(
                f"device MiB, batch {size}: plain {plain:.0f}, engine {torch.cuda.max_memory_allocated() / 2**20:.0f}"
            )
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(0.02)
        sise = heatlas.SISE(model, batch_size=2048, mu=0.5)
        result = sise(self.images(1))
        torch.cuda.set_per_process_memory_fraction(1.0)
        self.report(
            f"out of memory with batch 2048 on 2 % of the device: ran with {sise.scorer.micro_batch}, {result.statuses}"
        )


def weighted_jaccard(first: Tensor, second: Tensor) -> float:
    """Sum of pixelwise minima over sum of maxima."""
    return float(torch.minimum(first, second).sum() / torch.maximum(first, second).sum())


STEPS = ("agreement", "efficiency", "methods", "peers", "limit", "compiled", "profile", "memory")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", nargs="+", default=list(STEPS), choices=STEPS)
    parser.add_argument("--smallest", action="store_true", help="the form for a CPU")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "bench-out")))
    parser.add_argument("--limit", type=float, default=float(os.environ.get("ENGINE_LIMIT", "400")), metavar="SECONDS",
                        help="begin no step after so long")  # fmt: skip
    arguments = parser.parse_args()
    run = Measurement(SMALLEST if arguments.smallest else FULL, arguments.out)
    where = torch.cuda.get_device_name() if run.device == "cuda" else "cpu"
    run.report(f"torch {torch.__version__}, {where}, {len(run.inputs)} images, heatlas {heatlas.__version__}")
    failed = []
    for name in arguments.steps:
        if time.perf_counter() - run.begun > arguments.limit:
            run.report(f"{name}: left out, the time is over")
            continue
        run.report(f"## {name}")
        try:
            with contextlib.redirect_stderr(sys.stdout):
                getattr(run, name)()
        except Exception as error:
            failed.append(name)
            run.report(f"{name} FAILED: {type(error).__name__}: {str(error)[:600]}")
            traceback.print_exc()
        synchronise(run.device)
    run.report(f"done; failed: {', '.join(failed) or 'none'}")
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
