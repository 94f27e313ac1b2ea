"""What "the model's confidence in the target" means; the selection gradient and the scoring of masks share it.

For a classifier that is a probability. For a dense model, which gives every pixel its class, it is how much of what the model saw
in the unmasked image is still there: so a score may need the *scene*, the class of every pixel of the unmasked image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int

from ...errors import ModelError
from ..lazy_torch import torch
from .object_scenes import OTHER_OBJECT, is_any_object, object_scene

BACKGROUND = 0
"""Of dense models: the class of what is none of the others, predicted only where there is nothing else."""


@dataclass(frozen=True)
class Confidence:
    """One meaning of confidence, as the number that weighs a mask and as the quantity whose gradient selects maps."""

    name: str
    value: Callable[..., torch.Tensor]
    """(output, targets `(batch,)`, scenes) -> Psi `(batch,)` in [0, 1], float32 or float64. Without scenes each input is its own."""
    margin: Callable[..., torch.Tensor]
    """(output, targets, scenes) -> `(batch,)`: grows with `value` of inputs that are their own scene, and its gradient does not vanish when
    Psi saturates."""
    ranking: Callable[[torch.Tensor], torch.Tensor]
    """Output for one image -> one number per class `(class,)`, the larger the more the model sees of it; the largest is predicted."""
    logit: Callable[..., torch.Tensor]
    """(output, targets, scenes) -> the model's own number for the target `(batch,)`, before any probability."""
    scene: Callable[[torch.Tensor], torch.Tensor] | None = None
    """Output for one image -> the class of every pixel `(height, width)`; None where no scene is needed."""

    @property
    def axes(self) -> int:
        """Of the output: `(batch, class)`, or `(batch, class, height, width)` of a dense model."""
        return 2 if self.scene is None else 4

    def object_scenes(self, output: torch.Tensor, targets: Sequence[int | None]) -> torch.Tensor | None:
        """What `value`, `margin` and `logit` need to tell objects of a class apart: the scenes of unmasked images as their targets see
        them, `(batch, height, width)`; None where every target is a whole class, for which each output is its own scene.

        Args:
            output: Of the unmasked images.
            targets: One per image.
        """
        if self.scene is None or not is_any_object(targets):
            return None
        rows = (self.scene(row[None]) for row in output.detach())
        return torch.stack([object_scene(scene, target) for scene, target in zip(rows, targets, strict=True)])

    def check(self, output: torch.Tensor, method: str) -> None:
        """Refuse an output that it cannot read.

        Raises:
            ModelError: Naming the shape.
        """
        if output.ndim != self.axes or output.shape[1] < 2:
            wanted = "(1, class) logits" if self.axes == 2 else "(1, class, height, width) logits of a dense model"
            raise ModelError(
                f"the model returns {tuple(output.shape)} for one image; {method} needs {wanted} with at least 2 classes"
            )


def softmax_probability(
    logits: Float[torch.Tensor, "batch class"], targets: Int[torch.Tensor, " batch"], scenes: None = None
) -> Float[torch.Tensor, " batch"]:
    """Psi of the paper: softmax probability of the target, in [0, 1], in float32 at least."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return wide.softmax(dim=1).gather(1, targets[:, None]).squeeze(1)


def softmax_margin(
    logits: Float[torch.Tensor, "batch class"], targets: Int[torch.Tensor, " batch"], scenes: None = None
) -> Float[torch.Tensor, " batch"]:
    """`z_c - logsumexp(z_j, j != c)`: dPsi = Psi (1 - Psi) dmargin, so eq. 7 keeps the same maps, also where Psi rounds to 1."""
    others = logits.scatter(1, targets[:, None], float("-inf"))
    return logits.gather(1, targets[:, None]).squeeze(1) - others.logsumexp(dim=1)


def sigmoid_probability(
    logits: Float[torch.Tensor, "batch class"], targets: Int[torch.Tensor, " batch"], scenes: None = None
) -> Float[torch.Tensor, " batch"]:
    """Probability of the target in a model whose classes do not exclude each other, in [0, 1], in float32 at least."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return wide.gather(1, targets[:, None]).squeeze(1).sigmoid()


def target_logit(
    logits: Float[torch.Tensor, "batch class"], targets: Int[torch.Tensor, " batch"], scenes: None = None
) -> Float[torch.Tensor, " batch"]:
    """`z_c`, which is the sigmoid's margin: dPsi = Psi (1 - Psi) dz_c."""
    return logits.gather(1, targets[:, None]).squeeze(1)


def own_logits(logits: Float[torch.Tensor, "1 class"]) -> Float[torch.Tensor, " class"]:
    """A classifier's ranking: its logits, which rank as the probabilities do."""
    return logits[0]


def soft_overlap(
    logits: Float[torch.Tensor, "batch class height width"],
    targets: Int[torch.Tensor, " batch"],
    scenes: Int[torch.Tensor, "batch height width"] | None = None,
) -> Float[torch.Tensor, " batch"]:
    """Soft intersection over union of the target's softmax map p with its mask m in the scene: sum(p m) / (sum(p) + sum(m) - sum(p m)).

    In [0, 1], in float32 at least; 0 where the scene has nothing of the target.
    """
    wide = logits if logits.dtype == torch.float64 else logits.float()
    chosen = wide[torch.arange(len(wide), device=wide.device), targets]
    shares = (chosen - wide.logsumexp(dim=1)).exp()
    mask = _masks(logits, targets, scenes).to(shares)
    shared, own, seen = ((area).sum(dim=(1, 2)) for area in (shares * mask, mask, shares))
    return torch.where(own > 0, shared / (seen + own - shared).clamp(min=torch.finfo(shares.dtype).tiny), 0)


