"""Explainer network: a network, trained once for a frozen classifier, takes a layer apart into object parts and rebuilds the features from them.

Zhang, Yang, Liu, Wu, Zhu, arXiv 1805.07468. Only abstracts and first pages are public, beside the same group's ICNN code, so the template and the
filter loss are theirs and much else is completed. Ours: the class map and contributions (gradient of the rebuilt logit times what parts give, to first order),
decoders for networks without hidden fully connected layers, the preset `robust` with its weights and schedule, channels of both signs, 32 filters told
of. `explainer:paper` keeps to what is known, and no number of the paper could be checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from functools import cached_property
from typing import TYPE_CHECKING

from jaxtyping import Float, Int

from ...errors import ModelError
from ..lazy_torch import torch
from .batch_method import BatchMethod, MethodMaps
from .normalise import spread, upsampled
from .protocol import Cost, method

if TYPE_CHECKING:
    from ..training.model_split import ModelSplit
    from ..training.part_network import PartNetwork
    from ..training.trained_parts import TrainedParts

COST = Cost(1)


@method(
    name="explainer_network",
    summary="a trained network that takes a layer apart into object parts: where each is, how strong, what it gives; needs heatlas train",
    source="Zhang et al., arXiv 1805.07468",
    status="partial",
    completed="class map and contributions; decoders without hidden layers; preset robust; norm statistics; layers of both signs",
    architecture="cnn",
    cost=lambda settings: COST,
    trained=True,
    extras={
        "part_x": "where each part is, share of the width; NaN: not seen. The filters' numbers stand in the explainer's facts",
        "part_y": "where each part is, share of the height; NaN: not seen",
        "part_strength": "peak of the part's filter over its mean activation",
        "part_contribution": "what the part gives to the class's rebuilt logit, to first order",
        "n_parts": "filters, of all, with a strength above 1",
        "part_share": "share of the parts in what speaks for or against the class, in [0, 1]; the rest is no part's",
        "explainer_r": "squared error of the rebuilt features over their mean square: large where an image's parts are unknown",
        "explainer_p": "p, the share of features that passes through parts; the same in every row",
    },
)
class ExplainerNetwork(BatchMethod):
    """The explainer network (Zhang et al., arXiv 1805.07468)."""

    reads_logits = True

    trained: TrainedParts | None = field(default=None)
    """From `heatlas train`; nothing can be explained without."""

    @cached_property
    def _networks(self) -> dict[torch.Size, tuple[PartNetwork, ModelSplit]]:
        return {}

    def maps(
        self,
        images: Float[torch.Tensor, "batch channel height width"],
        targets: Int[torch.Tensor, " batch"],
        seeds: Sequence[int],
    ) -> MethodMaps:
        """Class maps and parts; `seeds` are not used."""
        from ..training.part_readout import read_parts

        if self.trained is None:
            raise ModelError(
                "method explainer_network needs a trained explainer: make one with `heatlas train explainer_network`, name it with --explainer"
            )
        if images.shape[1:] not in self._networks:
            self._networks[images.shape[1:]] = self.trained.over(self.model, images[0])
        network, split = self._networks[images.shape[1:]]
        read = read_parts(network, split, images, targets, self.trained.norm_tensor(images.device))
        kept = list(self.trained.parts)
        extras = {
            "part_x": read.x[:, kept], "part_y": read.y[:, kept], "part_strength": read.strength[:, kept],
            "part_contribution": read.contribution[:, kept], "n_parts": (read.strength > 1).sum(dim=1).float(),
            "part_share": read.part_share, "explainer_r": read.error,
            "explainer_p": network.encoder.weight.sigmoid().expand(len(images)),
        }  # fmt: skip
        maps = spread(upsampled(read.maps, (images.shape[2], images.shape[3]))).float()
        return MethodMaps(maps, COST, {name: value.detach().float() for name, value in extras.items()}, read.logits)

    def extra_shapes(self, image: Float[torch.Tensor, "channel height width"]) -> dict[str, tuple[int, ...]]:
        """One number, or one for each filter that is told of."""
        count = len(self.trained.parts) if self.trained is not None else 0
        return {
            name: (count,) if name.startswith("part_") and name != "part_share" else () for name in self.declared.extras
        }
