"""Feature CAM (Clement, Yang, Cheng 2024, arXiv 2403.05658): a CAM times the image's edges, so that outlines stand out.

Public text gives the ingredients (Grad-CAM, HED's edges E, three inputs of which one is the image x and one is enhanced by its edges), not
how they are put together. What is here, S_j the min-maxed CAM of input x_j for the class that x shows and w_j its share of the confidences:

- `edges` (default): S_1 * E. `soft`: S_1 * (0.3 + 0.7 E), which keeps flat but important regions. `fused`: (sum_j w_j S_j) * E with
  x_1 = x, x_2 = x + 0.5 E clipped to [0, 1], x_3 = E as a grey image (`third=masked`: x * E). All are min-maxed. The paper's overlay x * S_1 * E is
  drawn by `heatlas show --edges`.
- `edges_only`: E alone, which knows no model. **It is the chance baseline of this method**: a number of a map above has to beat it.

E does not depend on the model or the class, so a map keeps its outlines when the model's weights are drawn anew: the randomised-model
check (`--sanity`) finds it more like itself than the CAM is. The method is made to be looked at; consensus and curation refuse it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from functools import cached_property
from typing import Any, Literal

from jaxtyping import Float, Int

from ...errors import ModelError
from ..lazy_torch import torch
from ..scoring.confidence import softmax_probability
from .batch_method import BatchMethod, MethodMaps, predicted_where_negative
from .cams import CAMS, LAYER_TEXT, Cam
from .normalise import positive_part, spread
from .passes import logits_without_graph, plain
from .protocol import Cost, method, require, require_one_of, setting

VARIANTS = ("edges", "fused", "soft", "edges_only")
KEPT = 0.3
"""Of a pixel without an edge, in `soft`."""
LIFTED = 0.5
"""Of the edges that are added to the image, in `fused`."""
LEAST_RANGE = 1e-8


def cost(settings: Any) -> Cost:
    """One CAM, or three; edges alone need the forward that finds the class."""
    return {"fused": Cost(3, 3), "edges_only": Cost(1)}.get(settings.variant, Cost(1, 1))


@method(
    name="feature_cam",
    summary="a CAM times the image's edges: outlines for the eye, no number to rely on",
    source="Clement et al. 2024, arXiv 2403.05658",
    status="partial",
    completed="how map, edges and the three inputs are combined; edges by Scharr or Canny in the place of HED",
    architecture="cnn",
    cost=cost,
    gradients=True,
    signed=True,
    resolution="input",
    for_display=True,
    colours=True,
    files=("hed_weights",),
)
class FeatureCAM(BatchMethod):
    """A CAM times edges."""

    reads_logits = True

    variant: Literal["edges", "fused", "soft", "edges_only"] = setting(
        default="edges",
        text="edges, fused (three inputs), soft (edges weigh 70 %) or edges_only (no model: the baseline)",
    )
    edges: Literal["hed", "sobel", "canny"] = setting(
        default="hed",
        text="where edges come from: hed, which needs `hed_weights`, sobel (Scharr's 3 x 3) or canny (thin lines)",
    )
    hed_weights: str | None = setting(
        default=None, text="file with HED's weights: safetensors, or a state dict of torch.save"
    )
    base: Literal["grad_cam", "grad_cam_pp", "layer_cam"] = setting(
        default="grad_cam", text="the CAM: grad_cam, grad_cam_pp or layer_cam"
    )
    layer: str | None = setting(default=None, text=LAYER_TEXT)
    third: Literal["edges", "masked"] = setting(
        default="edges", text="third input of fused: the edges as an image, or the image times its edges (masked)"
    )
    mean: tuple[float, ...] = field(default=(0.485, 0.456, 0.406))
    """What was subtracted from each channel of the image in [0, 1]; a run knows its own."""
    std: tuple[float, ...] = field(default=(0.229, 0.224, 0.225))
    """What it was divided by."""

    def check(self) -> None:
        require_one_of("variant", self.variant, VARIANTS)
        require_one_of("edges", self.edges, ("hed", "sobel", "canny"))
        require_one_of("base", self.base, tuple(CAMS))
        require_one_of("third", self.third, ("edges", "masked"))
        require(
            self.hed_weights is None or self.edges == "hed",
            f"hed_weights has no effect with edges={self.edges}; leave one out",
        )

    def bind(self) -> None:
        if self.edges == "hed" and self.hed_weights is None:
            raise ModelError(
                "feature_cam needs the weights of HED, which heatlas does not bring: name their file "
                "(--feature-cam.hed-weights FILE), or take --feature-cam.edges sobel"
            )
        _ = self.edge_source

    @cached_property
    def edge_source(self) -> Any:
        """Of RGB images in [0, 1] the edges in [0, 1]."""
        from ..edges.edge_map import NAMED, hed_edges

        return NAMED[self.edges] if self.hed_weights is None else hed_edges(self.hed_weights)

    @cached_property
    def source(self) -> Cam:
        """Makes the CAMs."""
        return CAMS[self.base](self.model, layer=self.layer)

    def maps(
        self,
        images: Float[torch.Tensor, "batch channel height width"],
        targets: Int[torch.Tensor, " batch"],
        seeds: Sequence[int],
    ) -> MethodMaps:
        """The map in [0, 1]; `seeds` are not used."""
        images = plain(images)
        mean, std = (self._per_channel(values, images) for values in (self.mean, self.std))
        seen = (images * std + mean).clamp(0, 1)
        edges = self.edge_source(seen.expand(-1, 3, -1, -1) if images.shape[1] == 1 else seen)
        if self.variant == "edges_only":
            return MethodMaps(spread_wide(edges), cost(self), logits=logits_without_graph(self.model, images))
        first, logits = self._cam(images, targets)
        if self.variant == "soft":
            return MethodMaps(spread_wide(first * (KEPT + (1 - KEPT) * edges)), cost(self), logits=logits)
        if self.variant == "fused":
            targets = predicted_where_negative(targets, logits)
            others = [(seen + LIFTED * edges[:, None]).clamp(0, 1)]
            others.append(seen * edges[:, None] if self.third == "masked" else edges[:, None].expand_as(seen))
            cams = [(first, logits), *(self._cam((other - mean) / std, targets) for other in others)]
            weights = torch.stack([softmax_probability(output, targets) for _, output in cams])
            weights = weights / weights.sum(dim=0)
            first = sum(share[:, None, None] * each for share, (each, _) in zip(weights.float(), cams, strict=True))
        return MethodMaps(spread_wide(first * edges), cost(self), logits=logits)

    def _cam(self, images: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        raw = self.source.raw(images, targets)
        return spread(positive_part(raw.maps, (images.shape[2], images.shape[3]))), raw.logits

    def _per_channel(self, values: tuple[float, ...], images: torch.Tensor) -> torch.Tensor:
        require(
            len(values) == images.shape[1],
            f"mean and std must be one number for each of the {images.shape[1]} channels, got {len(values)}",
        )
        return torch.tensor(values, device=images.device, dtype=images.dtype)[:, None, None]


def spread_wide(maps: Float[torch.Tensor, "batch height width"]) -> Float[torch.Tensor, "batch height width"]:
    """Min-maxed; zeros where the range is below 1e-8."""
    ranges = maps.amax(dim=(1, 2), keepdim=True) - maps.amin(dim=(1, 2), keepdim=True)
    return torch.where(ranges < LEAST_RANGE, 0 * maps, spread(maps)).float()
