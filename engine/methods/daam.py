"""DAAM, Dynamic Accumulated Attention Map, for vision transformers with a class token (Liao et al., arXiv 2503.14640).

Every block's attention hands the class token a sum over tokens; weighed by the positive gradient of the target's logit it says
what each patch gave to the class in that block, and over the blocks it adds up. Equation numbers as in the specification.

A self-supervised model is explained with a bank of labelled features (`heatlas bank`, setting `bank`) in the place of a classifier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from jaxtyping import Bool, Float, Int

from ...errors import ModelError
from ..layers.outputs import wide
from ..lazy_torch import F, nn, torch
from .attention_capture import NEEDS, AttentionRun, Block, check_transformer, run_attention
from .attention_weights import check, class_attention_of, projection
from .batch_method import BatchMethod, MethodMaps, predicted_where_negative
from .layer_gradients import target_logits
from .normalise import over_max, spread, upsampled
from .passes import differentiable, plain
from .protocol import Cost, method, setting

if TYPE_CHECKING:
    from ..features.feature_bank import FeatureBank

COST = Cost(forwards=1, backwards=1)


@method(
    name="daam",
    summary="what every patch gives to the class token, block by block, added up",
    source="Liao et al., arXiv 2503.14640, eqs. 7-12",
    status="code",
    completed="blocks checked to be what the module puts out; a batch is its images",
    architecture="vit",
    cost=lambda settings: COST,
    gradients=True,
    signed=True,
    resolution="patch",
    extras={"block_maps": "map of every block at the patches' resolution, over the maximum of their sum"},
)
class DAAM(BatchMethod):
    """The supervised form, and the self-supervised one where the model is a `BankClassifier`.

    The self-supervised C_b is the gradient of the feature weighed by the dimensions that the nearest entries of its class share. As in
    the released code the weights apply to the feature before it is normalised, and C_b is not rectified. An image none of whose
    nearest entries is of its target has a constant map. The identity sum_n S_b = T_b is checked on the first batch.
    """

    reads_logits = True

    norm_per_block: bool = setting(
        default=False, text="divide every block's map by its maximum before they are added up"
    )
    rendering: bool = setting(default=False, text="pass the map through sigmoid(5 x) - 0.5 as the authors' pictures do")

    def bind(self) -> None:
        check_transformer(self.network)

    @cached_property
    def bank(self) -> FeatureBank | None:
        """Labelled features in the place of a classifier."""
        from ..features.bank_classifier import BankClassifier

        return self.model.bank if isinstance(self.model, BankClassifier) else None

    @cached_property
    def network(self) -> nn.Module:
        """What is explained."""
        from ..features.bank_classifier import BankClassifier

        return self.model.model if isinstance(self.model, BankClassifier) else self.model

    @cached_property
    def is_checked(self) -> list[bool]:
        """Not empty once the model's attention is known to be what it seems."""
        return []

    def maps(
        self,
        images: Float[torch.Tensor, "batch channel height width"],
        targets: Int[torch.Tensor, " batch"],
        seeds: Sequence[int],
    ) -> MethodMaps:
        """The accumulated map of the last block, and every block's own map; `seeds` are not used.

        Raises:
            ModelError: When what the model says does not depend on the class token, or attention is computed in an unknown way.
        """
        with differentiable(self.network):
            if self.bank is None:
                read = read_logits(self.network, plain(images), targets)
            else:
                read = read_features(self.network, self.bank, plain(images), targets)
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            if not self.is_checked:
                check_used(read.asked, read.gradients[-1], "logits" if self.bank is None else "features")
            slopes = [slopes_of(block, slope) for block, slope in zip(read.run.blocks, read.gradients, strict=True)]
            if self.bank is None:
                slopes = [slope.relu() for slope in slopes]
            maps = block_maps(read.run, slopes, is_checked=bool(self.is_checked))
            if not self.is_checked and bool(read.asked.any()):
                self.is_checked.append(True)
            return replace(finished(maps, (images.shape[2], images.shape[3]), self), logits=read.logits)


