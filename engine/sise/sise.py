"""SISE: Semantic Input Sampling for Explanation (Sattarzadeh et al., AAAI 2021, doi 10.1609/aaai.v35i13.17384).

For every block of a CNN, the last layer's feature maps that help the class become masks of the input; each mask counts by the
class probability that it leaves, and the blocks' maps pass through a cascade of Otsu gates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ... import statuses
from ...errors import SettingsError
from ..explainer import finish
from ..explanation import Explanation, Logits
from ..fill import baseline_of
from ..fill_kinds import Baseline as Fill
from ..layers.blocks import BlockPlan, block_layers
from ..layers.capture import capture_layers
from ..scoring.budget import EXACT, Budget, check_budget, masks_allowed
from ..scoring.confidence import SOFTMAX, Score
from ..scoring.masked_scorer import Job, Scorer
from ..scoring.precision import PRECISIONS
from ..targets import target_list
from .budgeted import BudgetedMasks
from .fusion import Gate, fuse
from .layer_masks import LayerMasks
from .masks import average_gradients, extremes, min_max

MASK_NOT_FINITE = (statuses.NON_FINITE, "the score of a mask is not finite")


@dataclass(eq=False)
class SISEResult:
    """Explanations of a batch. Rows whose status is not `ok` hold zeros; nothing is ever NaN."""

    maps: Float[Tensor, "batch height width"]
    """S / B, in [0, 1], float32."""
    targets: Int[Tensor, " batch"]
    predictions: Int[Tensor, " batch"]
    scores: Float[Tensor, " batch"]
    """Softmax probability of the target, in [0, 1]; 0 where the model's output is not finite."""
    statuses: list[str]
    mask_counts: Int[Tensor, "batch layer"]
    """Feature maps kept, per block layer, low to high."""
    layer_maps: Float[Tensor, "batch layer height width"] | None = None


