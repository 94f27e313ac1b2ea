"""The forward that scores variants: the model itself, or on request a faster stand-in that gives the same logits.

Stand-ins: convolutions with their batch norms folded in, on a copy of the model; that copy compiled; that copy as a CUDA graph. Where
one is not possible a warning says why and scoring goes on without it. Weights are taken at the first forward.
"""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..layers.fx_trace import trace_of
from ..layers.outputs import logits_of
from .cuda_graph import RecordedForward
from .memory_errors import is_out_of_memory
from .scoring_options import ForwardKind

FOLDED_TOLERANCE = 1e-3
"""Largest difference of a logit, as a share of the largest logit, between a model and its folded copy; float32 needs 1e-5."""
RECORDED_TOLERANCE = 2e-2
"""As `FOLDED_TOLERANCE`, between a model and its CUDA graph, both of which may run in bfloat16 with other kernels."""
CHECKED_ROWS = 2


class StandInWarning(UserWarning):
    """A faster forward was asked for and is not possible."""


class ScoringForward:
    """Calls a model in eval mode, or what stands in for it.

    Args:
        model: The classifier; never changed.
        kind: Of `FORWARDS`: `eager` for the model as it is; `fold_bn` for a copy with batch norms folded into the convolutions before
            them; `compile` and `cuda_graph` for that copy, or the model where nothing can be folded, compiled or recorded for fixed shapes.
    """

    def __init__(self, model: nn.Module, kind: ForwardKind = "eager"):
        self.model = model
        self.kind: ForwardKind = kind
        self._chosen: Any = None

    def __call__(self, inputs: Tensor) -> Any:
        """The model's output for `inputs` `(batch, channel, height, width)`."""
        if self._chosen is None:
            return self._choose(inputs)
        return self._chosen(inputs)

    def _choose(self, inputs: Tensor) -> Any:
        """The first forward, which settles what stands in. Running out of memory is for the caller and settles nothing."""
        chosen = self._prepared(inputs[:CHECKED_ROWS])
        try:
            if self.kind == "compile":
                compiled: Any = torch.compile(chosen, dynamic=False)
                output = compiled(inputs)
                self._chosen = compiled
                return output
            if self.kind == "cuda_graph":
                recorded = RecordedForward(chosen)
                output = recorded(inputs)
                refuse_difference("recorded forward", output, logits_of(chosen(inputs)), RECORDED_TOLERANCE)
                self._chosen = recorded
                return output
        except Exception as error:
            fall_back(self.kind, error)
        self._chosen = chosen
        return chosen(inputs)

    def _prepared(self, example: Tensor) -> nn.Module:
        """The model, its batch norms folded and its weights cast once where that is wanted and possible."""
        prepared = self.model
        if self.kind != "eager":
            try:
                prepared = folded(self.model, example)
            except Exception as error:
                if self.kind == "fold_bn":
                    fall_back(self.kind, error)
                elif is_out_of_memory(error):
                    raise
        if example.device.type != "cpu" and torch.is_autocast_enabled(example.device.type):
            prepared = cast_once(prepared, example, torch.get_autocast_dtype(example.device.type))
        return prepared


def fall_back(setting: str, error: Exception) -> None:
    """Warn that a stand-in is not possible; running out of memory says nothing about that and goes to the caller."""
    if is_out_of_memory(error):
        raise error
    lines = str(error).strip().splitlines() or [""]
    warnings.warn(
        f"{setting} is not possible for this model here ({type(error).__name__}: {lines[0][:300]}); scoring goes on without it, "
        "only slower",
        StandInWarning,
        stacklevel=2,
    )


def folded(model: nn.Module, example: Tensor) -> nn.Module:
    """A copy of the model whose batch norms are part of the convolutions before them.

    Args:
        model: In eval mode.
        example: Inputs `(batch, channel, height, width)` on which the copy must agree with the model.

    Raises:
        ValueError: When `torch.fx` cannot follow the model, nothing can be folded, or the copy does not agree.
    """
    pairs = foldable(model)
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(example.device.type, enabled=False):
        twin = copy.deepcopy(model)
        for conv, norm in pairs:
            twin.set_submodule(conv, fuse_conv_bn_eval(twin.get_submodule(conv), twin.get_submodule(norm)))  # type: ignore[type-var]
            twin.set_submodule(norm, nn.Identity())
        expected, folded_logits = logits_of(model(example.clone())), logits_of(twin(example.clone()))
        refuse_difference("folded copy", folded_logits, expected, FOLDED_TOLERANCE)
    return twin


def refuse_difference(name: str, logits: Tensor, expected: Tensor, tolerance: float) -> None:
    """Hold logits against the model's own.

    Args:
        name: Of what gave them.
        logits: To be judged.
        expected: The model's, for the same inputs.
        tolerance: Largest difference allowed, as a share of the largest logit, or of 1 where all are less.

    Raises:
        ValueError: When they differ.
    """
    gap, scale = float((logits - expected).abs().max()), float(expected.abs().max())
    if not gap <= tolerance * max(scale, 1.0):
        raise ValueError(f"logits of the {name} differ by {gap:g}")


def cast_once(model: nn.Module, example: Tensor, dtype: torch.dtype) -> nn.Module:
    """A copy whose convolutions and linear layers hold the weights that autocast would otherwise cast at every forward; the model itself
    where there are none, or where the copy's logits are not bit for bit the same.

    Args:
        model: In eval mode, in float32.
        example: Inputs on which the two are compared.
        dtype: Of autocast, in whose context this is called.
    """
    with torch.inference_mode(False), torch.no_grad():
        twin = copy.deepcopy(model)
        layers = [module for module in twin.modules() if type(module) in (nn.Conv2d, nn.Linear)]
        for layer in layers:
            layer.to(dtype)
        if not layers or not torch.equal(logits_of(twin(example.clone())), logits_of(model(example.clone()))):
            return model
    return twin


def foldable(model: nn.Module) -> list[tuple[str, str]]:
    """Paths of every convolution and the batch norm that alone reads its output.

    Raises:
        ValueError: When there is none or `torch.fx` cannot follow the model.
    """
    trace = trace_of(model)
    if trace is None:
        raise ValueError("torch.fx cannot follow its forward")
    modules = {node: model.get_submodule(str(node.target)) for node in trace.graph.nodes if node.op == "call_module"}
    calls = Counter(map(id, modules.values()))
    pairs = []
    for node, norm in modules.items():
        before = node.args[0] if len(node.args) == 1 else None
        conv = modules.get(before)  # type: ignore[arg-type]
        if before is None or conv is None or len(before.users) != 1 or calls[id(conv)] != 1 or calls[id(norm)] != 1:
            continue
        if is_plain(conv, nn.Conv2d) and is_plain(norm, nn.BatchNorm2d) and norm.running_mean is not None:
            pairs.append((str(before.target), str(node.target)))
    if not pairs:
        raise ValueError("no convolution is followed by a batch norm alone")
    return pairs


def is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Exactly of this class, which parametrised modules are not, and nobody listens to what goes in or out."""
    return type(module) is kind and not module._forward_hooks and not module._forward_pre_hooks
