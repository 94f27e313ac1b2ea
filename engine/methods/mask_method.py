"""A method that adds up masks by the confidence that each leaves, and has no rounds and no layers of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from jaxtyping import Float

from ... import statuses
from ..explainer import Explainer, class_tensor
from ..explanation import Explanation, Logits, logit_facts, map_facts
from ..layers.eval_mode import in_eval_mode
from ..layers.outputs import logits_of
from ..lazy_torch import torch
from ..requests import Job, Rows, Score, Steps
from ..scoring.precision import gradient_precision
from ..sise.masks import extremes, min_max
from ..transfer import to_host

if TYPE_CHECKING:
    from ..scoring.masked_scorer import Scorer


class Masks(ABC):
    """An image's masks, made just in time."""

    job: Job

    @abstractmethod
    def total(self) -> Float[torch.Tensor, "height width"]:
        """The map before min-max, once the job is done; float64."""


class NoMasksError(Exception):
    """An image has no masks; carries the status and the text of its row."""


class MaskMethod(Explainer):
    """A subclass implements `draw`; the map is their total, min-maxed."""

    def draw(self, image: torch.Tensor, target: int, seed: int, layers: tuple[torch.Tensor, ...]) -> Masks:
        """The masks of an image.

        Args:
            image: Network input.
            target: The class.
            seed: Of the image.
            layers: What `read` has read beside the logits, `(channel, h, w)` each.

        Raises:
            NoMasksError: When there is none.
        """
        raise NotImplementedError

    def read(self, images: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """The unmasked forward pass, in the model's own precision: its output, and activations if any are wanted."""
        with in_eval_mode(self.model), torch.no_grad(), gradient_precision(images.device):
            return logits_of(self.model(images)), ()

    @property
    def mask_scorer(self) -> Scorer:
        """Scores the masks."""
        return self.scorer

    def explain_image(
        self, image: Float[torch.Tensor, "channel height width"], target: int | None, seed: int
    ) -> Steps[Explanation]:
        logits, output, layers = yield Rows(self._read_rows, image, target, seed, 1)
        if logits.target is None or logits.failure is not None:
            return logits.explanation()
        self.scorer.remember(image, output)
        try:
            masks = self.draw(image, logits.target, seed, layers)
        except NoMasksError as error:
            return logits.explanation(failure=error.args)  # pyright: ignore[reportArgumentType]
        yield Score(self.mask_scorer, image, [masks.job])
        total, count = masks.total()[None], masks.job.count
        map_ = min_max(total, *extremes(total))[0]
        [facts] = to_host(torch.cat([map_facts(map_[None]), total.isfinite().all().double().reshape(1, 1)], dim=1))
        failure = None if facts.pop() else (statuses.NON_FINITE, "the score of a mask is not finite")
        return logits.explanation(map_, failure, n_forwards=1 + count, mask_counts=(count,), facts=facts)

    def _read_rows(self, images: torch.Tensor, targets: list[int | None], seeds: list[int]) -> list[Any]:
        with self.listening():
            output, layers = self.read(images)
        self.confidence.check(output, self.declared.name)
        output = output.detach()
        wholes = self.whole_images(output)
        scenes = self.confidence.object_scenes(output, targets)
        facts = to_host(logit_facts(output, class_tensor(targets, output.device), self.confidence, scenes))
        return [
            (
                Logits.read(facts[place], target, wholes[place]),
                output[place : place + 1],
                tuple(layer.detach()[place] for layer in layers),
            )
            for place, target in enumerate(targets)
        ]
