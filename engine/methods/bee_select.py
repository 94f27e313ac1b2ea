"""BEE with its bandit: of several maps from drawn baselines the one that does best by a metric (Barkan et al., AAAI 2025).

That metric, and every other of its family, says nothing about the map any more, and heatlas refuses to evaluate the map by it. What an
ordinary method would score is stored beside it (`first_value`, one draw); `arms=uniform` is the best of as many draws without a bandit.

Ours: the bandit's context is the layer's own mean activation, projected at random to 32 numbers, in the place of a second network's
features; it learns from the draws of the image alone, from a posterior that the user may bring (`warm_up`), so that no image's
map depends on another's; 10 draws instead of 100, as the best of T grows as sqrt(2 log T).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from ..explainer import class_tensor
from ..explanation import Explanation, Logits, logit_facts, map_facts, unusable
from ..lazy_torch import torch
from ..random import sample_generator
from ..requests import Steps
from ..transfer import to_host
from .baseline_bandit import Bandit, rank_in
from .bee import SOURCE, BaselinePaths, path_points
from .protocol import Cost, method, require, require_one_of, setting

CONTEXT_SIZE = 32
PROBE_COUNTS = {
    "drop_pct": (1, 1), "average_gain_pct": (1, 1), "insertion_auc": (20, 1), "deletion_auc": (20, 1), "road": (8, 0),
    "infidelity": (10, 1),
}  # fmt: skip
"""Metrics that may choose, with their forwards for every map and for the image once; a test holds them to the metrics' own."""


def cost(settings: Any) -> Cost | None:
    """For each draw a forward that reads the layer, the path, and what the metric asks for; None where families' paths differ in length."""
    points = path_points(settings, settings.families[0])
    if any(path_points(settings, family) != points for family in settings.families):
        return None
    each, once = PROBE_COUNTS[settings.metric]
    return Cost(once + settings.draws * (1 + points + each), settings.draws * points)


