"""What an explanation came to: of one image, and of several side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jaxtyping import Float, Int

from .. import statuses
from ..errors import TargetError
from .lazy_torch import torch
from .scoring.confidence import Confidence
from .scoring.object_scenes import ObjectTarget
from .scoring.whole_image import WholeImage
from .transfer import to_host

TOLERANCE = 1e-3
"""How far rounding may carry a map's value out of [0, 1]."""
LOGIT_FACTS = 6
"""Numbers in a row of `logit_facts`."""


@dataclass(eq=False)
class Explanation:
    """Of one image by any method. `map` and `layer_maps` are None unless `status` is `ok`."""

    status: str
    error: str | None
    prediction: int | None
    target: int | None
    confidence: float | None
    """The model's confidence in the target, in [0, 1]."""
    logit: float | None
    map: Float[torch.Tensor, "height width"] | None = None
    """In [0, 1], float32; S / B of SISE."""
    layer_maps: Float[torch.Tensor, "layer height width"] | None = None
    """Each V_l of SISE, min-maxed, low to high."""
    mask_counts: tuple[int, ...] = ()
    n_forwards: int = 1
    n_backwards: int = 0
    surrogate_error: float | None = None
    """Expected RMS error of the map, by the surrogate itself; None where every mask was scored."""
    extras: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """What else the method gives, as it declares."""
    object_id: str | None = None
    """Which object of the target's class is explained, where it was explained before; None: all of the class."""
    whole: WholeImage | None = field(default=None, repr=False)
    """What the forward of the unmasked image left, where it was asked to be kept (`Explainer.noting`)."""


@dataclass(eq=False)
class Explanations:
    """Of several images. Rows whose status is not `ok` hold zeros; nothing is ever NaN."""

    maps: Float[torch.Tensor, "batch height width"]
    """In [0, 1], float32."""
    targets: Int[torch.Tensor, " batch"]
    """Classes that were explained; -1 where the model's output is not finite and none was given."""
    predictions: Int[torch.Tensor, " batch"]
    confidences: Float[torch.Tensor, " batch"]
    """The model's confidence in the target, in [0, 1]; 0 where its output is not finite."""
    statuses: list[str]
    errors: list[str | None]
    """Why a status is not `ok`."""
    mask_counts: Int[torch.Tensor, "batch layer"]
    """Masks of each layer, of methods that score masks; no columns for others."""
    extras: dict[str, list[torch.Tensor | None]]
    """What else the method gives, for each image; None where there is no map."""
    n_forwards: list[int]
    n_backwards: list[int]
    layer_maps: Float[torch.Tensor, "batch layer height width"] | None = None
    """Each V_l of SISE, where it was asked to keep them."""

    @classmethod
    def of(
        cls, explanations: Sequence[Explanation], images: Float[torch.Tensor, "batch channel height width"]
    ) -> Explanations:
        """Explanations side by side."""
        device, blank = images.device, images.new_zeros(images.shape[2:], dtype=torch.float32)
        names = list(dict.fromkeys(name for each in explanations for name in each.extras))
        layers = max(len(each.mask_counts) for each in explanations)
        kept = next((each.layer_maps for each in explanations if each.layer_maps is not None), None)
        return cls(
            maps=torch.stack([blank if each.map is None else each.map for each in explanations]),
            targets=torch.tensor([-1 if each.target is None else each.target for each in explanations], device=device),
            predictions=torch.tensor([-1 if each.prediction is None else each.prediction for each in explanations], device=device),
            confidences=torch.tensor([each.confidence or 0.0 for each in explanations], device=device),
            statuses=[each.status for each in explanations],
            errors=[each.error for each in explanations],
            mask_counts=torch.tensor(
                [each.mask_counts or [0] * layers for each in explanations], dtype=torch.long, device=device
            ).reshape(len(explanations), layers),
            extras={name: [each.extras.get(name) for each in explanations] for name in names},
            n_forwards=[each.n_forwards for each in explanations],
            n_backwards=[each.n_backwards for each in explanations],
            layer_maps=None if kept is None else torch.stack(
                [torch.zeros_like(kept) if each.layer_maps is None else each.layer_maps for each in explanations]
            ),
        )  # fmt: skip


