"""A layer's feature maps and how the target's logit changes with them: what every CAM is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int

from ...errors import ModelError
from ..explanation import predicted
from ..layers.block_plan import BlockPlan
from ..layers.outputs import wide
from ..lazy_torch import nn, torch
from ..scoring.confidence import SEGMENTATION, mean_in_mask

Choose = Callable[[BlockPlan], BlockPlan]


@dataclass(frozen=True, eq=False)
class LayerMaps:
    """Of one layer for a batch of images; float32 at least."""

    maps: Float[torch.Tensor, "batch channel height width"]
    gradients: Float[torch.Tensor, "batch channel height width"]
    """Of the target's logit; of a dense model of its mean over the target's mask."""


class LayerGradients:
    """Reads the same layers of a model for images of any size; one forward and one backward pass for a batch.

    Args:
        model: A classifier with `(batch, class)` logits, or a dense model.
        layers: Names of the layers, or None to choose.
        choose: Picks from the plan of all block layers.
    """

    def __init__(self, model: nn.Module, layers: Sequence[str] | None, choose: Choose = lambda plan: plan):
        self.model = model
        self._layers = layers
        self._choose = choose
        self._plans: dict[torch.Size, BlockPlan] = {}

    def plan(self, images: Float[torch.Tensor, "batch channel height width"]) -> BlockPlan:
        """The layers for images of this shape, found once per shape.

        Raises:
            NoBlocksError: When the model has no spatial hierarchy and no layer is named.
            ModelError: When a named layer is not one of the model's.
        """
        from ..layers.blocks import block_layers

        shape = images.shape[1:]
        if shape not in self._plans:
            plan = block_layers(self.model, images[:1], layers=self._layers)
            self._plans[shape] = plan if self._layers else self._choose(plan)
        return self._plans[shape]

    def maps(
        self, images: Float[torch.Tensor, "batch channel height width"]
    ) -> Float[torch.Tensor, "batch channel h w"]:
        """The last layer's maps alone: one forward pass, no gradients; float32 at least."""
        return self.values(images)[1][-1]

    def values(
        self, images: Float[torch.Tensor, "batch channel height width"]
    ) -> tuple[Float[torch.Tensor, "batch class *pixels"], list[Float[torch.Tensor, "batch _channel _h _w"]]]:
        """The logits and every layer's maps: one forward pass, no gradients; float32 at least."""
        from ..layers.capture import capture_layers

        logits, activations = capture_layers(self.model, self.plan(images), images, gradients=False)
        return wide(logits.detach()), [wide(maps.detach()) for maps in activations]

    def __call__(
        self,
        images: Float[torch.Tensor, "batch channel height width"],
        targets: Int[torch.Tensor, " batch"],
        objects: Sequence[int | None] = (),
    ) -> tuple[Float[torch.Tensor, "batch class *pixels"], list[LayerMaps]]:
        """The logits, and every layer's maps and gradients, low to high; -1 stands for the predicted class.

        Args:
            images: In network-input space.
            targets: One class per image.
            objects: The targets again, where some are objects of a class (see `BatchMethod.objects`).
        """
        from ..layers.capture import capture_layers

        with torch.inference_mode(False), torch.enable_grad():
            logits, activations = capture_layers(self.model, self.plan(images), images)
            if logits.ndim in (2, 4):
                targets = predicted_where_negative(targets, logits.detach())
            score = target_logits(logits, targets, SEGMENTATION.object_scenes(logits, objects))
            gradients = torch.autograd.grad(
                score.sum(), activations, allow_unused=True, materialize_grads=True
            )  # a row's gradient is its own: no image of a batch reaches another's logits
        return wide(logits.detach()), [
            LayerMaps(wide(maps.detach()), wide(gradient))
            for maps, gradient in zip(activations, gradients, strict=True)
        ]


def target_logits(
    logits: Float[torch.Tensor, "batch class *pixels"],
    targets: Int[torch.Tensor, " batch"],
    scenes: Int[torch.Tensor, "batch height width"] | None = None,
) -> Float[torch.Tensor, " batch"]:
    """The logit of each row's target, float32 at least; of a dense model its mean over the target's mask, which carries no gradient.

    Args:
        logits: Of a classifier, or of a dense model.
        targets: One class per row.
        scenes: Of dense models, the class of every pixel of the unmasked images; None: as these logits have it.

    Raises:
        ModelError: When the model does not return one row of logits per image.
    """
    if logits.ndim == 4 and len(logits) == len(targets):
        return mean_in_mask(wide(logits), targets.to(logits.device), scenes)
    if logits.ndim != 2 or len(logits) != len(targets):
        raise ModelError(
            f"the model returns {tuple(logits.shape)} for {len(targets)} images; the method needs (batch, class) logits"
        )
    return wide(logits.gather(1, targets.to(logits.device)[:, None])[:, 0])


def predicted_where_negative(
    targets: Int[torch.Tensor, " batch"], logits: Float[torch.Tensor, "batch class *pixels"]
) -> Int[torch.Tensor, " batch"]:
    """The targets, in the place of -1 the class with the largest logit, of a dense model with the largest area."""
    if logits.ndim == 2:
        return torch.where(targets < 0, logits.argmax(dim=1), targets)
    return torch.where(targets < 0, predicted(logits, SEGMENTATION), targets)
