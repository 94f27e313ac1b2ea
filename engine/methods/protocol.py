"""What a method is: one file with a class that holds its settings, its declaration and its algorithm.

    @method(name="saliency", summary="...", source="...", architecture="any", cost=lambda settings: Cost(1, 1))
    class Saliency(BatchMethod):
        power: float = setting(default=1.0, text="exponent, above 0")

        def check(self): require(self.power > 0, ...)          # settings alone: no model yet
        def maps(self, images, targets, seeds): ...            # or explain_image(self, image, target, seed), a generator

The decorator makes a frozen dataclass of the class: fields made by `setting` are its settings, and `Explainer` adds the model and how
passes run, so that `Saliency(model, power=2, batch_size=128)` is the method over a model. A command line reads the settings alone,
as `METHODS[name].settings`, and must not wait for torch: a method file takes torch from `lazy_torch` and imports modules
that need torch at once inside functions. Every module of this folder is looked into, so adding a method touches its file and a test.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, dataclass_transform

from ...errors import SettingsError
from ..explainer import Explainer

Architecture = Literal["cnn", "vit", "any"]
SourceStatus = Literal["published", "code", "partial", "ours"]
"""published: the paper's formulas; code: as the authors' code has it; partial: public text leaves gaps, which heatlas fills; ours:
heatlas's own."""
Class = TypeVar("Class", bound=type[Explainer])
HELP = "help"


@dataclass(frozen=True)
class Cost:
    """Passes through the model for one image and one target."""

    forwards: int
    backwards: int = 0


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
    cost: Callable[[Any], Cost | None]
    """All passes per image under the settings, those that find the predicted class apart; None where they depend on the image."""
    explainer: type[Explainer]
    settings: type
    """A frozen dataclass of the settings alone; see `settings_of`."""
    gradients: bool = False
    """Needs gradients through the model."""
    signed: bool = False
    """The method itself tells evidence for from evidence against; the map keeps what speaks for the target."""
    resolution: Literal["input", "layer", "patch", "grid"] = "layer"
    """Of what the map is made: pixels, cells of a layer, tokens, or a grid of its own."""
    stochastic: bool = False
    packed: bool = False
    """Its work is masked forwards."""
    budget: bool = False
    """It can leave masks out."""
    dense: bool = False
    """It can explain a model that gives every pixel its class."""
    classless: bool = False
    """Its map is the same for every class, and for every object of one."""
    trained: bool = False
    """It needs an explainer that `heatlas train` made."""
    status: SourceStatus = "published"
    """How much of the method's definition public text gives."""
    completed: str = ""
    """What heatlas adds to or changes in its source, in a few words; nothing where it is as published."""
    files: tuple[str, ...] = ()
    """Settings that name a file on every machine that explains; what it holds belongs to the run's fingerprint."""
    selected_by: Callable[[Any], str | None] = lambda settings: None
    """The metric by which a map is chosen among several under the settings: it cannot evaluate that map any more."""
    for_display: bool = False
    """Parts of its map do not come from the model, so that no number should be made of it: consensus and curation refuse it."""
    colours: bool = False
    """It has fields `mean` and `std`, by which the images were normalised."""
    extras: Mapping[str, str] = field(default_factory=dict)
    """Names of further columns with what they hold."""
    images: int = 8
    """Images that a batch takes, fewer where the run's batch is smaller; what is missing at the end is filled up."""


METHODS: dict[str, Method] = {}


def setting(*, default: Any, text: str, **bounds: float | int) -> Any:
    """A setting with its explanation, and bounds (`ge`, `gt`, `le`, `lt`) that a command line shows."""
    return field(default=default, metadata={HELP: text, **bounds})


def require(holds: bool, text: str) -> None:
    """Refuse a value.

    Raises:
        SettingsError: With the text, unless the condition holds.
    """
    if not holds:
        raise SettingsError(text)


def require_one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse a value that is not one of these.

    Raises:
        SettingsError: Naming the value and what it may be.
    """
    require(value in known, f"{name} must be one of {', '.join(known)}, got {value!r}")


@dataclass_transform(kw_only_default=True, frozen_default=True, eq_default=False, field_specifiers=(setting, field))
def method(**declaration: Any) -> Callable[[Class], Class]:
    """Make a dataclass of a subclass of `Explainer` and register it, with the fields of `Method` but `explainer` and `settings`."""

    def register(given: Class) -> Class:
        made: Any = dataclass(frozen=True, eq=False, kw_only=True)(given)
        made.declared = Method(explainer=made, settings=settings_of(made), **declaration)
        METHODS[made.declared.name] = made.declared
        return made

    return register


def settings_of(explainer: type[Explainer]) -> type:
    """The settings of a method as a frozen dataclass of their own, which refuses what the method does.

    Raises:
        TypeError: When a setting bears the name of something that every method has.
    """
    shared = {setting.name for setting in dataclasses.fields(Explainer)}
    own = [setting for setting in dataclasses.fields(explainer) if HELP in setting.metadata]
    for setting in own:
        if setting.name in shared:
            raise TypeError(
                f"{explainer.__name__}: a setting must not be called {setting.name}, as every method has it"
            )
    fields = [
        (setting.name, setting.type, field(default=setting.default, metadata=setting.metadata)) for setting in own
    ]
    made = dataclasses.make_dataclass(
        f"{explainer.__name__}Settings", fields, frozen=True, namespace={"__post_init__": explainer.check}
    )
    made.__doc__, made.__module__ = f"Settings of {explainer.__name__}.", explainer.__module__
    setattr(sys.modules[explainer.__module__], made.__name__, made)  # where pickle and type hints look for it
    return made
