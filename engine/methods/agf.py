"""AGF, Attribution Guided Factorization (Gur, Ali, Wolf, AAAI 2021): signed evidence for and against a class, pixel by pixel.

Relevance starts at the last layer and is carried to the image by `relevance.rules`; at every convolution that is neither 1x1 nor at
the end of a residual branch a residual is added that a two-factor model of activations and of gradients makes. The definition
follows the authors' published code, re-implemented; departures, each with the code's own way as a setting where it has one:
values are divided by their largest absolute value (`norm`), and all maxima are each image's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float, Int

from ..lazy_torch import torch
from .batch_method import BatchMethod, MethodMaps
from .normalise import over_max
from .passes import plain
from .protocol import Cost, method, require, require_one_of, setting

TERMS = ("activation", "gradient", "input_gradient", "agnostic", "grad_cam")
COST = Cost(forwards=2, backwards=1)
"""Through the last layer. The rules pass every convolution three times forward and four times back, so it takes about as long as four of each."""


@method(
    name="agf",
    summary="signed evidence pixel by pixel, carried from the class to the image",
    source="Gur et al., AAAI 2021, as its code has it",
    status="code",
    completed="normalised by absolute maxima, each image's own",
    architecture="cnn",
    cost=lambda settings: COST,
    gradients=True,
    signed=True,
    resolution="input",
    images=4,
)
class AGF(BatchMethod):
    """Attribution Guided Factorization over VGG, ResNet, and what else torch.fx can walk."""

    norm: Literal["absolute", "max"] = setting(
        default="absolute",
        text="what values are divided by: their largest absolute value, or their maximum as released",
    )
    sign: Literal["positive", "absolute"] = setting(
        default="positive", text="what of the signed map is kept: positive (evidence for) or absolute"
    )
    terms: tuple[str, ...] = setting(
        default=TERMS[:4],
        text="residual terms of a convolution: activation (F_x), gradient (F_dx), input_gradient (M), agnostic (A), or grad_cam in place of F_x and M; "
        "`none` for relevance alone (LRP-0 on absolute values)",
    )

    def check(self) -> None:
        require_one_of("norm", self.norm, ("absolute", "max"))
        require_one_of("sign", self.sign, ("positive", "absolute"))
        for term in self.terms:
            require(term in TERMS, f"terms must be of {', '.join(TERMS)}, got {term!r}")

    def bind(self) -> None:
        from ..relevance.walk import check_walk

        check_walk(self.model)

    def signed(
        self, images: Float[torch.Tensor, "batch channel height width"], targets: Int[torch.Tensor, " batch"]
    ) -> Float[torch.Tensor, "batch height width"]:
        """The signed map, in [-3, 3]: the sum over channels of relevance over its largest absolute value."""
        from ..relevance.rules import RuleOptions
        from ..relevance.walk import signed_relevance

        options = RuleOptions(frozenset(self.terms), self.norm == "max")
        with torch.inference_mode(False), torch.autocast(images.device.type, enabled=False):
            return signed_relevance(self.model, plain(images).float(), targets, options)[0]

    def maps(
        self,
        images: Float[torch.Tensor, "batch channel height width"],
        targets: Int[torch.Tensor, " batch"],
        seeds: Sequence[int],
    ) -> MethodMaps:
        """Positive part, or absolute values, over the maximum; `seeds` are not used."""
        signed = self.signed(images, targets)
        return MethodMaps(over_max(signed.relu() if self.sign == "positive" else signed.abs()).float(), COST)
