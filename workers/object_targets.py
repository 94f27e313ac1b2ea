"""Objects of a class as targets: the connected components of its mask in what a dense model makes of the unmasked image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

from ..engine.explanation import Explanation
from ..engine.scoring.object_scenes import ObjectTarget, connected_regions
from ..errors import SampleError
from ..statuses import NO_EVIDENCE
from .images.geometry import Geometry
from .samples import Box
from .targets import COMPONENTS_LIMIT

SMALLEST_SHARE = 1e-3
"""Of the output's pixels: what has less is speckle at the edges of regions and no object."""
NO_MORE = "more"
"""`object_id` of the row that says how many components are not explained."""


@dataclass(frozen=True, eq=False)
class ImageObjects:
    """The objects of one class in an image."""

    explained: tuple[ObjectTarget, ...]
    """The largest first; `object_id` is the place in that order, from `001` on."""
    left_out: int
    """Further ones that are large enough, but beyond the limit."""

    def note(self) -> str | None:
        """What is left out, in words."""
        if not self.left_out:
            return None
        total = len(self.explained) + self.left_out
        return (
            f"{self.left_out} of {total} components of class {int(self.explained[0])} are not explained: at most {len(self.explained)} of an "
            f"image, the largest ones (components:CLASS:{total} explains all)"
        )


def image_objects(scene: Int[Tensor, "height width"], target: int, most: int) -> ImageObjects:
    """The connected components (8 neighbours) of a class's mask that have at least a thousandth of the pixels.

    Args:
        scene: The class of every pixel of the unmasked image.
        target: The class.
        most: How many are explained.

    Raises:
        SampleError: `no_evidence` where there is none, or none that is large enough.
    """
    least = SMALLEST_SHARE * scene.numel()
    regions = connected_regions(scene == target)
    count = sum(size >= least for size in regions.sizes)
    if not count:
        tiny = (
            f" but in {len(regions)} components of less than {100 * SMALLEST_SHARE:g} % of the pixels"
            if regions
            else ""
        )
        raise SampleError(NO_EVIDENCE, f"the model finds class {target} nowhere in the image{tiny}")
    named = (ObjectTarget(target, f"{place + 1:03d}", regions.mask(place)) for place in range(min(most, count)))
    return ImageObjects(tuple(named), max(0, count - most))


def recognised_objects(
    scene: Int[Tensor, "height width"] | None, given: Sequence[Explanation]
) -> tuple[int | ObjectTarget | None, ...]:
    """The targets of stored explanations, those about objects with the object's pixels found again.

    Raises:
        SampleError: `no_evidence` where the model finds fewer objects now.
    """
    targets: list[int | ObjectTarget | None] = []
    for explanation in given:
        if explanation.object_id is None or explanation.target is None or scene is None:
            targets.append(explanation.target)
            continue
        objects = image_objects(scene, int(explanation.target), COMPONENTS_LIMIT).explained
        named = [each for each in objects if each.object_id == explanation.object_id]
        if not named:
            raise SampleError(
                NO_EVIDENCE, f"the model finds no object {explanation.object_id} of class {explanation.target} any more"
            )
        targets += named
    return tuple(targets)


def box_of(target: ObjectTarget, geometry: Geometry) -> Box:
    """The box around an object `(x0, y0, x1, y1)` in pixels of the image as decoded, within it."""
    height, width = target.region.shape
    rows, columns = (target.region.any(dim=axis).nonzero()[:, 0].tolist() for axis in (1, 0))
    down, across = geometry.size[0] / height, geometry.size[1] / width
    window = (columns[0] * across, rows[0] * down, (columns[-1] + 1) * across, (rows[-1] + 1) * down)
    return geometry.source_box(window)
