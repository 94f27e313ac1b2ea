"""What methods share that add up masks by the scores that they leave, and have no rounds and no layers of their own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ... import statuses
from ...errors import ModelError, SettingsError
from ..explanation import Explanation, Logits
from ..layers.eval_mode import untouched
from ..layers.outputs import logits_of
from ..scoring.budget import EXACT
from ..scoring.confidence import Score
from ..scoring.masked_scorer import Job
from ..scoring.scoring_options import Scoring
from ..sise.masks import extremes, min_max


class Masks(ABC):
    """An image's masks, made just in time."""

    job: Job

    @abstractmethod
    def total(self) -> Float[Tensor, "height width"]:
        """The map before min-max, once the job is done; float64."""


@dataclass(frozen=True)
class Seen:
    """An image, of which the model was asked once."""

    image: Float[Tensor, "channel height width"]
    target: int
    seed: int
    layers: tuple[Tensor, ...] = ()
    """Activations that were asked for, `(channel, h, w)` each."""


@dataclass(eq=False)
class Sampling:
    """An image in the scorer."""

    logits: Logits
    masks: Masks | None = None
    """None where there is nothing to score."""
    failure: tuple[str, str] | None = None

    @property
    def done(self) -> bool:
        return self.masks is None or self.masks.job.done


Ask = Callable[[nn.Module, Tensor], tuple[Tensor, tuple[Tensor, ...]]]
"""(model, one image as a batch) -> logits and activations, without gradients."""


def ask_logits(model: nn.Module, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """One forward pass."""
    with untouched(model), torch.no_grad():
        return logits_of(model(images)), ()


class Sampled:
    """Drives masks through the packed scorer: see `Explainer`. The map is the masks' total, min-maxed.

    Args:
        model: Classifier of `(batch, channel, height, width)` to `(batch, class)` logits.
        scoring: How masks are scored.
        make: The masks of an image; it may raise NoMasks.
        budget_of: Name of the method, for what it says of a budget.
        ask: The unmasked forward pass.
        score: By which masks are scored, where that is not the run's.

    Raises:
        SettingsError: When there is a budget: all masks are needed.
    """

    keep_layers = False

    def __init__(
        self,
        model: nn.Module,
        scoring: Scoring,
        make: Callable[[Seen], Masks],
        *,
        budget_of: str,
        ask: Ask = ask_logits,
        score: Score | None = None,
    ):
        if scoring.budget != EXACT:
            raise SettingsError(
                f"method {budget_of} scores all its masks, so budget must be {EXACT}, got {scoring.budget!r}"
            )
        if score is not None and scoring.score.scene is not None:
            raise ModelError(f"{budget_of} reads the logits of a classifier; this model gives every pixel its class")
        self.model = model
        self.scoring = scoring
        self.scorer = scoring.scorer(model)
        self._score = score
        self._masks = self.scorer if score is None else replace(scoring, score=score).scorer(model)
        self._make = make
        self._name = budget_of
        self._ask = ask

    def begin(self, image: Float[Tensor, "channel height width"], target: int | None, seed: int = 0) -> Sampling:
        """Ask the model once and queue the image's masks.

        Raises:
            TargetError: When `target` is no class of the model.
            ModelError: When the model gives no class scores.
        """
        with torch.inference_mode(False):
            image = image.clone() if image.is_inference() else image
            raw, layers = self._ask(self.model, image[None])
        self.scoring.score.check(raw, self._name)
        logits = Logits.of(raw.detach()[0], target, self.scoring.score)
        if logits.target is None or logits.failure is not None:
            return Sampling(logits, failure=logits.failure)
        self.scorer.remember(image, raw.detach())
        try:
            masks = self._make(Seen(image, logits.target, seed, tuple(layer.detach()[0] for layer in layers)))
        except NoMasksError as error:
            return Sampling(logits, failure=(error.status, str(error)))
        self._masks.submit(masks.job, like=image)
        return Sampling(logits, masks)

    def advance(self, pending: Sampling) -> bool:
        """Nothing: all masks are queued at once."""
        return False

    def flush(self) -> None:
        """Score what is queued."""
        self._masks.flush()
        self.scorer.flush()

    def reset(self) -> None:
        """Forget everything in flight."""
        self._masks.reset()
        self.scorer.reset()

    def over(self, model: nn.Module) -> Sampled:
        """The same masks over another model, which is scored as it is."""
        plain = replace(self.scoring, fold_bn=False, compile=False)
        return Sampled(model, plain, self._make, budget_of=self._name, ask=self._ask, score=self._score)

    def complete(self, pending: Sampling, *, keep_layers: bool | None = None) -> Explanation:
        """Add up an image's masks; there are no block maps to keep."""
        found = pending.logits.explanation(statuses.OK, None)
        failure = pending.failure
        if pending.masks is not None:
            count = pending.masks.job.count
            found.mask_counts, found.n_forwards = (count,), 1 + count
            with torch.no_grad():
                failure = self._aggregate(pending.masks, found)
        if failure is not None:
            found.status, found.error = failure
        return found

    def _aggregate(self, masks: Masks, found: Explanation) -> tuple[str, str] | None:
        total = masks.total()[None]
        if not bool(total.isfinite().all()):
            return statuses.NON_FINITE, "the score of a mask is not finite"
        low, high = extremes(total)
        if bool(high <= low):
            return statuses.CONSTANT_MAP, "the map gives the same value to every pixel"
        found.map = min_max(total, low, high)[0].float()
        return None


class NoMasksError(Exception):
    """An image has no masks; carries the status of its row."""

    def __init__(self, status: str, text: str):
        super().__init__(status, text)
        self.status = status
        self.text = text

    def __str__(self) -> str:
        return self.text
