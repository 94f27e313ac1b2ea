"""SISE: Semantic Input Sampling for Explanation (Sattarzadeh et al., AAAI 2021, doi 10.1609/aaai.v35i13.17384), and Ada-SISE.

For every block of a CNN, the last layer's feature maps that help the class become masks of the input; each mask counts by the
class probability that it leaves, and the blocks' maps pass through a cascade of Otsu gates.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Literal

from jaxtyping import Float

from ... import statuses
from ...errors import SettingsError
from ..explainer import Explainer, class_tensor
from ..explanation import Explanation, Logits, logit_facts, map_facts, predicted
from ..fill import baseline_of
from ..fill_kinds import BASELINES
from ..layers.block_plan import BlockPlan
from ..layers.eval_mode import in_eval_mode
from ..lazy_torch import torch
from ..requests import Job, Rows, Score, Steps
from ..scoring.budget import EXACT, masks_allowed
from ..scoring.precision import gradient_precision
from ..sise.budgeted_scores import score_within
from ..sise.fusion import fuse
from ..sise.layer_masks import LayerMasks, layer_facts
from ..sise.masks import average_gradients, extremes, min_max
from ..transfer import to_host
from .protocol import method, require, require_one_of, setting

Failure = tuple[str, str]
"""Status and text, where there is no map."""
GRADIENT_ROWS = 16
MASK_NOT_FINITE: Failure = (statuses.NON_FINITE, "the score of a mask is not finite")


@dataclass(eq=False)
class BlockGradients:
    """What a forward and a backward pass say of one image."""

    logits: Logits
    output: torch.Tensor
    """The model's, of this image alone."""
    maps: list[Float[torch.Tensor, "_ _ _"]] = field(default_factory=list)
    """Of every block's last layer; none where there is nothing to explain."""
    alphas: list[Float[torch.Tensor, " _"]] = field(default_factory=list)
    """Average gradient of each map (eq. 6)."""
    facts: list[list[float]] = field(default_factory=list)
    """Of each layer, see `layer_facts`."""


@dataclass(eq=False)
class ScoredBlocks:
    """One image's masks, block by block, with their scores."""

    logits: Logits
    layers: list[LayerMasks]
    n_scored: int = 0
    """Masked inputs that were scored."""
    shown: float | torch.Tensor = 0.0
    """Confidence with nothing visible, where it is taken from every mask's."""
    surrogate_error: float | None = None
    failure: Failure | None = None