@dataclass(frozen=True)
class Logits:
    """The unmasked image's output, on the host."""

    finite: bool
    prediction: int | None
    target: int | None
    confidence: float | None
    logit: float | None
    absent: bool = False
    """A dense model gives the target no pixel."""
    whole: WholeImage | None = field(default=None, compare=False, repr=False)
    """The output itself, where it is kept."""

    @classmethod
    def of(cls, logits: Float[torch.Tensor, " class *pixels"], target: int | None, confidence: Confidence) -> Logits:
        """Read the output for one image.

        Raises:
            TargetError: When `target` is no class of the model.
        """
        check_target(target, len(logits))
        chosen = torch.tensor([-1 if target is None else target], device=logits.device)
        scenes = confidence.object_scenes(logits[None], [target])
        return cls.read(to_host(logit_facts(logits[None], chosen, confidence, scenes))[0], target)

    @classmethod
    def read(cls, facts: Sequence[float], target: int | None, whole: WholeImage | None = None) -> Logits:
        """A row of `logit_facts`, once it is on the host.

        Args:
            facts: The row; what comes after `LOGIT_FACTS` numbers is not looked at.
            target: As it was asked for.
            whole: The output itself, to be kept.
        """
        finite, prediction, chosen, confidence, logit, absent = facts[:LOGIT_FACTS]
        if not finite:
            return cls(False, None, target, None, None, whole=whole)
        class_ = target if isinstance(target, ObjectTarget) else int(chosen)
        return cls(True, int(prediction), class_, confidence, logit, bool(absent), whole)

    @property
    def failure(self) -> tuple[str, str] | None:
        """Status and text, where there is nothing to explain."""
        if not self.finite:
            return statuses.NON_FINITE, "the model's output for the image is not finite"
        if self.absent:
            return statuses.NO_EVIDENCE, f"the model finds class {self.target} nowhere in the image"
        return None

    def explanation(
        self,
        map_: Float[torch.Tensor, "height width"] | None = None,
        failure: tuple[str, str] | None = None,
        *,
        n_forwards: int = 1,
        n_backwards: int = 0,
        extras: Mapping[str, torch.Tensor] | None = None,
        mask_counts: tuple[int, ...] = (),
        facts: Sequence[float] | None = None,
    ) -> Explanation:
        """This image's explanation.

        Args:
            map_: Its map, or None. One that is constant or not finite becomes a status.
            failure: Status and text, where something else is wrong; the model's output comes first.
            n_forwards: Spent on it.
            n_backwards: Spent on it.
            extras: What else the method gives; kept with the map only.
            mask_counts: Masks of each layer.
            facts: The map's row of `map_facts`, where it is on the host already.
        """
        failure = self.failure or failure
        if failure is None and map_ is not None:
            failure = unusable(*(to_host(map_facts(map_[None]))[0] if facts is None else facts))
        explanation = Explanation(
            status=statuses.OK if failure is None else failure[0], error=None if failure is None else failure[1],
            prediction=self.prediction, target=self.target, confidence=self.confidence, logit=self.logit,
            mask_counts=mask_counts, n_forwards=n_forwards, n_backwards=n_backwards, whole=self.whole,
        )  # fmt: skip
        if failure is None and map_ is not None:
            explanation.map = map_.detach().float().clamp(0, 1)
            explanation.extras = {name: values.detach().float() for name, values in (extras or {}).items()}
        return explanation


def logit_facts(
    output: Float[torch.Tensor, "batch class *pixels"],
    targets: Int[torch.Tensor, " batch"],
    confidence: Confidence,
    scenes: Int[torch.Tensor, "batch height width"] | None = None,
) -> Float[torch.Tensor, "batch 6"]:
    """What is to be known of a model's output for every image, on the device, float64; see `Logits.read`.

    Args:
        output: Of the unmasked images.
        targets: Classes to explain; -1 for the predicted one.
        confidence: What it means.
        scenes: As `Confidence.object_scenes` gives them.
    """
    finite = output.isfinite().flatten(1).all(dim=1)
    predictions = predicted(output, confidence)
    chosen = torch.where(targets < 0, predictions, targets)
    absent = torch.zeros_like(finite)
    if confidence.scene is not None:
        seen = torch.stack([confidence.scene(row[None]) for row in output]) if scenes is None else scenes
        absent = ~(seen == chosen[:, None, None]).flatten(1).any(dim=1)
    value, logit = confidence.value(output, chosen, scenes), confidence.logit(output, chosen, scenes)
    facts = (finite, predictions, chosen, value, logit, absent)
    return torch.stack([fact.double() for fact in facts], dim=1)


def predicted(
    output: Float[torch.Tensor, "batch class *pixels"], confidence: Confidence
) -> Int[torch.Tensor, " batch"]:
    """The class of which the model sees most in every image."""
    return torch.stack([confidence.ranking(row[None]).argmax() for row in output])


def map_facts(maps: Float[torch.Tensor, "batch height width"]) -> Float[torch.Tensor, "batch 3"]:
    """Whether each map is finite, and its least and largest value: what `unusable` takes."""
    flat = maps.float().flatten(1)
    low, high = flat.aminmax(dim=1)
    return torch.stack([flat.isfinite().all(dim=1).double(), low.double(), high.double()], dim=1)


def unusable(finite: float, low: float, high: float) -> tuple[str, str] | None:
    """Status and text of what is no map in [0, 1] that ranks pixels; None for one."""
    if not finite:
        return statuses.NON_FINITE, "the map is not finite"
    if high <= low:
        return statuses.CONSTANT_MAP, "the map gives the same value to every pixel"
    if low < -TOLERANCE or high > 1 + TOLERANCE:
        return statuses.EXPLAIN_ERROR, f"the method gave values from {low:g} to {high:g}, not in [0, 1]"
    return None


def check_target(target: int | None, classes: int) -> None:
    """Refuse a class that there is not.

    Raises:
        TargetError: When `target` is no class of the model.
    """
    if target is not None and not 0 <= target < classes:
        raise TargetError(f"target must be a class index from 0 to {classes - 1}, got {target}")