@dataclass(frozen=True, eq=False)
class Read:
    """A forward and a backward pass over a batch."""

    run: AttentionRun
    gradients: tuple[Float[torch.Tensor, "batch token channel"], ...]
    """At every block's output."""
    logits: Float[torch.Tensor, "batch class"]
    asked: Bool[torch.Tensor, " batch"]
    """Rows whose gradient must reach the class token: finite ones of which something was asked."""


def read_logits(model: nn.Module, images: torch.Tensor, targets: Int[torch.Tensor, " batch"]) -> Read:
    """What the target's logit says, in a context that records gradients."""
    logits, run = run_attention(model, images)
    targets = predicted_where_negative(targets, logits.detach())
    gradients = run.gradients(target_logits(logits, targets).sum())
    return Read(run, gradients, wide(logits.detach()), logits.detach().isfinite().all(dim=1))


def read_features(
    model: nn.Module, bank: FeatureBank, images: torch.Tensor, targets: Int[torch.Tensor, " batch"]
) -> Read:
    """What the feature says in the dimensions that the target's nearest entries share, in a context that records gradients."""
    from ..features.image_features import features_of

    feature, run = run_attention(model, images, lambda batch: features_of(model, batch))
    unit = F.normalize(wide(feature.detach()), dim=1)
    logits = bank(unit)
    weights = bank.weights(unit, predicted_where_negative(targets, logits))
    gradients = run.gradients(feature, weights.to(feature))
    return Read(run, gradients, logits, feature.detach().isfinite().all(dim=1) & weights.any(dim=1))


def slopes_of(block: Block, gradient: Float[torch.Tensor, "batch token channel"]) -> Float[torch.Tensor, "batch width"]:
    """C_b (eq. 8), the gradient at the class token's input to the output projection, from that at its output."""
    return wide(gradient[:, 0]) @ wide(projection(block.module).weight)


def block_maps(
    run: AttentionRun, slopes: Sequence[Float[torch.Tensor, "batch width"]], *, is_checked: bool
) -> Float[torch.Tensor, "batch block h w"]:
    """L_b = relu(sum_d C_d S_b[n, d]) over patches (eq. 9), C as it is given.

    Raises:
        ModelError: When attention is computed in an unknown way, which is looked for unless it was before.
    """
    maps = []
    for block, slope in zip(run.blocks, slopes, strict=True):
        attention = class_attention_of(block.module, block.tokens)
        if not is_checked:
            check(block.name, block.module, attention, block.output)
        patches = attention.weighed(slope)[:, -run.grid[0] * run.grid[1] :]
        maps.append(patches.relu().unflatten(1, run.grid))
    return torch.stack(maps, dim=1)


def finished(maps: Float[torch.Tensor, "batch block h w"], size: tuple[int, int], settings: DAAM) -> MethodMaps:
    """The accumulated map, and the blocks' own over its maximum, so that they stay comparable and in [0, 1]."""
    high = maps.sum(dim=1).amax(dim=(1, 2))[:, None, None, None]
    scaled = maps / torch.where(high == 0, 1, high)
    return MethodMaps(accumulated(maps, size, settings), COST, {"block_maps": scaled.float()})


def accumulated(
    maps: Float[torch.Tensor, "batch block h w"], size: tuple[int, int], settings: DAAM
) -> Float[torch.Tensor, "batch height width"]:
    """The sum over blocks (eqs. 11, 12) at the image's size, over its maximum or rendered."""
    if settings.norm_per_block:
        maps = over_max(maps.flatten(0, 1)).unflatten(0, maps.shape[:2])
    total = maps.sum(dim=1)
    if settings.rendering:
        return upsampled(spread((5 * over_max(total)).sigmoid() - 0.5), size).float()
    return over_max(upsampled(total, size)).float()


def check_used(
    asked: Bool[torch.Tensor, " batch"], last: Float[torch.Tensor, "batch token channel"], what: str
) -> None:
    """Refuse a model that says what it says by its patches, or by another token.

    Args:
        asked: Rows to look at.
        last: Gradient at the last block's output.
        what: The model says, for the message.

    Raises:
        ModelError: When nothing that was asked changes with the last block's class token.
    """
    if bool(asked.any()) and not bool(last[asked, 0].any()):
        raise ModelError(
            f"the {what} do not depend on the class token: the model averages its patches, perhaps, or reads another token "
            f"(a distillation token, a register); {NEEDS}"
        )