@method(
    name="sise",
    summary="feature maps of every block as masks, counted by the score that each leaves, fused by a cascade of gates",
    source="Sattarzadeh et al., AAAI 2021, eqs. 1-12",
    architecture="cnn",
    cost=lambda settings: None,
    gradients=True,
    packed=True,
    budget=True,
    dense=True,
)
class SISE(Explainer):
    """Explains a CNN classifier's outputs by masks made of its own feature maps."""

    mu: float = setting(
        default=0.0,
        text="keep feature maps whose gradient exceeds mu times the layer's largest; higher is faster",
        ge=0,
        lt=1,
    )
    beta: Literal["kept", "paper"] | None = setting(
        default="kept",
        text="what mu is a share of: kept, the largest gradient of maps that can be masks, or paper, that of all maps (eq. 8)",
    )
    layers: tuple[str, ...] | None = setting(
        default=None,
        text="layers to use instead of the block ends found by themselves, low to high; see `heatlas layers`",
    )
    baseline: bool = setting(
        default=False,
        text="take the score of the fully masked input from every mask's, so that masks that show nothing do not count",
    )
    fill: Literal["zero", "mean", "blur"] = setting(
        default="zero",
        text="what is seen where a mask is 0: zero (in network-input space), the image's mean colour, or its blur",
    )
    gate: Literal["otsu", "soft"] = setting(
        default="otsu", text="otsu for steps, soft for steep sigmoids at the same thresholds"
    )

    def check(self) -> None:
        mu = getattr(self, "mu", None)
        require(mu is None or 0 <= mu < 1, f"mu must be in [0, 1), got {mu}: at 1 no map exceeds the largest")
        beta = getattr(self, "beta", None)
        require_one_of("beta", beta or "kept", ("kept", "paper"))
        require_one_of("fill", self.fill, BASELINES)
        require_one_of("gate", self.gate, ("otsu", "soft"))

    def bind(self) -> None:
        if self.budget != EXACT and (self.baseline or self.gate != "otsu"):
            raise SettingsError(
                f"a budget predicts scores for Otsu gates and no baseline, so budget must be {EXACT} with a baseline or gate soft, "
                f"got {self.budget!r}"
            )

    def explain_image(
        self, image: Float[torch.Tensor, "channel height width"], target: int | None, seed: int
    ) -> Steps[Explanation]:
        """Select maps by their gradients, score them as masks, fuse the blocks; draws nothing by `seed`."""
        blocks = yield from self.score_blocks(image, target)
        return self.explanation_of(blocks)

    def score_blocks(
        self, image: Float[torch.Tensor, "channel height width"], target: int | None
    ) -> Steps[ScoredBlocks]:
        """The masks of every block and their scores (eqs. 6-11)."""
        read = yield Rows(self.gradients, image, target, 0, self.gradient_rows(image))
        self.scorer.remember(image, read.output)
        layers = self.masks_of(image, read)
        blocks = ScoredBlocks(read.logits, layers, failure=failure_of(read.logits, layers))
        if blocks.failure is not None:
            return blocks
        masks = sum(layer.job.count for layer in blocks.layers)
        allowed = masks_allowed(self.budget, masks)
        if allowed < masks:
            spent = yield from score_within(blocks.layers, allowed, self.scorer)
            blocks.n_scored, blocks.surrogate_error = spent.n_scored, spent.error
            blocks.failure = MASK_NOT_FINITE if spent.error is None else None
            return blocks
        jobs = [layer.job for layer in blocks.layers] + ([nothing_shown(blocks.layers[0])] if self.baseline else [])
        yield Score(self.scorer, image, jobs)
        blocks.n_scored = sum(job.count for job in jobs)
        blocks.shown = jobs[-1].scores[0].double() if self.baseline else 0.0
        return blocks

    def explanation_of(self, blocks: ScoredBlocks) -> Explanation:
        """Every block's map (eq. 12), and their fusion (Fig. 5)."""
        counts = tuple(layer.job.count for layer in blocks.layers)
        spent = {"n_forwards": 1 + blocks.n_scored, "n_backwards": 1, "mask_counts": counts}
        if blocks.failure is not None:
            return blocks.logits.explanation(None, blocks.failure, **spent)
        raw = torch.stack([self.block_sum(layer, blocks.shown) for layer in blocks.layers])
        low, high = extremes(raw)
        layer_maps = min_max(raw, low, high)
        map_ = fuse(layer_maps, self.gate) / len(raw)
        states = torch.cat([map_facts(map_[None])[0], raw.isfinite().all()[None].double(), (high <= low).double()])
        facts = to_host(states)
        failure = failure_of_maps(*facts[1:3], *facts[3:])
        explanation = blocks.logits.explanation(map_, failure, facts=facts[:3], **spent)
        explanation.surrogate_error = blocks.surrogate_error
        if explanation.map is not None and self.keep_layers:
            explanation.layer_maps = layer_maps.float()
        return explanation

    def block_sum(self, layer: LayerMasks, shown: float | torch.Tensor) -> Float[torch.Tensor, "height width"]:
        """A block's masks, each by its weight: V_l of eq. 12 before min-max, float64."""
        return layer.weighted_sum(shown)

    def plan(self, image: Float[torch.Tensor, "channel height width"]) -> BlockPlan:
        """The block layers for inputs of this shape, found once per shape."""
        from ..layers.blocks import block_layers

        plan = self._plans.get(image.shape)
        if plan is None:
            plan = self._plans[image.shape] = block_layers(self.model, image[None], layers=self.layers)
        return plan

    @cached_property
    def _plans(self) -> dict[torch.Size, BlockPlan]:
        return {}

    def layer_masks(
        self, image: Float[torch.Tensor, "channel height width"], target: int | None
    ) -> tuple[Logits, list[LayerMasks]]:
        """The logits, and the kept maps of every layer (eqs. 6-8), at once and without a conversation."""
        [read] = self.gradients(image[None], [target], [0])
        return read.logits, self.masks_of(image, read)

    def gradients(self, images: torch.Tensor, targets: list[int | None], seeds: list[int]) -> list[BlockGradients]:
        """One forward and one backward pass over a batch: for `Rows`."""
        from ..layers.capture import capture_layers

        confidence = self.confidence
        with (
            in_eval_mode(self.model), torch.inference_mode(False), torch.enable_grad(), gradient_precision(images.device)
        ):  # fmt: skip
            plan = self.plan(images[0])
            with self.listening():
                output, activations = capture_layers(self.model, plan, images)
            confidence.check(output, "SISE")
            asked = class_tensor(targets, output.device)
            chosen = torch.where(asked < 0, predicted(output.detach(), confidence), asked)
            scenes = confidence.object_scenes(output, targets)
            gradients = torch.autograd.grad(
                confidence.margin(output, chosen, scenes).sum(), activations, allow_unused=True, materialize_grads=True
            )
        output, activations = output.detach(), [maps.detach() for maps in activations]
        alphas = [average_gradients(gradient) for gradient in gradients]
        parts = [logit_facts(output, asked, confidence, scenes)]
        parts += [layer_facts(maps, alpha) for maps, alpha in zip(activations, alphas, strict=True)]
        wholes = self.whole_images(output)
        edges = list(accumulate((part.shape[1] for part in parts), initial=0))
        return [
            BlockGradients(
                Logits.read(facts, target, wholes[place]), output[place][None], [maps[place] for maps in activations],
                [alpha[place] for alpha in alphas], [facts[start:stop] for start, stop in pairwise(edges[1:])],
            )
            for place, (facts, target) in enumerate(zip(to_host(torch.cat(parts, dim=1)), targets, strict=True))
        ]  # fmt: skip

    def gradient_rows(self, image: torch.Tensor) -> int:
        """Images whose gradients are computed in one batch: one on a CPU, where more gain nothing; on an accelerator one image
        takes as long as many."""
        most = 1 if image.device.type == "cpu" else GRADIENT_ROWS
        return max(1, min(most, self.batch_size, self.images or most))

    def masks_of(self, image: Float[torch.Tensor, "channel height width"], read: BlockGradients) -> list[LayerMasks]:
        """The maps of every layer that are kept, to be scored as masks."""
        if read.logits.failure is not None:
            return []
        behind = None if self.fill == "zero" else baseline_of(image[None], self.fill)[0]
        with torch.no_grad():
            return [
                LayerMasks(
                    image, maps, alphas, self.mu, read.logits.target, behind, beta=self.beta or "kept", facts=facts
                )
                for maps, alphas, facts in zip(read.maps, read.alphas, read.facts, strict=True)
            ]


