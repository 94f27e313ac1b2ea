"""Expected Gradients (Erion et al., Nature Machine Intelligence 2021, arXiv 1906.10670): integrated gradients over drawn references.

The mean over draws of (x - x') times the gradient of the target's logit at x' + a (x - x'), the reference x' drawn from a background and a
uniform in [0, 1]. Over pixels it adds up to the logit of x less the mean logit of the background, as the draws grow many.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

from jaxtyping import Float, Int

from ..fill import baseline_of
from ..fill_kinds import BASELINES
from ..layers.outputs import logits_of, wide
from ..lazy_torch import torch
from ..random import sample_generator
from .batch_method import BatchMethod, MethodMaps
from .layer_gradients import target_logits
from .normalise import over_max
from .passes import differentiable, plain
from .protocol import Cost, method, require, require_one_of, setting
from .straight_path import path_gradient


def cost(settings: Any) -> Cost:
    """A forward and a backward for every draw."""
    return Cost(settings.samples, settings.samples)


@method(
    name="expected_gradients",
    summary="integrated gradients from references that are drawn from a background",
    source="Erion et al., Nature Machine Intelligence 2021, arXiv 1906.10670",
    completed="without a background of images, references are the image's own zero, mean and blur",
    architecture="any",
    cost=cost,
    gradients=True,
    signed=True,
    resolution="input",
    stochastic=True,
    dense=True,
    files=("references",),
)
class ExpectedGradients(BatchMethod):
    """The expectation of integrated gradients over references, one draw of reference and place at a time."""

    samples: int = setting(default=32, text="draws, at least 1: forwards and backwards per image")
    references: str | None = setting(
        default=None,
        text="safetensors file with a tensor `references` (row, channel, height, width) in network-input space; "
        "without it the image's zero, mean and blur",
    )
    sign: Literal["positive", "absolute"] = setting(
        default="positive", text="what of the signed map is kept: positive (evidence for) or absolute"
    )
    seed: int = setting(default=0, text="of the draws")

    def check(self) -> None:
        require(self.samples >= 1, f"samples must be at least 1, got {self.samples}")
        require_one_of("sign", self.sign, ("positive", "absolute"))

    def bind(self) -> None:
        _ = self.background

    @cached_property
    def background(self) -> torch.Tensor | None:
        """What references are drawn from; None for each image's own."""
        from ..stored_tensor import read_tensor

        return None if self.references is None else read_tensor(self.references, "references", axes=4)

    def attribution(
        self,
        images: Float[torch.Tensor, "batch channel height width"],
        targets: Int[torch.Tensor, " batch"],
        seeds: Sequence[int],
    ) -> Float[torch.Tensor, "batch height width"]:
        """Signed, summed over channels."""
        generators = [sample_generator(self.seed, seed, "expected gradients") for seed in seeds]
        scenes = self.scenes(images)

        def score(point: torch.Tensor) -> torch.Tensor:
            return target_logits(logits_of(self.model(point)), targets, scenes)

        with differentiable(self.model):
            images = plain(images)
            total = wide(torch.zeros_like(images))
            for _ in range(self.samples):
                references = self._drawn(images, generators)
                places = torch.stack([torch.rand((), generator=generator) for generator in generators])
                way, shares = images - references, places.to(images)[:, None, None, None]
                total += path_gradient(score, references, way, shares)[0] * way
        return total.sum(dim=1).detach() / self.samples

    def maps(
        self,
        images: Float[torch.Tensor, "batch channel height width"],
        targets: Int[torch.Tensor, " batch"],
        seeds: Sequence[int],
    ) -> MethodMaps:
        """Positive part, or absolute values, over the maximum."""
        signed = self.attribution(images, targets, seeds)
        return MethodMaps(
            over_max(signed.relu() if self.sign == "positive" else signed.abs()).float(),
            Cost(self.samples + self.scene_forwards, self.samples),
        )

    def _drawn(self, images: torch.Tensor, generators: Sequence[torch.Generator]) -> torch.Tensor:
        """A reference for each image."""
        if self.background is None:
            kinds = torch.stack([baseline_of(images, kind) for kind in BASELINES], dim=1)
            chosen = [int(torch.randint(len(BASELINES), (), generator=generator)) for generator in generators]
            return kinds[torch.arange(len(images), device=images.device), torch.tensor(chosen, device=images.device)]
        require(
            self.background.shape[1:] == images.shape[1:],
            f"references are {tuple(self.background.shape[1:])} each, images {tuple(images.shape[1:])}",
        )
        rows = [int(torch.randint(len(self.background), (), generator=generator)) for generator in generators]
        return self.background[rows].to(images)