@method(
    name="bee_select",
    summary="of maps from several drawn baselines the one that does best by a metric, which then cannot evaluate it",
    source=SOURCE,
    status="partial",
    completed="sound path integral; bandit's context and per-image learning; stored activations; 10 draws for 100",
    architecture="cnn",
    cost=cost,
    gradients=True,
    signed=True,
    stochastic=True,
    files=("activations", "bandit"),
    selected_by=lambda settings: settings.metric,
    extras={
        "selected_value": "the metric that chose, of the map that was kept",
        "first_value": "the same of the first draw alone: what a method that does not choose would score",
        "selected_family": "which of `families` the map's baseline was drawn from, from 0",
    },
    images=1,
)
class BEESelect(BaselinePaths):
    """The best of several BEE maps by one metric."""

    draws: int = setting(default=10, text="baselines drawn, at least 1; the best is kept")
    metric: str = setting(default="deletion_auc", text=", ".join(PROBE_COUNTS))
    arms: Literal["bandit", "uniform"] = setting(
        default="bandit", text="how families are chosen: by Thompson sampling, or uniformly"
    )
    bandit: str | None = setting(default=None, text="safetensors: `means`, `precisions` (family, 33)")
    frozen: bool = setting(default=False, text="do not learn from the image's own draws")

    def check(self) -> None:
        BaselinePaths.check(self)  # not `super()`: a class of the settings alone runs it, too
        require(self.draws >= 1, f"draws must be at least 1, got {self.draws}")
        require_one_of("metric", self.metric, tuple(PROBE_COUNTS))
        require_one_of("arms", self.arms, ("bandit", "uniform"))
        require(self.bandit is None or self.arms == "bandit", "bandit has no effect with arms=uniform; leave one out")

    def bind(self) -> None:
        super().bind()
        _ = self.start_posterior

    @cached_property
    def start_posterior(self) -> Bandit:
        """What the bandit knows before it sees an image."""
        from ..stored_tensor import read_tensor

        shape = (len(self.families), CONTEXT_SIZE + 1)
        if self.bandit is None:
            return Bandit.fresh(*shape)
        means, precisions = (read_tensor(self.bandit, name, axes=2) for name in ("means", "precisions"))
        for name, values in (("means", means), ("precisions", precisions)):
            require(tuple(values.shape) == shape, f"bandit: {name} must be {shape}, got {tuple(values.shape)}")
        require(bool((precisions > 0).all()), "bandit: precisions must be above 0")
        return Bandit(means.double().numpy(), precisions.double().numpy())

    def explain_image(
        self, image: Float[torch.Tensor, "channel height width"], target: int | None, seed: int
    ) -> Steps[Explanation]:
        return (yield from self.play(image, target, seed, self.start_posterior.copy()))

    def warm_up(self, images: Float[torch.Tensor, "batch channel height width"]) -> Bandit:
        """A posterior that has seen these images one after another, for the file `bandit`; the paper shows it 5 000."""
        from ..scheduler import run

        bandit = self.start_posterior.copy()
        for seed, image in enumerate(images):
            run(self.play(image, None, seed, bandit))
        return bandit

    def play(self, image: torch.Tensor, target: int | None, seed: int, bandit: Bandit) -> Steps[Explanation]:
        """Draw, measure, learn; the bandit is changed unless `frozen`."""
        from ..metrics import METRICS, Subject, rank_pixels
        from ..metrics.evaluate import MetricSet, measure, probe_jobs

        logits, context = yield self.rows_of(self._read, image, target, seed)
        if logits.target is None or logits.prediction is None or logits.failure is not None:
            return logits.explanation()
        wanted, higher = MetricSet.of([self.metric]), METRICS[self.metric].better == "higher"
        generator = np.random.default_rng([self.seed, seed, CONTEXT_SIZE])
        forwards, backwards, shared = 1, 0, {}
        history: list[float] = []
        best, best_value, best_arm, first = None, None, 0, None
        for draw in range(self.draws):
            if self.arms == "uniform":
                arm = int(generator.integers(len(self.families)))
            else:
                arm = bandit.choose(context, generator)
            points = path_points(self, self.families[arm])
            map_ = yield self.rows_of(self._drawing(self.families[arm], draw), image, logits.target, seed)
            forwards, backwards = forwards + 1 + points, backwards + points
            best = map_ if best is None else best
            if unusable(*to_host(map_facts(map_[None]))[0]) is not None:
                continue
            subject = Subject(
                image, map_, rank_pixels(map_[None])[0], logits.target, logits.prediction, None, self.seed, seed
            )
            made = yield from probe_jobs(wanted, subject)
            jobs = {name: job for name, job in made.items() if name not in shared}
            measurement = yield from measure(self, wanted, subject, jobs, shared)
            forwards += measurement.n_forwards
            shared = {name: job for name, job in {**shared, **jobs}.items() if not job.of_map}
            value = (measurement.values() or {}).get(self.metric)
            if value is None:
                continue
            won = generator.random() < rank_in(history, value, higher_is_better=higher)
            if self.arms == "bandit" and not self.frozen:
                bandit.learn(arm, context, won)
            history.append(value)
            first = value if first is None else first
            if best_value is None or (value > best_value if higher else value < best_value):
                best, best_value, best_arm = map_, value, arm
        extras = {"selected_value": best_value, "first_value": first, "selected_family": best_arm}
        return logits.explanation(
            best, n_forwards=forwards, n_backwards=backwards,
            extras={name: torch.tensor(torch.nan if value is None else float(value)) for name, value in extras.items()},
        )  # fmt: skip

    def extra_shapes(self, image: Float[torch.Tensor, "channel height width"]) -> dict[str, tuple[int, ...]]:
        """One number each; refuses stored activations of another layer."""
        if "train" in self.families:
            self._drawn("train", 0, image[None], [0], [0])
        return dict.fromkeys(self.declared.extras, ())

    @cached_property
    def _drawings(self) -> dict[tuple[str, int], Callable[..., Any]]:
        return {}

    def _drawing(self, family: str, draw: int) -> Callable[..., Any]:
        """The same function for every image, so that they share its batches."""
        return self._drawings.setdefault((family, draw), partial(self._drawn, family, draw))

    def _drawn(
        self, family: str, draw: int, images: torch.Tensor, targets: list[int | None], seeds: list[int]
    ) -> torch.Tensor:
        from ..layers.eval_mode import in_eval_mode

        with in_eval_mode(self.model), torch.inference_mode(False), self.own_precision(images.device):
            [layer] = self.gradients.values(images)[1]
            baselines = self.baselines(images, layer, seeds, family, draw)
            signed = self.path_map(images, class_tensor(targets, images.device), layer, baselines, family)
            return self.finished(signed, (images.shape[2], images.shape[3]))

    def _read(
        self, images: torch.Tensor, targets: list[int | None], seeds: list[int]
    ) -> list[tuple[Logits, np.ndarray]]:
        """What the model says, and the bandit's context: the layer's mean activations, projected, of length 1, and a 1."""
        from ..layers.eval_mode import in_eval_mode

        with in_eval_mode(self.model), torch.inference_mode(False), self.own_precision(images.device), self.listening():
            output, [layer] = self.gradients.values(images)
        wholes = self.whole_images(output)
        facts = to_host(logit_facts(output, class_tensor(targets, output.device), self.confidence))
        means = layer.mean(dim=(2, 3)).double().cpu()
        draw = sample_generator(0, means.shape[1], "bee context")
        projected = (means @ torch.randn(means.shape[1], CONTEXT_SIZE, generator=draw, dtype=torch.float64)).numpy()
        lengths = np.linalg.norm(projected, axis=1, keepdims=True)
        contexts = np.concatenate([projected / np.where(lengths > 0, lengths, 1), np.ones_like(lengths)], axis=1)
        return [
            (Logits.read(row, target, whole), context)
            for row, target, whole, context in zip(facts, targets, wholes, np.nan_to_num(contexts), strict=True)
        ]
