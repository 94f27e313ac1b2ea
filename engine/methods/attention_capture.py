"""One differentiable forward of a vision transformer that keeps, for every block, what goes into its attention and what comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float

from ...errors import ModelError
from ..layers.outputs import logits_of
from ..lazy_torch import nn, torch
from .attention_weights import attentions

CLASS_TOKENS = ("class_token", "cls_token")
NEEDS = "DAAM needs a vision transformer with a class token whose blocks are torch.nn.MultiheadAttention or timm's Attention"


@dataclass(eq=False)
class Block:
    """One self-attention as it ran."""

    name: str
    module: nn.Module
    tokens: Float[torch.Tensor, "batch token channel"]
    output: Float[torch.Tensor, "batch token channel"]
    """With its graph."""


@dataclass(eq=False)
class AttentionRun:
    """A forward pass."""

    blocks: list[Block] = field(default_factory=list)
    grid: tuple[int, int] = (0, 0)
    """Patches along height and width: the size of the last convolution's output before the first block."""

    def gradients(
        self, of: torch.Tensor, weights: torch.Tensor | None = None
    ) -> tuple[Float[torch.Tensor, "batch token channel"], ...]:
        """Of one number, or of a tensor with a weight for each entry, at every block's output."""
        return torch.autograd.grad(
            of, [block.output for block in self.blocks], weights, allow_unused=True, materialize_grads=True
        )


def check_transformer(model: nn.Module) -> None:
    """Refuse a model that has no blocks to read or no class token.

    Raises:
        ModelError: Saying which.
    """
    if not any(True for _ in attentions(model)):
        raise ModelError(f"the model has no self-attention that can be read; {NEEDS}")
    if not any(name.rpartition(".")[2] in CLASS_TOKENS for name, _ in model.named_parameters()):
        raise ModelError(f"the model has no class token; {NEEDS}")


def run_attention(
    model: nn.Module,
    images: Float[torch.Tensor, "batch channel height width"],
    forward: Callable[[torch.Tensor], Any] | None = None,
) -> tuple[Float[torch.Tensor, "batch class"], AttentionRun]:
    """Run the model, in a context that records gradients.

    The first block's output starts the graph anew: nothing below it is asked for.

    Args:
        model: Whose attention is kept.
        images: Network input.
        forward: What is called; the model itself unless given.

    Raises:
        ModelError: When tokens are not one sequence per image, the class token first and then the patches.
    """
    run = AttentionRun()
    with _hooked(model, run):
        logits = logits_of((forward or model)(images))
    patches = run.grid[0] * run.grid[1]
    for block in run.blocks:
        if block.tokens.ndim != 3 or len(block.tokens) != len(images):
            raise ModelError(f"attention {block.name!r} reads windows, not one sequence of tokens per image; {NEEDS}")
        if not 0 < patches < block.tokens.shape[1]:
            raise ModelError(
                f"attention {block.name!r} reads {block.tokens.shape[1]} tokens for {patches} patches, not a "
                f"class token and these; {NEEDS}"
            )
    if not run.blocks:
        raise ModelError(f"no self-attention ran; {NEEDS}")
    return logits, run


@contextmanager
def _hooked(model: nn.Module, run: AttentionRun) -> Iterator[None]:
    handles = []
    try:
        for name, module in attentions(model):
            handles.append(module.register_forward_hook(_keeper(name, run), with_kwargs=True))
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                handles.append(module.register_forward_hook(_measurer(run)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _keeper(name: str, run: AttentionRun) -> Any:
    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        if isinstance(module, nn.MultiheadAttention) and not module.batch_first:
            raise ModelError(f"attention {name!r} keeps tokens before images (batch_first=False); {NEEDS}")
        tokens = args[0] if args else kwargs["query" if isinstance(module, nn.MultiheadAttention) else "x"]
        whole = output[0] if isinstance(output, tuple) else output
        if not run.blocks or not whole.requires_grad:
            whole = whole.detach().requires_grad_()
        run.blocks.append(Block(name, module, tokens.detach(), whole))
        return (whole.clone(), *output[1:]) if isinstance(output, tuple) else whole.clone()

    return hook


def _measurer(run: AttentionRun) -> Any:
    def hook(module: nn.Module, args: Any, output: Any) -> None:
        if not run.blocks and isinstance(output, torch.Tensor) and output.ndim == 4:
            run.grid = (output.shape[2], output.shape[3])

    return hook
