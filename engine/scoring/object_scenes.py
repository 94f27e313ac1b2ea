"""One object of a class as a target: which of the class's pixels it has, and what a dense model's scene is without the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool, Int

from ...errors import TargetError
from ..lazy_torch import torch

OTHER_OBJECT = -1
"""In a scene: a pixel of the target's class that belongs to another object."""


class ObjectTarget(int):
    """A class of a dense model of which one object is explained; wherever a class is asked for, it is that class.

    Args:
        target: The class.
        object_id: Names the object among those of the image.
        region: Its pixels in the unmasked image, at the resolution of the model's output; at least one.
    """

    object_id: str
    region: Bool[torch.Tensor, "height width"]

    def __new__(cls, target: int, object_id: str, region: torch.Tensor) -> ObjectTarget:
        made = super().__new__(cls, target)
        made.object_id, made.region = object_id, region
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return ObjectTarget, (int(self), self.object_id, self.region)


@dataclass(frozen=True, eq=False)
class Regions:
    """The connected components of a mask (8 neighbours), the largest first; of equally large ones the one whose first pixel comes first."""

    numbers: Int[torch.Tensor, "height width"]
    """Of every pixel the number of its component, from 1 on; 0 outside the mask."""
    order: tuple[int, ...]
    """The components' numbers."""
    sizes: tuple[int, ...]
    """Their pixels, in this order."""

    def __len__(self) -> int:
        return len(self.order)

    def mask(self, place: int) -> Bool[torch.Tensor, "height width"]:
        """The pixels of one of them, by its place in the order."""
        return self.numbers == self.order[place]


def connected_regions(mask: Bool[torch.Tensor, "height width"]) -> Regions:
    """Find them; a mask of noise has thousands, so their pixels are told one by one."""
    import numpy as np
    from scipy import ndimage

    labelled: Any = ndimage.label(mask.cpu().numpy(), np.ones((3, 3), dtype=bool))
    numbers, count = labelled
    sizes = np.bincount(numbers.ravel(), minlength=count + 1)[1:]
    order = np.argsort(-sizes, kind="stable")  # numbers are given in the order of first pixels
    return Regions(torch.from_numpy(numbers).to(mask.device), tuple((order + 1).tolist()), tuple(sizes[order].tolist()))


def object_scene(scene: Int[torch.Tensor, "height width"], target: int | None) -> Int[torch.Tensor, "height width"]:
    """The class of every pixel as a score for `target` is to see it: of an object only its own pixels are of its class.

    Raises:
        TargetError: If the object was found in an image of another size.
    """
    if not isinstance(target, ObjectTarget):
        return scene
    region = target.region.to(scene.device)
    if region.shape != scene.shape:
        raise TargetError(
            f"object {target.object_id} was found in an output of {tuple(region.shape)} pixels, the model gives {tuple(scene.shape)}"
        )
    others = torch.where(scene == int(target), OTHER_OBJECT, scene)
    return torch.where(region, int(target), others).to(scene.dtype)


def object_truth(truth: Bool[torch.Tensor, "height width"], target: int | None) -> Bool[torch.Tensor, "height width"]:
    """Of ground truth those connected parts that touch the object; all of it where the target is a whole class."""
    if not isinstance(target, ObjectTarget):
        return truth
    region = resized_to(target.region, truth)
    numbers = connected_regions(truth).numbers
    touched = numbers[region & truth].unique()
    return torch.isin(numbers, touched)


def resized_to(classes: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Pixels `(height, width)` at the size of another picture, on its device; each takes the value under its centre."""
    classes = classes.to(like.device)
    if classes.shape == like.shape:
        return classes
    rows, columns = (
        ((2 * torch.arange(wanted, device=like.device) + 1) * there).div(2 * wanted, rounding_mode="floor")
        for wanted, there in zip(like.shape, classes.shape, strict=True)
    )
    return classes[rows][:, columns]


def is_any_object(targets: Sequence[int | None]) -> bool:
    """Whether one of the targets is an object rather than a class."""
    return any(isinstance(target, ObjectTarget) for target in targets)
