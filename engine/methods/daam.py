"""DAAM, Dynamic Accumulated Attention Map, for vision transformers with a class token (Liao et al., arXiv 2503.14640).

Every block's attention hands the class token a sum over tokens; weighed by the positive gradient of the target's logit it says
what each patch gave to the class in that block, and over the blocks it adds up. Equation numbers as in the specification.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import ModelError
from .attention_capture import NEEDS, AttentionRun, Block, check_transformer, run_attention
from .batch_settings import DaamSettings
from .class_attention import check, class_attention, projection
from .layer_gradients import target_logits, wide
from .method import Cost, MethodMaps, method
from .passes import differentiable, plain
from .rectified import over_max, spread, upsampled

COST = Cost(forwards=1, backwards=1)


class Daam:
    """The supervised form; the identity sum_n S_b = T_b is checked on the first batch.

    Raises:
        ModelError: When the model is no vision transformer that it can read.
    """

    def __init__(self, model: nn.Module, settings: DaamSettings):
        check_transformer(model)
        self._model = model
        self._settings = settings
        self._checked = False

    def explain(
        self,
        images: Float[Tensor, "batch channel height width"],
        targets: Int[Tensor, " batch"],
        seeds: Sequence[int],
    ) -> MethodMaps:
        """The accumulated map of the last block, and every block's own map; `seeds` are not used.

        Raises:
            ModelError: When the logits do not depend on the class token, or attention is computed in an unknown way.
        """
        with differentiable(self._model):
            logits, run = run_attention(self._model, plain(images))
            gradients = run.gradients(target_logits(logits, targets).sum())
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            if not self._checked:
                check_used(logits, gradients[-1])
            slopes = [slopes_of(block, one).relu() for block, one in zip(run.blocks, gradients, strict=True)]
            maps = block_maps(run, slopes, is_checked=self._checked)
            self._checked = self._checked or bool(logits.isfinite().all(dim=1).any())
            return finished(maps, (images.shape[2], images.shape[3]), self._settings)


def slopes_of(block: Block, gradient: Float[Tensor, "batch token channel"]) -> Float[Tensor, "batch width"]:
    """C_b (eq. 8), the gradient at the class token's input to the output projection, from that at its output."""
    return wide(gradient[:, 0]) @ wide(projection(block.module).weight)


def block_maps(
    run: AttentionRun, slopes: Sequence[Float[Tensor, "batch width"]], *, is_checked: bool
) -> Float[Tensor, "batch block h w"]:
    """L_b = relu(sum_d C_d S_b[n, d]) over patches (eq. 9), C as it is given.

    Raises:
        ModelError: When attention is computed in an unknown way, which is looked for unless it was before.
    """
    maps = []
    for block, one in zip(run.blocks, slopes, strict=True):
        found = class_attention(block.module, block.tokens)
        if not is_checked:
            check(block.name, block.module, found, block.output)
        patches = found.weighed(one)[:, -run.grid[0] * run.grid[1] :]
        maps.append(patches.relu().unflatten(1, run.grid))
    return torch.stack(maps, dim=1)


def finished(maps: Float[Tensor, "batch block h w"], size: tuple[int, int], settings: DaamSettings) -> MethodMaps:
    """The accumulated map, and the blocks' own over its maximum, so that they stay comparable and in [0, 1]."""
    high = maps.sum(dim=1).amax(dim=(1, 2))[:, None, None, None]
    scaled = maps / torch.where(high == 0, 1, high)
    return MethodMaps(accumulated(maps, size, settings), COST, {"block_maps": scaled.float()})


def accumulated(
    maps: Float[Tensor, "batch block h w"], size: tuple[int, int], settings: DaamSettings
) -> Float[Tensor, "batch height width"]:
    """The sum over blocks (eqs. 11, 12) at the image's size, over its maximum or rendered."""
    if settings.norm_per_block:
        maps = over_max(maps.flatten(0, 1)).unflatten(0, maps.shape[:2])
    total = maps.sum(dim=1)
    if settings.rendering:
        return upsampled(spread((5 * over_max(total)).sigmoid() - 0.5), size).float()
    return over_max(upsampled(total, size)).float()


def check_used(logits: Float[Tensor, "batch class"], last: Float[Tensor, "batch token channel"]) -> None:
    """Refuse a model that classifies by its patches.

    Raises:
        ModelError: When no finite row's logit changes with the last block's class token.
    """
    finite = logits.detach().isfinite().all(dim=1)
    if bool(finite.any()) and not bool(last[finite, 0].any()):
        raise ModelError(
            f"the logits do not depend on the class token (the model averages its patches, perhaps); {NEEDS}"
        )


@method(
    name="daam",
    summary="what every patch gives to the class token, block by block, added up",
    source="Liao et al., arXiv 2503.14640, eqs. 7-12",
    architecture="vit",
    settings=DaamSettings,
    cost=lambda settings: COST,
    gradients=True,
    signed=True,
    resolution="patch",
    extras={"block_maps": "map of every block at the patches' resolution, over the maximum of their sum"},
)
def build(model: nn.Module, settings: DaamSettings) -> Daam:
    return Daam(model, settings)