def sum_in_mask(
    logits: Float[torch.Tensor, "batch class height width"],
    targets: Int[torch.Tensor, " batch"],
    scenes: Int[torch.Tensor, "batch height width"] | None = None,
) -> Float[torch.Tensor, " batch"]:
    """Sum of the target's logits over its mask in the scene, or over the pixels whose largest logit is its; the mask carries no gradient."""
    chosen = logits[torch.arange(len(logits), device=logits.device), targets]
    return torch.where(_masks(logits, targets, scenes), chosen, 0).sum(dim=(1, 2))


def soft_dice(
    logits: Float[torch.Tensor, "batch class height width"],
    targets: Int[torch.Tensor, " batch"],
    scenes: Int[torch.Tensor, "batch height width"] | None = None,
) -> Float[torch.Tensor, " batch"]:
    """Soft Dice of the target's softmax map p with its mask m in the scene: 2 sum(p m) / (sum(p) + sum(m)), which is 2 IoU / (1 + IoU).

    In [0, 1], in float32 at least; 0 where the scene has nothing of the target.
    """
    overlap = soft_overlap(logits, targets, scenes)
    return 2 * overlap / (1 + overlap)


def mean_in_mask(
    logits: Float[torch.Tensor, "batch class height width"],
    targets: Int[torch.Tensor, " batch"],
    scenes: Int[torch.Tensor, "batch height width"] | None = None,
) -> Float[torch.Tensor, " batch"]:
    """Mean of the target's logits over its mask in the scene; the mask carries no gradient. 0 where the scene has nothing of it."""
    chosen = logits[torch.arange(len(logits), device=logits.device), targets]
    mask = _masks(logits, targets, scenes)
    return torch.where(mask, chosen, 0).sum(dim=(1, 2)) / mask.sum(dim=(1, 2)).clamp(min=1)


def truth_overlap(
    logits: Float[torch.Tensor, "batch class height width"],
    targets: Int[torch.Tensor, " batch"],
    scenes: Int[torch.Tensor, "batch height width"] | None = None,
) -> Float[torch.Tensor, " batch"]:
    """IoU of the pixels whose largest logit is the target's with those where the scene is 1, in [0, 1]; 0 where both are empty.

    Pixels of other objects of the class (-1 in the scene) count for neither. Logits of another size than the scene are enlarged bilinearly.
    """
    if scenes is not None and scenes.shape[1:] != logits.shape[2:]:
        logits = torch.nn.functional.interpolate(logits.float(), scenes.shape[1:], mode="bilinear", align_corners=False)
    own = _masks(logits, targets, None)
    truth = own if scenes is None else scenes == 1
    own = own if scenes is None else own & (scenes != OTHER_OBJECT)
    shared, joint = (area.sum(dim=(1, 2)).float() for area in (own & truth, own | truth))
    return shared / joint.clamp(min=1)


def areas(logits: Float[torch.Tensor, "1 class height width"]) -> Float[torch.Tensor, " class"]:
    """Share of the pixels that each class has; the background behind all others, what is nowhere minus infinity."""
    classes, pixels = logits.shape[1], logits.shape[2] * logits.shape[3]
    shares = torch.bincount(scene_of(logits).flatten().long(), minlength=classes)[:classes] / pixels
    shares[BACKGROUND] *= 1 / (2 * pixels)
    return torch.where(shares > 0, shares, float("-inf"))


def scene_of(logits: Float[torch.Tensor, "1 class height width"]) -> Int[torch.Tensor, "height width"]:
    """The class with the largest logit at every pixel."""
    return logits[0].argmax(dim=0).to(torch.int16)


def _masks(logits: torch.Tensor, targets: torch.Tensor, scenes: torch.Tensor | None) -> torch.Tensor:
    classes = logits.detach().argmax(dim=1) if scenes is None else scenes
    return classes == targets[:, None, None]


SOFTMAX = Confidence("softmax", softmax_probability, softmax_margin, own_logits, target_logit)
SIGMOID = Confidence("sigmoid", sigmoid_probability, target_logit, own_logits, target_logit)
LOGIT = Confidence("logit", target_logit, target_logit, own_logits, target_logit)
"""The target's logit itself, for methods that compare masks with each other; no probability, so not among `CONFIDENCES`."""
SEGMENTATION = Confidence("segmentation", soft_overlap, sum_in_mask, areas, sum_in_mask, scene_of)
DICE = Confidence("dice", soft_dice, mean_in_mask, areas, mean_in_mask, scene_of)
TRUTH_OVERLAP = Confidence("truth overlap", truth_overlap, sum_in_mask, areas, sum_in_mask, scene_of)
"""Of dense models, for metrics that compare with ground truth, which is handed over as the scene; not among `CONFIDENCES`."""
CONFIDENCES = {meaning.name: meaning for meaning in (SOFTMAX, SIGMOID, SEGMENTATION, DICE)}
DENSE_CONFIDENCES = tuple(name for name, meaning in CONFIDENCES.items() if meaning.scene is not None)
