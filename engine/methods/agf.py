"""AGF, Attribution Guided Factorization (Gur, Ali, Wolf, AAAI 2021): signed evidence for and against a class, pixel by pixel.

Relevance starts at the last layer and is carried to the image by `relevance.rules`; at every convolution that is neither 1x1 nor at
the end of a residual branch a residual is added that a two-factor model of activations and of gradients makes. The definition
follows the authors' published code, re-implemented; departures, each with the code's own way as a setting where it has one:
values are divided by their largest absolute value (`norm`), and all maxima are each image's own.

A model without a classifier is explained with a feature bank (`heatlas bank`, setting `bank`): `variant=bank` asks what speaks for the mean of
the target's class among those of all classes (with `centres`, for the k-means centre that is most like the image), `variant=pair` what
makes the image and its nearest entry alike. Both are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from jaxtyping import Float, Int

from ...errors import ModelError
from ..layers.outputs import wide
from ..lazy_torch import F, nn, torch
from .batch_method import BatchMethod, MethodMaps
from .normalise import over_max
from .passes import plain
from .protocol import Cost, method, require, require_one_of, setting

if TYPE_CHECKING:
    from ..features.feature_bank import FeatureBank
    from ..relevance.walk import Start

TERMS = ("activation", "gradient", "input_gradient", "agnostic", "grad_cam")
COST = Cost(forwards=2, backwards=1)
"""Through the last layer. The rules pass every convolution three times forward and four times back, so it takes about as long as four of each."""


@method(
    name="agf",
    summary="signed evidence pixel by pixel, carried from the class to the image",
    source="Gur et al., AAAI 2021, as its code has it",
    status="code",
    completed="normalised by absolute maxima, each image's own; all of what explains models without a classifier",
    architecture="cnn",
    cost=lambda settings: COST,
    gradients=True,
    signed=True,
    resolution="input",
    extras={
        "prototype": "what there is evidence for: the target, or with a feature bank the centre, or of variant pair the entry's place in the bank"
    },
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

    variant: Literal["bank", "pair"] = setting(
        default="bank",
        text="with a feature bank (--bank): bank, evidence for the target's class, or pair, for what the image shares with its nearest entry",
    )
    centres: int = setting(
        default=0,
        text="variant bank: k-means centres of the bank's features in the place of its classes, 2 or more, the image's own the target; 0: classes",
    )

    def check(self) -> None:
        require_one_of("variant", self.variant, ("bank", "pair"))
        require(self.centres == 0 or self.centres >= 2, f"centres must be 0 or at least 2, got {self.centres}")
        require(self.centres == 0 or self.variant == "bank", "centres has no effect with variant=pair; leave one out")
        require_one_of("norm", self.norm, ("absolute", "max"))
        require_one_of("sign", self.sign, ("positive", "absolute"))
        for term in self.terms:
            require(term in TERMS, f"terms must be of {', '.join(TERMS)}, got {term!r}")

    def bind(self) -> None:
        from ..relevance.walk import check_walk

        if self.bank is None and (self.variant == "pair" or self.centres):
            raise ModelError(
                "variant=pair and centres compare an image with a feature bank: write one (heatlas bank) and name it (--bank FILE)"
            )
        check_walk(self.network, with_classifier=self.bank is None)
        _ = self.prototypes

    @cached_property
    def bank(self) -> FeatureBank | None:
        """Labelled features in the place of a classifier."""
        from ..features.bank_classifier import BankClassifier

        return self.model.bank if isinstance(self.model, BankClassifier) else None

    @property
    def network(self) -> nn.Module:
        """What relevance is carried through."""
        from ..features.bank_classifier import BankClassifier

        return self.model.model if isinstance(self.model, BankClassifier) else self.model

    @cached_property
    def prototypes(self) -> Any:
        """What features are compared with; None for a classifier."""
        if self.bank is None:
            return None
        from ..features.bank_prototypes import CentrePrototypes, ClassPrototypes, PairPrototypes

        if self.variant == "pair":
            return PairPrototypes(self.bank)
        return CentrePrototypes(self.bank, self.centres) if self.centres else ClassPrototypes(self.bank)

    def signed(
        self, images: Float[torch.Tensor, "batch channel height width"], targets: Int[torch.Tensor, " batch"]
    ) -> Float[torch.Tensor, "batch height width"]:
        """The signed map, in [-3, 3]: the sum over channels of relevance over its largest absolute value."""
        return self._walked(images, targets)[0]

    def maps(
        self,
        images: Float[torch.Tensor, "batch channel height width"],
        targets: Int[torch.Tensor, " batch"],
        seeds: Sequence[int],
    ) -> MethodMaps:
        """Positive part, or absolute values, over the maximum; `seeds` are not used."""
        signed, places = self._walked(images, targets)
        maps = over_max(signed.relu() if self.sign == "positive" else signed.abs()).float()
        return MethodMaps(maps, COST, {"prototype": places})

    def _walked(self, images: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The signed maps and what each has evidence for."""
        from ..relevance.rules import RuleOptions, unit_start
        from ..relevance.walk import class_start, signed_relevance

        options = RuleOptions(frozenset(self.terms), self.norm == "max")
        places = targets.float()

        def prototype_start(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            compared = self.prototypes.compare(F.normalize(features, dim=1), targets)
            places.copy_(compared.places)
            return unit_start(compared.logits, features, compared.targets, compared.known)

        with torch.inference_mode(False), torch.autocast(images.device.type, enabled=False):
            start: Start = prototype_start if self.bank is not None else class_start(self.model, targets)
            return signed_relevance(self.network, wide(plain(images)), options, start), places
