"""Which methods fit a model, found out before a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from ..errors import HeatlasError, ModelError
from .layers.block_plan import BlockPlan
from .layers.blocks import block_layers
from .layers.differentiable import gradients_flow
from .methods.protocol import Method
from .methods.registry import find_method, make_explainer, usable_methods
from .methods.sise import SISE
from .scoring.scoring_options import Scoring


@dataclass(frozen=True)
class Fit:
    """How a method reads a model."""

    blocks: BlockPlan | None
    """The layers whose maps become masks, of methods of SISE's kind."""
    extra_shapes: Mapping[str, tuple[int, ...]]
    """Shapes of the method's extras for one image."""


def check_fit(
    name: str,
    model: nn.Module,
    settings: Any,
    image: Float[Tensor, "channel height width"],
    scoring: Scoring | None = None,
    trained: Any = None,
) -> Fit:
    """Find out before a run whether a method can explain a model.

    Args:
        name: Of the method.
        model: A classifier.
        settings: Of the method's settings class; None for its defaults.
        image: Network input to find shapes with.
        scoring: How its passes run.
        trained: What `heatlas train` made, for a method that needs it.

    Raises:
        ModelError: When it cannot; names the methods that can.
        SettingsError: When the method does not do what is asked of it.
    """
    declared = find_method(name)
    try:
        return _tried(declared, model, settings, image, scoring, trained)
    except ModelError as error:
        others = [other for other in fitting_methods(model, image, scoring) if other != name]
        known = f"methods that fit it: {', '.join(others)}" if others else "no other method fits it either"
        raise type(error)(
            f"method {name} cannot explain this model: {error}\n{known} (`heatlas methods` describes them)"
        ) from error


def fitting_methods(
    model: nn.Module, image: Float[Tensor, "channel height width"], scoring: Scoring | None = None
) -> list[str]:
    """Names of the methods that can explain a model with their defaults, scores meaning what `scoring` says."""
    plain = Scoring() if scoring is None else Scoring(confidence=scoring.confidence)
    return [name for name, declared in usable_methods().items() if _fits(declared, model, image, plain)]


def _fits(declared: Method, model: nn.Module, image: Tensor, scoring: Scoring) -> bool:
    if declared.trained:
        return False
    try:
        _check_gradients(declared, model, image)
        _check_architecture(declared, model, declared.settings(), image)
        make_explainer(declared.name, model, scoring=scoring)
    except HeatlasError:
        return False
    return True


def _tried(
    declared: Method, model: nn.Module, settings: Any, image: Tensor, scoring: Scoring | None, trained: Any
) -> Fit:
    explainer = make_explainer(declared.name, model, settings, scoring)
    if trained is not None:
        explainer = replace(explainer, trained=trained)
    _check_gradients(declared, model, image)
    if isinstance(explainer, SISE):
        return Fit(explainer.plan(image), {})
    _check_architecture(declared, model, settings, image)
    return Fit(None, explainer.extra_shapes(image))


def _check_gradients(declared: Method, model: nn.Module, image: Tensor) -> None:
    if declared.gradients and not gradients_flow(model, image):
        raise ModelError("no gradient flows from its output to its input, and the method needs gradients")


def _check_architecture(declared: Method, model: nn.Module, settings: Any, image: Tensor) -> None:
    if declared.architecture == "cnn":
        layer, layers = getattr(settings, "layer", None), getattr(settings, "layers", None)
        block_layers(model, image[None], layers=[layer] if layer else layers)
