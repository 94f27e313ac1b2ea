"""What every method is: settings, a model and how its passes run, and `explain_image`, a conversation about one image."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from jaxtyping import Float, Int

from ..errors import ModelError, SettingsError, TargetError
from .explanation import Explanation, Explanations, Logits, check_target, logit_facts
from .layers.eval_mode import in_eval_mode
from .layers.outputs import logits_of, wide
from .lazy_torch import nn, torch
from .map_shift import corrected
from .requests import Rows, Steps
from .scoring.budget import EXACT
from .scoring.confidence import LOGIT, TRUTH_OVERLAP
from .scoring.object_scenes import ObjectTarget
from .scoring.precision import gradient_precision, pass_precision
from .scoring.scoring_options import Scoring
from .scoring.whole_image import WholeImage
from .targets import target_list
from .transfer import to_host

if TYPE_CHECKING:
    from .methods.protocol import Method
    from .scoring.masked_scorer import Scorer
    from .scoring.penultimate_features import PenultimateReader

Own = TypeVar("Own", bound="Explainer")
"""The class of a method. Not `typing.Self`, which beartype takes in classes only that it decorates itself (`make test-shapes`)."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Explainer(Scoring):
    """A method over a model. A subclass is a method: see `methods.protocol`.

    Args:
        model: Classifier of `(batch, channel, height, width)` to `(batch, class)` logits with at least two classes; left as it came.

    Raises:
        SettingsError: When a setting is out of its range, or the method does not do what is asked for.
        ModelError: When the method cannot explain the model.
    """

    declared: ClassVar[Method]
    """Set by the decorator `method`."""
    _noting: ClassVar[Literal["output", "features"] | None] = None
    """Set on the copies that `noting` makes."""

    model: nn.Module = field(kw_only=False)
    keep_layers: bool = False
    """Keep every block map V_l of SISE beside the map."""
    correct_shift: tuple[float, float] = (0.0, 0.0)
    """Pixels down and right by which the maps lie off, as `map_shift.measure_map_shift` finds; they are moved back by so much."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.correct_shift) != 2 or not all(math.isfinite(pixels) for pixels in self.correct_shift):
            raise SettingsError(
                f"correct_shift must be two numbers of pixels, down and right, got {self.correct_shift!r}"
            )
        self.check()
        name = self.declared.name
        if self.budget != EXACT and not self.declared.budget:
            raise SettingsError(f"method {name} leaves no masks out, so budget must be {EXACT}, got {self.budget!r}")
        if self.confidence.scene is not None and not self.declared.dense:
            raise ModelError(f"{name} reads the logits of a classifier; this model gives every pixel its class")
        with in_eval_mode(self.model):
            self.bind()

    def check(self) -> None:
        """Refuse settings that are out of their range. Reads nothing but settings: a command line asks before there is a model.

        Raises:
            SettingsError: Naming the value and what it may be.
        """

    def bind(self) -> None:
        """Refuse a model that the method cannot explain; the model is in eval mode.

        Raises:
            ModelError: Saying why.
        """

    def explain_image(
        self, image: Float[torch.Tensor, "channel height width"], target: int | None, seed: int
    ) -> Steps[Explanation]:
        """The method: a conversation about one image.

        Args:
            image: In network-input space, on the model's device.
            target: The class to explain, one of the model's; None for the predicted one.
            seed: Stands for the image in random draws: nothing random may depend on anything else.
        """
        raise NotImplementedError

    def extra_shapes(self, image: Float[torch.Tensor, "channel height width"]) -> Mapping[str, tuple[int, ...]]:
        """Shapes of the extras that are declared, for one image of inputs like this."""
        return {}

    def start(self, image: torch.Tensor, target: int | None, seed: int) -> Steps[Explanation]:
        """`explain_image`, once it is sure that there is such a class.

        Raises:
            TargetError: When `target` is no class of the model, or an object that the method cannot tell from others.
        """
        if target is not None:
            check_target(target, self.class_count(image))
        if isinstance(target, ObjectTarget) and (self.declared.classless or self.confidence.scene is None):
            raise TargetError(
                f"{self.declared.name} gives every object of a class the same map"
                if self.declared.classless
                else "objects of a class are explained of dense models only"
            )
        with torch.inference_mode(False):
            steps = self.explain_image(image.clone() if image.is_inference() else image, target, seed)
        return corrected(steps, *self.correct_shift) if any(self.correct_shift) else steps

    def explain(
        self,
        images: Float[torch.Tensor, "batch channel height width"],
        targets: Int[torch.Tensor, " batch"] | Sequence[int] | int | None = None,
        *,
        seeds: Sequence[int] | None = None,
        keep_layers: bool | None = None,
    ) -> Explanations:
        """Explain a batch; the result does not depend on how images are batched.

        Args:
            images: In network-input space, on the model's device.
            targets: Class index per image, one for all, or None for the predicted classes.
            seeds: Stands for each image in random draws, at least 0; the place in the batch by default.
            keep_layers: Overrides the explainer's.

        Raises:
            TargetError: When a target is no class of the model.
            SettingsError: When the images are no batch, or the seeds not one for each.
            NoBlocksError: When the method reads block layers and the model has no spatial hierarchy.
        """
        from .scheduler import run_all

        if images.ndim != 4 or len(images) == 0:
            raise SettingsError(
                f"images must be (batch, channel, height, width) with a batch of at least 1, got {tuple(images.shape)}"
            )
        own = list(range(len(images))) if seeds is None else list(seeds)
        if len(own) != len(images):
            raise SettingsError(f"seeds must be one for each of the {len(images)} images, got {len(own)}")
        explainer, wanted = self.keeping(keep_layers), target_list(targets, len(images))
        with in_eval_mode(self.model):
            explanations = run_all(explainer.start(*each) for each in zip(images, wanted, own, strict=True))
        return Explanations.of(explanations, images)

    def __call__(self, *arguments: Any, **named: Any) -> Explanations:
        """As `explain`."""
        return self.explain(*arguments, **named)

    def keeping(self: Own, keep_layers: bool | None) -> Own:
        """The same explainer, which keeps block maps or does not."""
        if keep_layers is None or keep_layers == self.keep_layers:
            return self
        other = self._twin()
        object.__setattr__(other, "keep_layers", keep_layers)
        return other

    def _twin(self: Own) -> Own:
        """A copy with what this one has found out about the model, and with its scorer, so that both fill the same batches."""
        _ = self.scorer, self._classes
        return copy.copy(self)

    def noting(self: Own, *, features: bool) -> Own:
        """The same explainer, which keeps what the forward of the unmasked image leaves (`Explanation.whole`), so that none is made
        for that alone.

        Args:
            features: Whether penultimate features are looked for, too.
        """
        other = self._twin()
        object.__setattr__(other, "_noting", "features" if features else "output")
        return other

    def listening(self) -> AbstractContextManager[None]:
        """Around the forward of unmasked images: what it leaves is kept where that is asked for."""
        return self._penultimate.listening() if self._noting == "features" else nullcontext()

    def whole_images(self, output: Float[torch.Tensor, "batch class *pixels"]) -> list[WholeImage | None]:
        """What the forward of unmasked images left of each, after `listening`; None unless it is kept."""
        if self._noting is None:
            return [None] * len(output)
        features = self._penultimate.features(output) if self._noting == "features" else None
        rows = [None] * len(output) if features is None else features
        return [WholeImage(row, feature) for row, feature in zip(output, rows, strict=True)]

    @cached_property
    def _penultimate(self) -> PenultimateReader:
        from .scoring.penultimate_features import PenultimateReader

        return PenultimateReader(self.model)

    def over(self: Own, model: nn.Module) -> Own:
        """The same settings over another model of the same architecture, which is scored as it is."""
        return replace(self, model=model, forward="eager")

    @cached_property
    def scorer(self) -> Scorer:
        """Scores masks, and the metrics' probes, too."""
        from .scoring.masked_scorer import Scorer

        return Scorer(self.model, self)

    @cached_property
    def logit_scorer(self) -> Scorer:
        """Scores by the target's logit, through the same forward as `scorer`; of a dense model `scorer` itself."""
        from .scoring.masked_scorer import Scorer

        if self.confidence.scene is not None:
            return self.scorer
        options = {each.name: getattr(self, each.name) for each in fields(Scoring)}
        made = Scorer(self.model, Scoring(**{**options, "confidence": LOGIT, "forward": "eager"}))
        made.forward = self.scorer.forward
        return made

    @cached_property
    def truth_scorer(self) -> Scorer:
        """Of a dense model: scores by the IoU of the target's pixels with the ground truth, through the same forward as `scorer`."""
        from .scoring.masked_scorer import Scorer

        options = {each.name: getattr(self, each.name) for each in fields(Scoring)}
        made = Scorer(self.model, Scoring(**{**options, "confidence": TRUTH_OVERLAP, "forward": "eager"}))
        made.forward = self.scorer.forward
        return made

    def rows_for(self, image: torch.Tensor) -> int:
        """Images that a batch takes where this one lies: on an accelerator as many as the run's batch allows."""
        most = self.declared.images
        if image.device.type != "cpu":  # methods that say how many are scaled alike
            most = max(most, most * self.batch_size // 8)
        return max(1, min(most, self.batch_size, self.images or most))

    def class_count(self, image: Float[torch.Tensor, "channel height width"]) -> int:
        """How many classes the model tells apart; one forward, once."""
        if not self._classes:
            self._classes.append(self.logits(torch.zeros_like(image)[None]).shape[1])
        return self._classes[0]

    @cached_property
    def _classes(self) -> list[int]:
        return []

    def logits(
        self, images: Float[torch.Tensor, "batch channel height width"]
    ) -> Float[torch.Tensor, "batch class *pixels"]:
        """One forward pass without gradients; float32 at least."""
        with in_eval_mode(self.model), torch.inference_mode(False), torch.no_grad(), self.own_precision(images.device):
            return wide(logits_of(self.model(images)))

    def read_logits(self, images: torch.Tensor, targets: list[int | None], seeds: list[int]) -> list[Logits]:
        """What the model says of each image of a batch: for `Rows`."""
        with self.listening():
            output = self.logits(images)
        scenes = self.confidence.object_scenes(output, targets)
        facts = to_host(logit_facts(output, class_tensor(targets, output.device), self.confidence, scenes))
        return [Logits.read(*row) for row in zip(facts, targets, self.whole_images(output), strict=True)]

    def own_precision(self, device: torch.device) -> AbstractContextManager[None]:
        """Of the method's own passes: float32 where it needs gradients, that of the run where it does not."""
        return gradient_precision(device) if self.declared.gradients else pass_precision(self.precision, device)

    def rows_of(self, function: Any, image: torch.Tensor, target: int | None, seed: int) -> Rows:
        """A request for one row of a batch of as many images as the method takes."""
        return Rows(function, image, target, seed, self.rows_for(image))


def class_tensor(targets: Sequence[int | None], device: torch.device) -> Int[torch.Tensor, " batch"]:
    """Targets on the device; -1 stands for the predicted class."""
    return torch.tensor([-1 if target is None else target for target in targets], device=device)
