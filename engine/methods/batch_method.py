"""A method that is a function of a batch of images: what most gradient methods are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jaxtyping import Float, Int

from ... import statuses
from ..explainer import Explainer
from ..explanation import Explanation
from ..layers.eval_mode import untouched
from ..lazy_torch import torch
from ..requests import Steps
from .protocol import Cost


@dataclass(eq=False)
class MethodMaps:
    """What a method says of a batch of images."""

    maps: Float[torch.Tensor, "batch height width"]
    """At the input's resolution, in [0, 1], normalised as the source says. Constant where an image gives no map, NaN where it breaks."""
    cost: Cost
    """Passes that were spent on each image."""
    extras: Mapping[str, Float[torch.Tensor, "batch ..."]] = field(default_factory=dict)
    """What else there is to keep, by column name, as the declaration promises it."""


class BatchMethod(Explainer):
    """A subclass implements `maps`. One forward pass beside the method's own finds the predicted class and the confidence."""

    def maps(
        self,
        images: Float[torch.Tensor, "batch channel height width"],
        targets: Int[torch.Tensor, " batch"],
        seeds: Sequence[int],
    ) -> MethodMaps:
        """Maps of a batch, the model in eval mode and in the precision of the run.

        Args:
            images: In network-input space, on the model's device.
            targets: The class to explain in each.
            seeds: Stands for each image in random draws: nothing random may depend on anything else.
        """
        raise NotImplementedError

    def explain_image(
        self, image: Float[torch.Tensor, "channel height width"], target: int | None, seed: int
    ) -> Steps[Explanation]:
        return (yield self.rows_of(self._explained, image, target, seed))

    def known_class(self, image: torch.Tensor, target: int, seed: int) -> Steps[Explanation]:
        """As `explain_image`, for callers that have read the model's output themselves: without the forward that does it here."""
        return (yield self.rows_of(self._mapped, image, target, seed))

    def extra_shapes(self, image: Float[torch.Tensor, "channel height width"]) -> Mapping[str, tuple[int, ...]]:
        if not self.declared.extras:
            return {}
        found = self.checked_maps(image[None], [0], [0])
        return {name: tuple(found.extras[name].shape[1:]) for name in self.declared.extras}

    def checked_maps(self, images: torch.Tensor, targets: Sequence[int], seeds: Sequence[int]) -> MethodMaps:
        """What `maps` says.

        Raises:
            RuntimeError: When it is not what the method's declaration promises.
        """
        with untouched(self.model), torch.inference_mode(False), self.autocast(images):
            found = self.maps(images, torch.tensor(targets, device=images.device), seeds)
        name, expected = self.declared.name, (len(images), *images.shape[2:])
        if tuple(found.maps.shape) != expected:
            raise RuntimeError(f"method {name} gave maps of shape {tuple(found.maps.shape)}, not {expected}")
        if missing := self.declared.extras.keys() ^ found.extras.keys():
            raise RuntimeError(f"method {name} and its declaration differ in extras: {', '.join(sorted(missing))}")
        return found

    def _explained(self, images: torch.Tensor, targets: list[int | None], seeds: list[int]) -> list[Explanation]:
        logits = self.read_logits(images, targets, seeds)
        found = self.checked_maps(images, [row.target or 0 for row in logits], seeds)
        return [
            row.explanation(
                found.maps[place], n_forwards=1 + found.cost.forwards, n_backwards=found.cost.backwards,
                extras={name: values[place] for name, values in found.extras.items()},
            )
            for place, row in enumerate(logits)
        ]  # fmt: skip

    def _mapped(self, images: torch.Tensor, targets: list[int | None], seeds: list[int]) -> list[Explanation]:
        found = self.checked_maps(images, [target or 0 for target in targets], seeds)
        return [
            Explanation(
                statuses.OK, None, None, target, None, None, map=found.maps[place], n_forwards=found.cost.forwards, n_backwards=found.cost.backwards,
            )
            for place, target in enumerate(targets)
        ]  # fmt: skip