class SISE:
    """Explains a CNN classifier's outputs.

    Args:
        model: Classifier of `(batch, channel, height, width)` to `(batch, class)` logits with at least two classes.
        layers: Names of the layers to use, or None for the last layer of every block (eqs. 1-5).
        mu: Share of the largest average gradient that a map must exceed, in [0, 1) (eq. 7); None for Ada-SISE, which takes Otsu's
            threshold instead, of each layer and image.
        batch_size: Masked inputs per forward, at least 1.
        precision: Of the masked forwards: "fp32", "bf16", "fp16" or "auto". The gradient pass runs in the model's own.
        keep_layers: Keep every V_l beside the map.
        fold_bn: Score masks with batch norms folded into convolutions, where that is possible.
        compile: Score masks with `torch.compile`, where that is possible.
        budget: Forwards per image: `exact` for all, `balanced` (25 %), `fast` (10 %), a number or a share in (0, 1]. The scores of
            masks that it leaves out are predicted.
        score: What confidence in a class means, for the selection of maps and for the scores of masks.
        baseline: Take the score of the fully masked input from every mask's, so that masks that show nothing do not count.
        fill: What is seen where a mask is 0: `zero`, the image's `mean` colour or its `blur`.
        gate: `otsu` for steps, `soft` for steep sigmoids at the same thresholds.

    Raises:
        SettingsError: When an argument is out of its range.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        layers: Sequence[str] | None = None,
        mu: float | None = 0.0,
        batch_size: int = 64,
        precision: str = "fp32",
        keep_layers: bool = False,
        fold_bn: bool = False,
        compile: bool = False,
        budget: Budget = EXACT,
        score: Score = SOFTMAX,
        baseline: bool = False,
        fill: Fill = "zero",
        gate: Gate = "otsu",
    ):
        if mu is not None and not 0 <= mu < 1:
            raise SettingsError(f"mu must be in [0, 1), got {mu}: at 1 no map exceeds the largest")
        if batch_size < 1:
            raise SettingsError(f"batch_size must be at least 1, got {batch_size}")
        if precision not in PRECISIONS:
            raise SettingsError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
        self.model = model
        self.layers = layers
        self.mu = mu
        self.keep_layers = keep_layers
        self.baseline = baseline
        self.fill: Fill = fill
        self.gate: Gate = gate
        self.budget = check_budget(budget)
        if self.budget != EXACT and (baseline or gate != "otsu"):
            raise SettingsError(
                f"a budget predicts scores for Otsu gates and no baseline, so budget must be {EXACT} with a baseline or gate soft, got {budget!r}"
            )
        self.scorer = Scorer(
            model, batch_size=batch_size, precision=precision, score=score, fold_bn=fold_bn, compile=compile
        )
        self._plans: dict[torch.Size, BlockPlan] = {}

    def __call__(
        self,
        images: Float[Tensor, "batch channel height width"],
        targets: Int[Tensor, " batch"] | Sequence[int] | int | None = None,
        *,
        keep_layers: bool | None = None,
    ) -> SISEResult:
        """Explain a batch; the result does not depend on how images are batched.

        Args:
            images: In network-input space, on the model's device.
            targets: Class index per image, one for all, or None for the predicted classes.
            keep_layers: Overrides the constructor's.

        Raises:
            TargetError: When a target is no class of the model.
            NoBlocksError: When the model has no spatial hierarchy.
        """
        if images.ndim != 4 or len(images) == 0:
            raise SettingsError(
                f"images must be (batch, channel, height, width) with a batch of at least 1, got {tuple(images.shape)}"
            )
        keep = self.keep_layers if keep_layers is None else keep_layers
        wanted = target_list(targets, len(images))
        pending: list[Pending] = []
        try:
            for image, target in zip(images, wanted, strict=True):
                pending.append(self.begin(image, target))
            self.finish(*pending)
        except BaseException:
            self.reset()
            raise
        explanations = [self.complete(one, keep_layers=keep) for one in pending]
        return stack(explanations, self.plan(images[0]), images, keep)

    def plan(self, image: Float[Tensor, "channel height width"]) -> BlockPlan:
        """The block layers for inputs of this shape, found once per shape."""
        plan = self._plans.get(image.shape)
        if plan is None:
            plan = self._plans[image.shape] = block_layers(self.model, image[None], layers=self.layers)
        return plan

    def begin(self, image: Float[Tensor, "channel height width"], target: int | None, seed: int = 0) -> Pending:
        """Select the image's masks and queue them; `advance` it until it is `done`, then `complete` it. Draws nothing by `seed`.

        Raises:
            TargetError: When `target` is no class of the model.
        """
        with torch.inference_mode(False):  # a caller may be in inference mode, which records no gradient
            image = image.clone() if image.is_inference() else image
            logits, layers = self.layer_masks(image, target)
        pending = Pending(image, logits, layers)
        if pending.failure is None:
            self._submit(pending)
        return pending

    def _submit(self, pending: Pending) -> None:
        masks = sum(layer.job.count for layer in pending.layers)
        allowed = masks_allowed(self.budget, masks)
        if allowed == masks:
            jobs = [layer.job for layer in pending.layers]
            if self.baseline:
                pending.nothing = self._nothing_shown(pending)
                jobs.append(pending.nothing)
            self.scorer.submit(*jobs, like=pending.image)
            return
        with torch.no_grad():
            pending.budgeted = BudgetedMasks(pending.layers, allowed)
            pending.budgeted.submit(self.scorer)

    def advance(self, pending: Pending) -> bool:
        """Take in what is scored of an image under a budget and queue its next round; whether there was something to do."""
        if pending.budgeted is None or pending.done:
            return False
        with torch.no_grad():
            return pending.budgeted.advance(self.scorer)

    def flush(self) -> None:
        """Score what is queued."""
        self.scorer.flush()

    def finish(self, *pending: Pending) -> None:
        """Score everything that is queued, round after round, until these images are done."""
        finish(self, *pending)

    def reset(self) -> None:
        """Forget everything in flight."""
        self.scorer.reset()

    def over(self, model: nn.Module) -> SISE:
        """The same settings and layers over another model, which is scored as it is."""
        scorer = self.scorer
        return SISE(
            model, layers=self.layers, mu=self.mu, batch_size=scorer.batch_size, precision=scorer.precision,
            budget=self.budget, score=scorer.score, baseline=self.baseline, fill=self.fill, gate=self.gate,
        )  # fmt: skip

    def layer_masks(self, image: Tensor, target: int | None) -> tuple[Logits, list[LayerMasks]]:
        """One forward and one backward pass: the logits, and the kept maps of every layer (eqs. 6-8)."""
        with torch.enable_grad():
            raw, activations = capture_layers(self.model, self.plan(image), image[None])
            self.scorer.score.check(raw, "SISE")
            self.scorer.remember(image, raw.detach())
            logits = Logits.of(raw.detach()[0], target, self.scorer.score)
            if logits.failure is not None:
                return logits, []
            labels = torch.tensor([logits.target], device=raw.device)
            gradients = torch.autograd.grad(
                self.scorer.score.margin(raw, labels).sum(), activations, allow_unused=True, materialize_grads=True
            )
        with torch.no_grad():
            behind = None if self.fill == "zero" else baseline_of(image[None], self.fill)[0]
            return logits, [
                LayerMasks(image, maps.detach()[0], average_gradients(gradient[0]), self.mu, logits.target, behind)
                for maps, gradient in zip(activations, gradients, strict=True)
            ]

    def _nothing_shown(self, pending: Pending) -> Job:
        """The fully masked input."""
        behind = pending.layers[0].behind
        nothing = torch.zeros_like(pending.image) if behind is None else behind
        return Job(1, pending.layers[0].job.target, lambda start, out: out.copy_(nothing))

    def complete(self, pending: Pending, *, keep_layers: bool | None = None) -> Explanation:
        """Aggregate a pending image whose masks have all been scored (eqs. 10-12, Fig. 5)."""
        logits, failure = pending.logits, pending.failure
        counts = tuple(layer.job.count for layer in pending.layers)
        found = logits.explanation(statuses.OK, None)
        found.mask_counts, found.n_forwards, found.n_backwards = counts, 1 + pending.n_scored, int(logits.finite)
        if failure is None:
            found.surrogate_error = pending.budgeted.error if pending.budgeted else None
            with torch.no_grad():
                failure = self._aggregate(pending, found, self.keep_layers if keep_layers is None else keep_layers)
        if failure is not None:
            found.status, found.error = failure
        return found

    def _aggregate(self, pending: Pending, found: Explanation, keep_layers: bool) -> tuple[str, str] | None:
        shown = 0.0 if pending.nothing is None else float(pending.nothing.scores[0])
        raw = torch.stack([layer.weighted_sum(shown) for layer in pending.layers])
        if not bool(raw.isfinite().all()):
            return MASK_NOT_FINITE
        low, high = extremes(raw)
        constant = (high <= low).nonzero().flatten().tolist()
        if constant:
            return (
                statuses.CONSTANT_MAP,
                f"block layer {constant[0] + 1} of {len(raw)} gives the same value to every pixel",
            )
        layer_maps = min_max(raw, low, high)
        fused = fuse(layer_maps, self.gate)
        if bool(fused.amax() <= fused.amin()):
            return statuses.CONSTANT_MAP, "the fused map gives the same value to every pixel"
        found.map = (fused / len(raw)).float()
        found.layer_maps = layer_maps.float() if keep_layers else None
        return None


class Pending:
    """An image whose masks are queued or scored."""

    def __init__(self, image: Tensor, logits: Logits, layers: list[LayerMasks]):
        self.image = image
        self.logits = logits
        self.layers = layers
        self.budgeted: BudgetedMasks | None = None
        """Where the budget does not allow to score all."""
        self.nothing: Job | None = None
        """The fully masked input, where its score is asked for."""
        self._unfit = self._failure()

    @property
    def failure(self) -> tuple[str, str] | None:
        """Status and text, where there is no map."""
        if self.budgeted is not None and not self.budgeted.finite:
            return MASK_NOT_FINITE
        return self._unfit

    @property
    def done(self) -> bool:
        if self.failure is not None:
            return True
        if self.budgeted is not None:
            return self.budgeted.done
        return all(layer.job.done for layer in self.layers) and (self.nothing is None or self.nothing.done)

    @property
    def n_scored(self) -> int:
        """Masks scored, once `done`."""
        if self.budgeted is not None:
            return self.budgeted.n_scored
        return 0 if self._unfit else sum(layer.job.count for layer in self.layers) + (self.nothing is not None)

    def _failure(self) -> tuple[str, str] | None:
        if self.logits.failure is not None:
            return self.logits.failure
        if not all(layer.finite for layer in self.layers):
            return statuses.NON_FINITE, "a block layer's map or its gradient is not finite"
        empty = [number for number, layer in enumerate(self.layers, 1) if layer.job.count == 0]
        if empty:
            return (
                statuses.NO_EVIDENCE,
                f"block layer {empty[0]} of {len(self.layers)} has no map that raises the target's score",
            )
        return None


def stack(explanations: list[Explanation], plan: BlockPlan, images: Tensor, keep_layers: bool) -> SISEResult:
    """Explanations side by side; zeros where a status is not `ok`."""
    device, size = images.device, images.shape[2:]
    blank = torch.zeros(size, device=device)
    blanks = torch.zeros(len(plan), *size, device=device)
    return SISEResult(
        maps=torch.stack([blank if one.map is None else one.map for one in explanations]),
        targets=torch.tensor([-1 if one.target is None else one.target for one in explanations], device=device),
        predictions=torch.tensor(
            [-1 if one.prediction is None else one.prediction for one in explanations], device=device
        ),
        scores=torch.tensor([one.score or 0.0 for one in explanations], device=device),
        statuses=[one.status for one in explanations],
        mask_counts=torch.tensor([one.mask_counts or [0] * len(plan) for one in explanations], device=device),
        layer_maps=torch.stack([blanks if one.layer_maps is None else one.layer_maps for one in explanations])
        if keep_layers
        else None,
    )
