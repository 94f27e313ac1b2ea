"""SISE: Semantic Input Sampling for Explanation (Sattarzadeh et al., AAAI 2021, doi 10.1609/aaai.v35i13.17384), and Ada-SISE.

For every block of a CNN, the last layer's feature maps that help the class become masks of the input; each mask counts by the
class probability that it leaves, and the blocks' maps pass through a cascade of Otsu gates.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from jaxtyping import Float

from ... import statuses
from ...errors import SettingsError
from ..explainer import Explainer
from ..explanation import Explanation, Logits
from ..fill import baseline_of
from ..fill_kinds import BASELINES
from ..layers.block_plan import BlockPlan
from ..lazy_torch import torch
from ..requests import Job, Rows, Score, Steps
from ..scoring.budget import EXACT, masks_allowed
from ..sise.budgeted_scores import score_within
from ..sise.fusion import fuse
from ..sise.layer_masks import LayerMasks
from ..sise.masks import average_gradients, extremes, min_max
from .protocol import method, require, require_one_of, setting

Failure = tuple[str, str]
"""Status and text, where there is no map."""
MASK_NOT_FINITE: Failure = (statuses.NON_FINITE, "the score of a mask is not finite")


@dataclass(eq=False)
class BlockGradients:
    """What a forward and a backward pass say of one image."""

    logits: Logits
    output: torch.Tensor
    """The model's, of this image alone."""
    maps: list[Float[torch.Tensor, "channel h w"]] = field(default_factory=list)
    """Of every block's last layer; none where there is nothing to explain."""
    alphas: list[Float[torch.Tensor, " channel"]] = field(default_factory=list)
    """Average gradient of each map (eq. 6)."""


@dataclass(eq=False)
class ScoredBlocks:
    """One image's masks, block by block, with their scores."""

    logits: Logits
    layers: list[LayerMasks]
    n_scored: int = 0
    """Masked inputs that were scored."""
    shown: float = 0.0
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
        found = yield from self.score_blocks(image, target)
        return self.explanation_of(found)

    def score_blocks(
        self, image: Float[torch.Tensor, "channel height width"], target: int | None
    ) -> Steps[ScoredBlocks]:
        """The masks of every block and their scores (eqs. 6-11)."""
        read = yield Rows(self.gradients, image, target, 0, 1)
        self.scorer.remember(image, read.output)
        layers = self.masks_of(image, read)
        found = ScoredBlocks(read.logits, layers, failure=failure_of(read.logits, layers))
        if found.failure is not None:
            return found
        masks = sum(layer.job.count for layer in found.layers)
        allowed = masks_allowed(self.budget, masks)
        if allowed < masks:
            spent = yield from score_within(found.layers, allowed, self.scorer)
            found.n_scored, found.surrogate_error = spent.n_scored, spent.error
            found.failure = MASK_NOT_FINITE if spent.error is None else None
            return found
        jobs = [layer.job for layer in found.layers] + ([nothing_shown(found.layers[0])] if self.baseline else [])
        yield Score(self.scorer, image, jobs)
        found.n_scored = sum(job.count for job in jobs)
        found.shown = float(jobs[-1].scores[0]) if self.baseline else 0.0
        return found

    def explanation_of(self, found: ScoredBlocks) -> Explanation:
        """Every block's map (eq. 12), and their fusion (Fig. 5)."""
        counts = tuple(layer.job.count for layer in found.layers)
        layer_maps, failure = (None, found.failure) if found.failure else self._block_maps(found)
        heat = None if layer_maps is None else fuse(layer_maps, self.gate) / len(layer_maps)
        if heat is not None and bool(heat.amax() <= heat.amin()):
            heat, failure = None, (statuses.CONSTANT_MAP, "the fused map gives the same value to every pixel")
        explanation = found.logits.explanation(
            heat, failure, n_forwards=1 + found.n_scored, n_backwards=int(found.logits.finite), mask_counts=counts
        )
        if found.failure is None:
            explanation.surrogate_error = found.surrogate_error
        if layer_maps is not None and explanation.map is not None and self.keep_layers:
            explanation.layer_maps = layer_maps.float()
        return explanation

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
        with torch.inference_mode(False), torch.enable_grad():
            output, activations = capture_layers(self.model, self.plan(images[0]), images)
            confidence.check(output, "SISE")
            logits = [Logits.of(row, target, confidence) for row, target in zip(output.detach(), targets, strict=True)]
            if all(row.failure is not None for row in logits):
                return [BlockGradients(row, output.detach()[place][None]) for place, row in enumerate(logits)]
            labels = torch.tensor([row.target or 0 for row in logits], device=output.device)
            gradients = torch.autograd.grad(
                confidence.margin(output, labels).sum(), activations, allow_unused=True, materialize_grads=True
            )
        return [
            BlockGradients(
                row, output.detach()[place][None], [maps.detach()[place] for maps in activations],
                [average_gradients(gradient[place]) for gradient in gradients],
            )
            for place, row in enumerate(logits)
        ]  # fmt: skip

    def masks_of(self, image: Float[torch.Tensor, "channel height width"], read: BlockGradients) -> list[LayerMasks]:
        """The maps of every layer that are kept, to be scored as masks."""
        if read.logits.failure is not None:
            return []
        behind = None if self.fill == "zero" else baseline_of(image[None], self.fill)[0]
        with torch.no_grad():
            return [
                LayerMasks(image, maps, alphas, self.mu, read.logits.target, behind)
                for maps, alphas in zip(read.maps, read.alphas, strict=True)
            ]

    def _block_maps(
        self, found: ScoredBlocks
    ) -> tuple[Float[torch.Tensor, "layer height width"] | None, Failure | None]:
        """V_l of every block, or why there is none."""
        raw = torch.stack([layer.weighted_sum(found.shown) for layer in found.layers])
        if not bool(raw.isfinite().all()):
            return None, MASK_NOT_FINITE
        low, high = extremes(raw)
        constant = (high <= low).nonzero().flatten().tolist()
        if constant:
            place = f"block layer {constant[0] + 1} of {len(raw)}"
            return None, (statuses.CONSTANT_MAP, f"{place} gives the same value to every pixel")
        return min_max(raw, low, high), None


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
