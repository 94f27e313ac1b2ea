"""What a model is, found by running it: on one image twice, on batches of 1 and 3. Outputs that are logits in another form get an
adapter, which is said; what would make maps of something else than the image is refused with its cause and what to write.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ...errors import ModelError
from ..images.preprocess import Preprocess

SEVERAL = 3
"""Images in the larger batch."""
SAME = 1e-4
"""Difference between two runs on the same image, relative to the largest output, from which a model counts as random."""
ALONE = 1e-3
"""Difference between an image alone and in a batch, likewise, from which a model counts as looking at its neighbours."""
_TINY = 1e-30
_NEAR_CERTAIN = 1e-7
"""Distance from 0 and 1 up to which probabilities have a logit in single precision."""
_PROBABILITIES = ("sigmoid", "hardsigmoid", "special_expit", "_softmax")
"""Operations of torch that give probabilities."""
_VIEWS = (
    "view", "_unsafe_view", "reshape", "squeeze", "unsqueeze", "flatten", "select", "slice", "alias", "detach", "clone", "_to_copy", "expand",
    "permute", "transpose", "t", "contiguous", "as_strided", "narrow", "squeeze_", "unsqueeze_", "split", "index",
)  # fmt: skip
"""Operations that change no number."""


class _LastOperation(TorchDispatchMode):
    """Notes the last operation that computes something."""

    def __init__(self) -> None:
        super().__init__()
        self.name = ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name not in _VIEWS:
            self.name = name
        return func(*args, **(kwargs or {}))


class AdaptedModel(nn.Module):
    """A model whose input is handed as a clone and whose output is turned into logits `(batch, class)`."""

    def __init__(self, model: nn.Module, *, clones: bool, steps: Sequence[str]):
        super().__init__()
        self.model = model
        self.clones = clones
        self.steps = tuple(steps)

    def forward(self, images: Tensor) -> Tensor:
        outputs = self.model(images.clone() if self.clones else images)
        for step in self.steps:
            outputs = _STEPS[step](outputs)
        return outputs


def own_module(module: nn.Module) -> nn.Module:
    """The user's module inside of an `AdaptedModel`, whose weights have the user's names; any other module itself."""
    return module.model if isinstance(module, AdaptedModel) else module


def _flatten(outputs: Tensor) -> Tensor:
    return outputs.flatten(1)


def _two_classes(outputs: Tensor) -> Tensor:
    logit = outputs.reshape(-1, 1)
    return torch.cat([torch.zeros_like(logit), logit], dim=1)


def _two_maps(outputs: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(outputs), outputs], dim=1)


def _log(outputs: Tensor) -> Tensor:
    return outputs.clamp_min(_TINY).log()


def _log_odds(outputs: Tensor) -> Tensor:
    return torch.logit(outputs, eps=_NEAR_CERTAIN)


LOGIT = "log_odds"
"""The step of a model that ends in a sigmoid."""
TWO_CLASSES = "two_classes"
"""The step of a model with one output."""
TWO_MAPS = "two_maps"
"""The step of a dense model with one output per pixel."""
_STEPS: dict[str, Callable[[Tensor], Tensor]] = {
    "flatten": _flatten, TWO_CLASSES: _two_classes, TWO_MAPS: _two_maps, "log": _log, LOGIT: _log_odds,
}  # fmt: skip


def plain_module(module: nn.Module) -> tuple[nn.Module, list[str]]:
    """The module itself where it is compiled, in float32 where it is in half precision; and what to say of that."""
    notes = []
    module, compiled = _uncompiled(module)
    if compiled:
        notes.append(
            "the model is compiled; its original module is explained (--forward compile scores with a compiled one)"
        )
    others = {parameter.dtype for parameter in module.parameters()} & {torch.float16, torch.bfloat16, torch.float64}
    if others:
        module = module.float()
        notes.append(
            f"the weights are {', '.join(sorted(str(kind).removeprefix('torch.') for kind in others))}; they are computed with in float32"
        )
    return module, notes


def _uncompiled(module: nn.Module) -> tuple[nn.Module, bool]:
    """The module with everything compiled in it, whole or in part, taken back; and whether anything was."""
    compiled = False
    while isinstance(inner := getattr(module, "_orig_mod", None), nn.Module):
        module, compiled = inner, True
    for name, part in list(module.named_modules()):
        if name and isinstance(inner := getattr(part, "_orig_mod", None), nn.Module):
            module.set_submodule(name, inner)
            compiled = True
    for part in module.modules():
        if getattr(part, "_compiled_call_impl", None) is not None:  # by `module.compile()`
            part._compiled_call_impl = None
            compiled = True
    return module, compiled


def adapt_classifier(
    module: nn.Module, preprocess: Preprocess, spec: str
) -> tuple[nn.Module, list[str], tuple[str, ...]]:
    """Run the model and wrap it where that makes it a classifier of single images.

    Args:
        module: In eval mode, on the CPU.
        preprocess: Says the size of its input.
        spec: What the user calls it.

    Returns:
        The module, or one around it; what the user should know; what was done, by name.

    Raises:
        ModelError: If its output for an image is random, depends on other images of the batch, or cannot be had for several.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(SEVERAL, preprocess.channels, *preprocess.size, generator=generator) * 2 - 1
    image = images[:1]
    alone, writes = _output(module, image)
    if alone is None:
        return module, [], ()
    again, _ = _output(module, image)
    if again is None or again.shape != alone.shape or _difference(alone, again) > SAME:
        raise ModelError(
            f"{spec} gives another output each time for the same image: something in it is random in eval mode, such as "
            "functional.dropout(x, p) without training=self.training; write nn.Dropout, or pass training=self.training"
        )
    together = _several(module, images, spec)
    if together.shape[0] != SEVERAL and alone.shape[0] == 1:
        raise ModelError(
            f"{spec} must return one row per image; for {SEVERAL} images it returned {tuple(together.shape)}"
        )
    if _difference(alone, together[:1]) > ALONE:
        raise ModelError(
            f"{spec} gives an image another output beside other images: it depends on its neighbours in the batch, such as a batch norm "
            "with track_running_stats=False or one that is kept in training mode; give it running statistics, and do not override eval()"
        )
    steps, notes = _steps_of(together, lambda: _ends_in_probabilities(module, image), spec)
    if writes:
        notes.append("the model writes into its input; it is handed a copy")
    if not steps and not writes:
        return module, notes, ()
    return AdaptedModel(module, clones=writes, steps=steps), notes, (*steps, *(["clone"] if writes else []))


