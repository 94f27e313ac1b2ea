"""What a method is: a function of images and targets, and a declaration of what it takes, gives and costs.

A method is registered once, by the decorator `method`, and is found by its name with `registry.find_method`. Nothing but the
registry's list names methods.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from jaxtyping import Float, Int
from torch import Tensor, nn

from ..explainer import Explainer
from ..scoring.scoring_options import Scoring

Architecture = Literal["cnn", "vit", "any"]


@dataclass(frozen=True)
class Cost:
    """Passes through the model for one image and one target."""

    forwards: int
    backwards: int = 0


@dataclass(eq=False)
class MethodMaps:
    """What a method says of a batch of images."""

    maps: Float[Tensor, "batch height width"]
    """At the input's resolution, float32, in [0, 1], normalised as the source says. Constant where an image gives no map, NaN where it breaks."""
    cost: Cost
    """Passes that were spent on each image; the mean where images differ."""
    extras: Mapping[str, Float[Tensor, "batch ..."]] = field(default_factory=dict)
    """What else there is to keep, by column name, as the declaration promises it."""


class ExplainFunction(Protocol):
    """A built method: bound to a model and its settings.

    It may also have `extra_shapes(image) -> Mapping[str, tuple[int, ...]]`, the shapes of its extras for one image of inputs like this;
    without it a run finds them by explaining an empty image.
    """

    def explain(
        self,
        images: Float[Tensor, "batch channel height width"],
        targets: Int[Tensor, " batch"],
        seeds: Sequence[int],
    ) -> MethodMaps:
        """Maps of a batch.

        Args:
            images: In network-input space, on the model's device.
            targets: The class to explain in each.
            seeds: Stands for each image in random draws: nothing random may depend on anything else.
        """
        ...


Build = Callable[[nn.Module, Any], ExplainFunction]
"""(model in eval mode, settings) -> the method bound to them; raises ModelError for a model that it cannot explain."""
Pack = Callable[[nn.Module, Any, Scoring], Explainer]
"""(model, settings, how masks are scored) -> what a session drives itself, all images sharing batches of masks."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A registered method and its declaration."""

    name: str
    summary: str
    """One line for `heatlas methods`."""
    source: str
    """Paper and equations."""
    architecture: Architecture
    """Models it takes: convolutional, vision transformers with a class token, or any differentiable."""
    settings: type
    """A frozen dataclass of plain values with defaults, in a module that does not import torch; see `batch_settings.py`."""
    cost: Callable[[Any], Cost | None]
    """Passes per image under the settings; None where they depend on the image."""
    gradients: bool = False
    """Needs gradients through the model."""
    training: bool = False
    artefact: bool = False
    """Needs a file made beforehand, such as a feature bank."""
    signed: bool = False
    """The method itself tells evidence for from evidence against; the map keeps what speaks for the target."""
    class_specific: bool = True
    resolution: Literal["input", "layer", "patch", "grid"] = "layer"
    """Of what the map is made: pixels, cells of a layer, tokens, or a grid of its own."""
    stochastic: bool = False
    extras: Mapping[str, str] = field(default_factory=dict)
    """Names of further columns with what they hold."""
    images: int = 8
    """Images that `explain` gets at once, fewer where the run's batch is smaller; what is missing at the end is filled up."""
    packed: Pack | None = None
    """Of methods whose work is masked forwards; a session then uses this in place of `build`."""
    build: Build


METHODS: dict[str, Method] = {}


def method(**declaration: Any) -> Callable[[Build], Build]:
    """Register what builds a method, with the fields of `Method`."""

    def register(build: Build) -> Build:
        one = Method(build=build, **declaration)
        METHODS[one.name] = one
        return build

    return register
