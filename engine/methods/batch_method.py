"""A method that is a function of a batch of images: what most gradient methods are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar

from jaxtyping import Float, Int

from ... import statuses
from ..explainer import Explainer, class_tensor
from ..explanation import LOGIT_FACTS, Explanation, Logits, logit_facts, map_facts
from ..layers.eval_mode import in_eval_mode
from ..lazy_torch import torch
from ..requests import Steps
from ..scoring.confidence import scene_of
from ..scoring.object_scenes import is_any_object
from ..transfer import to_host
from .layer_gradients import predicted_where_negative
from .passes import logits_without_graph
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
    logits: Float[torch.Tensor, "batch class *pixels"] | None = None
    """The model's output for the images, of a method that `reads_logits`."""


class BatchMethod(Explainer):
    """A subclass implements `maps`. One forward pass beside the method's own finds the predicted class and the confidence, unless
    the method's own shows them."""

    reads_logits: ClassVar[bool] = False
    """Whether `maps` hands out the logits, and takes -1 for the predicted class (see `predicted_where_negative`)."""

    objects: ClassVar[Sequence[int | None]] = ()
    """While `maps` runs for objects of a dense model: the target of every image, `ObjectTarget` where one object of a class is meant."""

    def maps(
        self,
        images: Float[torch.Tensor, "batch channel height width"],
        targets: Int[torch.Tensor, " batch"],
        seeds: Sequence[int],
    ) -> MethodMaps:
        """Maps of a batch, the model in eval mode.

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
        method_maps = self.checked_maps(image[None], torch.zeros(1, dtype=torch.long, device=image.device), [0])
        return {name: tuple(method_maps.extras[name].shape[1:]) for name in self.declared.extras}

    def checked_maps(
        self, images: torch.Tensor, targets: torch.Tensor, seeds: Sequence[int], objects: Sequence[int | None] = ()
    ) -> MethodMaps:
        """What `maps` says.

        Args:
            images: In network-input space.
            targets: One class per image.
            seeds: One per image.
            objects: The targets again, as they were asked for.

        Raises:
            RuntimeError: When it is not what the method's declaration promises.
        """
        with (
            in_eval_mode(self.model), torch.inference_mode(False), self.own_precision(images.device), self._about(objects)
        ):  # fmt: skip
            method_maps = self.maps(images, targets, seeds)
        name, expected = self.declared.name, (len(images), *images.shape[2:])
        if tuple(method_maps.maps.shape) != expected:
            raise RuntimeError(f"method {name} gave maps of shape {tuple(method_maps.maps.shape)}, not {expected}")
        if missing := self.declared.extras.keys() ^ method_maps.extras.keys():
            raise RuntimeError(f"method {name} and its declaration differ in extras: {', '.join(sorted(missing))}")
        return method_maps

    @contextmanager
    def _about(self, objects: Sequence[int | None]) -> Iterator[None]:
        """Let `maps` see which objects are meant; nothing of that stays."""
        if not is_any_object(objects):
            yield
            return
        object.__setattr__(self, "objects", tuple(objects))
        try:
            yield
        finally:
            object.__delattr__(self, "objects")

    def scenes(
        self, images: Float[torch.Tensor, "batch channel height width"]
    ) -> Int[torch.Tensor, "batch height width"] | None:
        """Of dense models the class of every pixel of the images, by one forward pass; None of classifiers, which takes none."""
        return None if self.confidence.scene is None else self.scenes_in(logits_without_graph(self.model, images))

    def scenes_in(
        self, logits: Float[torch.Tensor, "batch class height width"]
    ) -> Int[torch.Tensor, "batch height width"]:
        """The class of every pixel as the targets see it, from the logits of unmasked images of a dense model."""
        scenes = self.confidence.object_scenes(logits, self.objects)
        scene = self.confidence.scene or scene_of
        return torch.stack([scene(output[None]) for output in logits]) if scenes is None else scenes

    @property
    def scene_forwards(self) -> int:
        """Forward passes of `scenes`."""
        return 0 if self.confidence.scene is None else 1

    def _explained(self, images: torch.Tensor, targets: list[int | None], seeds: list[int]) -> list[Explanation]:
        asked = class_tensor(targets, images.device)
        if self.reads_logits:
            with self.listening():
                method_maps = self.checked_maps(images, asked, seeds, targets)
            output, forwards = method_maps.logits, method_maps.cost.forwards
        else:
            with self.listening():
                output = self.logits(images)
            method_maps = self.checked_maps(images, predicted_where_negative(asked, output), seeds, targets)
            forwards = 1 + method_maps.cost.forwards
        if output is None:
            raise RuntimeError(f"method {self.declared.name} says that it reads logits and hands out none")
        scenes = self.confidence.object_scenes(output, targets)
        told = logit_facts(output, asked, self.confidence, scenes)
        facts = to_host(torch.cat([told, map_facts(method_maps.maps)], dim=1))
        wholes = self.whole_images(output)
        return [
            Logits.read(row, target, wholes[place]).explanation(
                method_maps.maps[place], n_forwards=forwards, n_backwards=method_maps.cost.backwards, facts=row[LOGIT_FACTS:],
                extras={name: values[place] for name, values in method_maps.extras.items()},
            )
            for place, (row, target) in enumerate(zip(facts, targets, strict=True))
        ]  # fmt: skip

    def _mapped(self, images: torch.Tensor, targets: list[int | None], seeds: list[int]) -> list[Explanation]:
        method_maps = self.checked_maps(images, class_tensor(targets, images.device), seeds, targets)
        return [
            Explanation(
                statuses.OK, None, None, target, None, None, map=method_maps.maps[place], n_forwards=method_maps.cost.forwards,
                n_backwards=method_maps.cost.backwards,
            )
            for place, target in enumerate(targets)
        ]  # fmt: skip
