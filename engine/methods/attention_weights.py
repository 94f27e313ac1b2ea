"""What the class token takes from every token in one self-attention: found in torch's own module and in timm's, checked against it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float

from ...errors import ModelError
from ..layers.outputs import wide
from ..lazy_torch import F, nn, torch

TOLERANCE = 0.05
"""Relative difference between a module's output and what is recomputed; half precision needs it, another formula exceeds it."""


@dataclass(frozen=True, eq=False)
class ClassAttention:
    """Of one block for a batch of images."""

    weights: Float[torch.Tensor, "batch head token"]
    """a_b: attention of the class token's query, softmaxed."""
    values: Float[torch.Tensor, "batch head token channel"]
    """V_b."""

    def parts(self) -> Float[torch.Tensor, "batch token width"]:
        """S_b (eq. 7): what every token gives to the class token, heads side by side. Over tokens it adds up to T_b."""
        taken = self.weights[..., None] * self.values
        return taken.transpose(1, 2).flatten(2)

    def total(self) -> Float[torch.Tensor, "batch width"]:
        """T_b, the class token's input to the output projection, as the sum of S_b over tokens."""
        return torch.einsum("bhn,bhnd->bhd", self.weights, self.values).flatten(1)

    def weighed(self, channels: Float[torch.Tensor, "batch width"]) -> Float[torch.Tensor, "batch token"]:
        """sum_d C_d S_b[n, d], without S_b in memory."""
        split = channels.unflatten(1, (self.values.shape[1], self.values.shape[3]))
        return torch.einsum("bhn,bhnd,bhd->bn", self.weights, self.values, split)


def attentions(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Self-attention modules whose formula is known, by path."""
    for name, module in model.named_modules():
        if is_packed(module) or is_fused(module):
            yield name, module


def is_packed(module: nn.Module) -> bool:
    """Whether it is torch's, with one weight for queries, keys and values."""
    return isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None


def is_fused(module: nn.Module) -> bool:
    """Whether it is built as timm's: one linear layer for queries, keys and values, and an output projection."""
    linear = (getattr(module, name, None) for name in ("qkv", "proj"))
    return all(isinstance(projection, nn.Linear) for projection in linear) and isinstance(
        getattr(module, "num_heads", None), int
    )


def projection(module: nn.Module) -> nn.Linear:
    """The output projection."""
    return module.out_proj if isinstance(module, nn.MultiheadAttention) else module.proj  # pyright: ignore[reportReturnType]


def class_attention_of(module: nn.Module, tokens: Float[torch.Tensor, "batch token channel"]) -> ClassAttention:
    """Recompute the class token's attention from the module's input."""
    attention: Any = module
    if isinstance(module, nn.MultiheadAttention):
        packed = F.linear(tokens.to(attention.in_proj_weight.dtype), attention.in_proj_weight, attention.in_proj_bias)
    else:
        packed = attention.qkv(tokens.to(attention.qkv.weight.dtype))
    queries, keys, values = packed.unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    queries = queries[:, :, :1]
    if not isinstance(module, nn.MultiheadAttention):
        queries, keys = (
            norm(part) if isinstance(norm := getattr(attention, name, None), nn.Module) else part
            for name, part in (("q_norm", queries), ("k_norm", keys))
        )
    scale = getattr(attention, "scale", None)
    factor = scale if isinstance(scale, float) else queries.shape[-1] ** -0.5
    scores = wide(queries * factor) @ wide(keys).transpose(2, 3)
    return ClassAttention(scores.softmax(dim=3)[:, :, 0], wide(values))


def check(
    name: str, module: nn.Module, weights: ClassAttention, output: Float[torch.Tensor, "batch token width"]
) -> None:
    """The identity sum_n S_b = T_b, where it can be seen: behind the projection.

    Raises:
        ModelError: When the module puts out something else for the class token (a mask, a bias, a gate).
    """
    total = weights.total()
    again, there = wide(F.linear(total.to(projection(module).weight.dtype), projection(module).weight, projection(module).bias)), wide(output[:, 0])  # fmt: skip
    finite = there.isfinite().all(dim=1)
    if bool(((again - there).norm(dim=1) > TOLERANCE * there.norm(dim=1) + 1e-6)[finite].any()):
        raise ModelError(
            f"the attention of block {name!r} is computed in a way that DAAM does not know (a mask, a position bias, "
            "a gate?); use a method that reads no attention, such as integrated_gradients, occlusion or fovex"
        )