def failure_of_maps(low: float, high: float, finite: float, *constant: float) -> Failure | None:
    """Why block maps make no map.

    Args:
        low: Least value of the fused map.
        high: Its largest.
        finite: Whether all block maps are.
        constant: Of every block, whether it gives the same value to every pixel.
    """
    if not finite:
        return MASK_NOT_FINITE
    if any(constant):
        place = f"block layer {constant.index(1.0) + 1} of {len(constant)}"
        return statuses.CONSTANT_MAP, f"{place} gives the same value to every pixel"
    if high <= low:
        return statuses.CONSTANT_MAP, "the fused map gives the same value to every pixel"
    return None


def failure_of(logits: Logits, layers: list[LayerMasks]) -> Failure | None:
    """Why an image has no masks to score."""
    if logits.failure is not None:
        return logits.failure
    if not all(layer.finite for layer in layers):
        return statuses.NON_FINITE, "a block layer's map or its gradient is not finite"
    empty = [number for number, layer in enumerate(layers, 1) if layer.job.count == 0]
    if empty:
        place = f"block layer {empty[0]} of {len(layers)}"
        return statuses.NO_EVIDENCE, f"{place} has no map that raises the target's score"
    return None


def nothing_shown(layer: LayerMasks) -> Job:
    """The fully masked input, to be scored."""
    nothing = torch.zeros_like(layer.image) if layer.behind is None else layer.behind
    return Job(1, layer.job.target, lambda start, out: out.copy_(nothing))


@method(
    name="ada_sise",
    summary="SISE with fewer masks: of each layer those above Otsu's threshold of the gradients",
    source="Sudhakar et al., ICASSP 2021, arXiv 2102.07799",
    architecture="cnn",
    cost=lambda settings: None,
    gradients=True,
    packed=True,
    budget=True,
    dense=True,
)
class AdaSISE(SISE):
    """SISE that finds its own threshold for each layer and image (Sudhakar et al., ICASSP 2021)."""

    mu: None = field(default=None, init=False)  # pyright: ignore[reportIncompatibleVariableOverride]
    beta: None = field(default=None, init=False)  # pyright: ignore[reportIncompatibleVariableOverride]
