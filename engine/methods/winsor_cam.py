"""Winsor-CAM (Wall, Wang, Rizk, Santosh, TPAMI 2026, arXiv 2507.10846): Grad-CAMs of every convolution, outlying layers reined in.

Each layer's Grad-CAM is min-maxed and weighed by the layer's importance: the mean over filters of the mean gradient, its positive part. Of the
importances above 0 those beyond the percentile are set to it (winsorised), all are stretched to [0.1, 1], and the weighed maps are
added. At percentile 0 every such layer counts alike; at 100 the importances stand as they are. As the authors' released code has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

from jaxtyping import Float, Int

from ..layers.block_plan import BlockPlan
from ..lazy_torch import nn, torch
from .batch_method import BatchMethod, MethodMaps
from .cams import COST, GradCAM
from .layer_gradients import LayerGradients
from .normalise import spread, upsampled
from .protocol import method, require, require_one_of, setting

LEAST_WEIGHT = 0.1
"""Of a layer whose importance is above 0."""


@method(
    name="winsor_cam",
    summary="Grad-CAMs of all convolutions, each weighed by its layer's winsorised importance",
    source="Wall et al., TPAMI 2026, arXiv 2507.10846, as its code has it",
    status="code",
    completed="convolutions whose maps are of one cell (squeeze-and-excitation) are left out",
    architecture="cnn",
    cost=lambda settings: COST,
    gradients=True,
    signed=True,
    dense=True,
)
class WinsorCAM(BatchMethod):
    """A weighed sum of several layers' Grad-CAMs, all of one forward and one backward pass."""

    reads_logits = True

    percentile: float = setting(
        default=90.0, text="of the layers' importances, in [0, 100], beyond which they are set to it; 0: all alike"
    )
    importance: Literal["mean", "max"] = setting(
        default="mean", text="a layer's importance: the mean, or the max, over filters of their mean gradients"
    )
    layers: tuple[str, ...] | None = setting(
        default=None, text="layers to add up; every convolution with more than one cell unless named"
    )

    def check(self) -> None:
        require(0 <= self.percentile <= 100, f"percentile must be in [0, 100], got {self.percentile}")
        require_one_of("importance", self.importance, ("mean", "max"))
        require(self.layers is None or len(self.layers) > 0, "layers must name at least one layer, or be left out")

    @cached_property
    def _gradients(self) -> dict[torch.Size, LayerGradients]:
        return {}

    def gradients(self, images: Float[torch.Tensor, "batch channel height width"]) -> LayerGradients:
        """Reads the layers of images of this shape.

        Raises:
            NoBlocksError: When no layer is named and the model is not convolutional: a transformer's only convolution makes its patches.
        """
        from ..layers.blocks import block_layers

        shape = images.shape[1:]
        if shape not in self._gradients:
            if self.layers is None:
                block_layers(self.model, images[:1])
            self._gradients[shape] = LayerGradients(
                self.model, self.layers or wide_convolutions(self.model, images[:1]), every_layer
            )
        return self._gradients[shape]

    def maps(
        self,
        images: Float[torch.Tensor, "batch channel height width"],
        targets: Int[torch.Tensor, " batch"],
        seeds: Sequence[int],
    ) -> MethodMaps:
        """The sum, min-maxed; `seeds` are not used."""
        size = (images.shape[2], images.shape[3])
        logits, layers = self.gradients(images)(images, targets, self.objects)
        cams = torch.stack([upsampled(spread(GradCAM.weigh(layer).relu().double()), size) for layer in layers], dim=1)
        alphas = [layer.gradients.mean(dim=(2, 3)).double() for layer in layers]
        reduced = [each.mean(dim=1) if self.importance == "mean" else each.amax(dim=1) for each in alphas]
        weights = winsorised(torch.stack(reduced, dim=1).relu(), self.percentile)
        return MethodMaps(spread((weights[:, :, None, None] * cams).sum(dim=1)).float(), COST, logits=logits)


def winsorised(
    importances: Float[torch.Tensor, "batch layer"], percentile: float
) -> Float[torch.Tensor, "batch layer"]:
    """Weights in [0.1, 1] of the layers with an importance above 0, and 0 of the others, each image on its own."""
    weights = torch.zeros_like(importances)
    for row, values in zip(weights, importances, strict=True):
        positive = values > 0
        if not bool(positive.any()):
            row += torch.where(values.isfinite(), 0, torch.nan).sum()
            continue
        if percentile == 0:
            row[positive] = 1.0
            continue
        kept = values[positive]
        kept = kept.clamp(max=kept.quantile(percentile / 100))
        low, high = kept.min(), kept.max()
        row[positive] = torch.where(
            high == low, 1.0, LEAST_WEIGHT + (1 - LEAST_WEIGHT) * (kept - low) / torch.where(high == low, 1, high - low)
        )
    return weights


def wide_convolutions(model: nn.Module, images: Float[torch.Tensor, "1 channel height width"]) -> list[str]:
    """Names of the convolutions that run and whose maps have more than one cell."""
    from ..layers.eval_mode import in_eval_mode

    wide: dict[str, None] = {}

    def noting(name: str) -> object:
        def hook(module: nn.Module, given: object, output: torch.Tensor) -> None:
            if output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
                wide[name] = None

        return hook

    handles = [
        module.register_forward_hook(noting(name))  # pyright: ignore[reportArgumentType]
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    try:
        with in_eval_mode(model), torch.no_grad():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return list(wide)


def every_layer(plan: BlockPlan) -> BlockPlan:
    """The plan as it is."""
    return plan