def _steps_of(outputs: Tensor, is_probability: Callable[[], bool], spec: str) -> tuple[list[str], list[str]]:
    """Steps from these outputs to logits, and what to say of them.

    Args:
        outputs: For the probe images.
        is_probability: Whether the model's last operation gives probabilities.
        spec: What the user calls the model.

    Raises:
        ModelError: If one output is the same whatever the image.
    """
    steps: list[str] = []
    notes: list[str] = []
    if outputs.ndim == 4 and outputs.shape[2:] == (1, 1):
        steps.append("flatten")
        notes.append(
            f"the model returns (batch, class, 1, 1), which is read as {outputs.shape[1]} classes of the whole image"
        )
        outputs = outputs.flatten(1)
    if outputs.ndim == 1 or (outputs.ndim == 2 and outputs.shape[1] == 1):
        more, said = _one_number(outputs, is_probability, spec)
        return [*steps, *more], [*notes, *said]
    if outputs.ndim == 4 and outputs.shape[1] == 1:
        notes.append(
            "the model returns one number per pixel, which is read as the logit of class 1 against class 0, the background"
        )
        if not _in_unit_interval(outputs):
            return [*steps, TWO_MAPS], notes
        notes.append(
            "all of these numbers lie in [0, 1] for the probed images, so they are taken for probabilities of a sigmoid and their log-odds "
            "for the logit; return the logit to be sure"
        )
        return [*steps, LOGIT, TWO_MAPS], notes
    if outputs.ndim not in (2, 4):
        return steps, notes
    sums = outputs.sum(dim=1)
    if bool((outputs >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-4):
        notes.append(
            "the model ends in a softmax; its probabilities are used as they are, their logarithm is the logit"
        )
        return [*steps, "log"], notes
    sums = outputs.exp().sum(dim=1)
    if bool((outputs <= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-4):
        notes.append("the model ends in a log-softmax, which is used as it is")
    elif not _in_unit_interval(outputs):
        pass
    elif not is_probability():
        notes.append(
            "all outputs lie in [0, 1] without adding up to 1; if they are probabilities of a sigmoid, return the logits instead and "
            "say --confidence sigmoid"
        )
    elif outputs.ndim == 4:
        notes.append("the model ends in a sigmoid for every pixel, which is read as logits; return the logits instead")
    else:
        notes.append(
            "the model ends in a sigmoid: it is read as multi-label, and the logits of its probabilities are used"
        )
        return [*steps, LOGIT], notes
    return steps, notes


def _one_number(outputs: Tensor, is_probability: Callable[[], bool], spec: str) -> tuple[list[str], list[str]]:
    if _in_unit_interval(outputs) and is_probability():
        first = float(outputs.reshape(-1)[0])
        if first == 1 and bool((outputs == 1).all()):
            raise ModelError(f"{spec} returns 1 for every image, such as a softmax over one output; return the logit")
        return [LOGIT, TWO_CLASSES], [
            "the model returns one probability per image, which is read as that of class 1 against class 0; its logit is used"
        ]
    notes = ["the model returns one number per image, which is read as the logit of class 1 against class 0"]
    if _in_unit_interval(outputs):
        notes.append(
            "that number lies in [0, 1] for the probed images; if it is a probability, return the logit instead"
        )
    return [TWO_CLASSES], notes


def _in_unit_interval(outputs: Tensor) -> bool:
    return bool(((outputs >= 0) & (outputs <= 1)).all())


def _ends_in_probabilities(module: nn.Module, image: Tensor) -> bool:
    """Whether the last operation that computes something is a sigmoid or softmax."""
    with torch.no_grad(), _LastOperation() as last:
        module(image.clone())
    return last.name in _PROBABILITIES


def _output(module: nn.Module, images: Tensor) -> tuple[Tensor | None, bool]:
    """What the model returns, None where that is nothing to be adapted, and whether it wrote into its input."""
    given = images.clone()
    try:
        with torch.no_grad():
            output = module(given)
    except Exception:
        return None, False  # said where every model is looked at, with its shape
    if not isinstance(output, Tensor) or not output.is_floating_point():
        return None, False
    return output.clone(), not torch.equal(given, images)


def _several(module: nn.Module, images: Tensor, spec: str) -> Tensor:
    try:
        with torch.no_grad():
            return module(images.clone())
    except Exception as error:
        raise ModelError(
            f"{spec} runs on 1 image and fails on {len(images)} at once: {' '.join(str(error).split())}; write x.flatten(1) or "
            "x.view(x.shape[0], -1) instead of a fixed batch size"
        ) from error


def _difference(first: Tensor, second: Tensor) -> float:
    scale = max(float(first.abs().max()), 1e-6)
    return float((first - second).abs().max()) / scale


def refuse_blocked_gradients(module: nn.Module, layers: Sequence[str], preprocess: Preprocess, spec: str) -> None:
    """Refuse a model in which no gradient of the output reaches a layer that is explained, such as a trunk under `no_grad`.

    Args:
        module: In eval mode, on the CPU.
        layers: Paths of modules; one that is none (an operation of a traced graph, a later call) is left out.
        preprocess: Says the size of its input.
        spec: What the user calls it.

    Raises:
        ModelError: Naming the layers.
    """
    modules = dict(module.named_modules())
    captured: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                captured[name] = output

        return hook

    handles = [modules[name].register_forward_hook(keep(name)) for name in layers if name in modules]
    try:
        with torch.enable_grad():
            image = torch.rand(1, preprocess.channels, *preprocess.size).requires_grad_()
            output = module(image)
            total = output.sum() if isinstance(output, Tensor) else None
            reached = [tensor for tensor in captured.values() if tensor.requires_grad]
            if total is None or not total.requires_grad or not captured:
                return  # said where gradients are asked for
            gradients = torch.autograd.grad(total, reached, allow_unused=True) if reached else ()
    except RuntimeError as error:
        cause = "a part of it runs under torch.inference_mode(), use no mode at all there" if "nference tensor" in str(error) else " ".join(str(error).split())  # fmt: skip
        raise ModelError(
            f"gradients of {spec} cannot be had: {cause}; or choose a method without gradients (--method rise)"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    alive = {id(tensor) for tensor, gradient in zip(reached, gradients, strict=True) if gradient is not None}
    if blocked := [name for name, tensor in captured.items() if id(tensor) not in alive]:
        raise ModelError(
            f"no gradient of the output of {spec} reaches {', '.join(blocked)}: a part of it runs under torch.no_grad() or is detached; "
            "take that out of its forward (requires_grad_(False) freezes weights as well), or choose a method without gradients "
            "(--method rise)"
        )
