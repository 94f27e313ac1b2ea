"""Which layers SISE reads: the last layer of every block (SISE eqs. 1-5), found without naming any architecture.

Signals can bypass any layer but the dimension-reducing ones. So a block ends with the last node of a resolution that every
path from image to logits crosses: an articulation node of the model's graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ...errors import HeatlasError, ModelError, NoBlocksError, did_you_mean
from .block_plan import BlockLayer, BlockPlan
from .capture import capture_layers
from .eval_mode import in_eval_mode
from .fx_trace import trace_of
from .survey import FeatureMap, Survey, is_compiled, own_name
from .survey_hooked import hooked_survey
from .survey_traced import traced_survey

__all__ = ["BlockLayer", "BlockPlan", "block_layers"]

SHRINK = 1.5
"""A block ends where a side shrinks by at least this ratio; unpadded convolutions shrink a map by less."""
REMEDY = (
    "SISE needs a CNN whose maps shrink from block to block: name convolutional layers with `layers`, or use a method for "
    "transformers, such as daam"
)


def block_layers(model: nn.Module, example_input: Tensor, *, layers: Sequence[str] | None = None) -> BlockPlan:
    """Plan the layers whose feature maps SISE uses, low (large maps) to high.

    Args:
        model: A classifier; it is left as it came, whatever its mode.
        example_input: An image as the network takes it, `(batch, channel, height, width)`; only the first is used.
        layers: Layers to use in place of the found ones, by the names that a plan gives; a module that runs several times
            means its last run unless `name:2` asks for the second. They are put in the order in which they run.

    Raises:
        NoBlocksError: If the model has no spatial hierarchy (a ViT), so that layers must be named.
        ModelError: If the model cannot take the example, returns no class scores, or has no such layers.
    """
    if example_input.ndim != 4 or example_input.shape[0] < 1:
        raise ModelError(
            "example_input must have shape (batch, channel, height, width) with at least one image, "
            f"got {tuple(example_input.shape)}"
        )
    if is_compiled(model):
        raise ModelError(
            "a TorchScript model shows no layers; load its weights into the Python class that it was made from"
        )
    with in_eval_mode(model), torch.inference_mode(False):
        images = example_input.detach()[:1].clone()
        survey, how = _survey(model, images)
        if layers is None:
            ends = _block_ends(survey)
            return BlockPlan(tuple(_layer(end, own_name(end, ends)) for end in ends), how)
        plan = BlockPlan(_named_layers(layers, survey, model), "named")
        _check_used(model, plan, images)
        return plan


def _survey(model: nn.Module, images: Tensor) -> tuple[Survey, Literal["traced", "hooks"]]:
    """Survey by the traced graph where there is one; a trace that does not run falls back to hooks, too."""
    trace = trace_of(model)
    if trace is not None:
        try:
            return traced_survey(model, trace, images), "traced"
        except Exception:  # the hooks run the model itself and report what is wrong with it, if anything is
            pass
    try:
        return hooked_survey(model, images), "hooks"
    except (HeatlasError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise ModelError(
            f"the model cannot take an image of shape {tuple(images.shape[1:])}: {error}; check the input size, the "
            "number of channels and the device"
        ) from error


def _block_ends(survey: Survey) -> list[FeatureMap]:
    """The last map of every resolution, walking from the classifier back to the image.

    On this way resolution only grows: what is smaller than a later map (attention windows) is an excursion inside a block.

    Raises:
        NoBlocksError: If fewer than two resolutions are found.
    """
    trunk = [feature_map for feature_map in survey.maps if feature_map.crossed and feature_map.feature]
    ends: list[FeatureMap] = []
    front: tuple[int, int] | None = None
    for index in reversed(range(len(trunk))):
        size = trunk[index].size
        if front is None or _shrinks(size, front):
            ends.insert(0, _before_expansion(trunk, index))
        if front is None or (size[0] >= front[0] and size[1] >= front[1]):
            front = size
    if len(ends) < 2:
        shown = f"one, {_shape_text(ends[0])}" if ends else "none"
        raise NoBlocksError(
            f"the model has no spatial hierarchy (resolutions that every path crosses: {shown}). {REMEDY}"
        )
    return ends


def _shrinks(large: tuple[int, int], small: tuple[int, int]) -> bool:
    """Whether a block ends between two maps: no side grows, and one shrinks by the ratio."""
    height, width = large[0] / small[0], large[1] / small[1]
    return min(height, width) >= 1 and max(height, width) >= SHRINK


def _before_expansion(trunk: list[FeatureMap], index: int) -> FeatureMap:
    """The map before a strided inverted bottleneck, where the block's last map is the bottleneck's expanded tensor.

    Such a unit widens its input, shrinks it channel by channel, and narrows it again (MobileNetV2, EfficientNet): the wide
    tensor is inside the strided unit, and the unit before it put out the last map of the block.
    """
    wide, rest = trunk[index], trunk[index + 1 :]
    if not rest or not rest[0].depthwise or rest[0].channels != wide.channels:
        return wide
    after = next((feature_map for feature_map in rest if feature_map.channels != wide.channels), wide)
    before = next(
        (feature_map for feature_map in reversed(trunk[:index]) if feature_map.channels != wide.channels), wide
    )
    is_expanded = before.channels < wide.channels and after.channels < wide.channels
    return before if is_expanded and not _shrinks(before.size, wide.size) else wide


def _layer(feature_map: FeatureMap, name: str) -> BlockLayer:
    return BlockLayer(name, feature_map.channels, feature_map.size, feature_map.channel_axis)


def _shape_text(feature_map: FeatureMap) -> str:
    return f"{feature_map.names[0]!r} with {feature_map.channels} maps of {feature_map.size[0]} x {feature_map.size[1]}"


def _named_layers(names: Sequence[str], survey: Survey, model: nn.Module) -> tuple[BlockLayer, ...]:
    """The layers that the user names, in execution order.

    Raises:
        ModelError: If a name is unknown, is no map, or says the same map as another.
    """
    if isinstance(names, str) or not names:
        raise ModelError(f"layers must be a list of at least one layer name, got {names!r}")
    chosen: dict[str, FeatureMap] = {}
    for name in names:
        if name not in survey.names:
            raise ModelError(_unknown_layer(name, survey, model))
        feature_map = survey.names[name]
        twin = next((other for other, map_of in chosen.items() if map_of is feature_map), None)
        if twin is not None:
            raise ModelError(f"layers {twin!r} and {name!r} are the same feature maps; keep one of them")
        chosen[_exact(name, survey)] = feature_map
    by_run = sorted(chosen.items(), key=lambda item: survey.maps.index(item[1]))
    return tuple(_layer(feature_map, name) for name, feature_map in by_run)


def _exact(name: str, survey: Survey) -> str:
    """The name with its call's number (`relu:3`) where the module runs several times."""
    feature_map = survey.names[name]
    return next((key for key in survey.names if key.startswith(f"{name}:") and survey.names[key] is feature_map), name)


def _unknown_layer(name: str, survey: Survey, model: nn.Module) -> str:
    examples = [feature_map.names[-1] for feature_map in survey.maps if feature_map.crossed][:12]
    valid = f"layers that every path crosses are, for example, {', '.join(examples)}" if examples else REMEDY
    if name in dict(model.named_modules()):
        return f"layer {name!r} is in the model but puts out no (batch, channel, height, width) maps; {valid}"
    return f"unknown layer {name!r}{did_you_mean(name, survey.names)}; {valid}"


def _check_used(model: nn.Module, plan: BlockPlan, images: Tensor) -> None:
    """Refuse a named layer whose maps the logits do not depend on: it has no gradient to select by."""
    logits, activations = capture_layers(model, plan, images)
    gradients = torch.autograd.grad(logits.sum(), activations, allow_unused=True)
    unused = [layer.name for layer, gradient in zip(plan, gradients, strict=True) if gradient is None]
    if unused:
        raise ModelError(f"the logits do not depend on layer {unused[0]!r}; name a layer on the way to the classifier")
