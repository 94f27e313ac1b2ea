"""The shapes of the demo as signed distances: negative inside, positive outside, in pixels.

A signed distance gives everything at once and exactly: the ground-truth mask (distance below zero), an anti-aliased edge, and
the soft shadow. Shapes are written in unit coordinates (circumradius 1, y down) and then turned, scaled and moved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Field = Float[np.ndarray, "height width"]
Distance = Callable[[Field, Field], Field]


@dataclass(frozen=True, slots=True)
class Pose:
    """Where a shape lies: centre and circumradius in pixels, angle in radians."""

    x: float
    y: float
    radius: float
    angle: float


def distance_to(shape: str, pose: Pose, size: int) -> Field:
    """Signed distance of every pixel centre of a `size` x `size` image to the edge of `shape`, in pixels."""
    rows, columns = np.mgrid[0:size, 0:size] + 0.5
    dx, dy = (columns - pose.x) / pose.radius, (rows - pose.y) / pose.radius
    cos, sin = np.cos(pose.angle), np.sin(pose.angle)
    return SHAPES[shape](cos * dx + sin * dy, cos * dy - sin * dx) * pose.radius


def _polygon(corners: Float[np.ndarray, "corner 2"]) -> Distance:
    """Distance to a simple polygon: the nearest edge, negative where a ray crosses the outline an odd number of times."""
    edges = list(zip(corners, np.roll(corners, -1, axis=0), strict=True))

    def distance(x: Field, y: Field) -> Field:
        nearest, inside = np.full(x.shape, np.inf), np.zeros(x.shape, bool)
        for (ax, ay), (bx, by) in edges:
            ex, ey = bx - ax, by - ay
            along = np.clip(((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey), 0, 1)
            nearest = np.minimum(nearest, np.hypot(x - ax - along * ex, y - ay - along * ey))
            if ay != by:
                inside ^= ((y < ay) != (y < by)) & (x < ax + (y - ay) * ex / ey)
        return np.where(inside, -nearest, nearest)

    return distance


def _corners(*radii: float, turns: int) -> Float[np.ndarray, "corner 2"]:
    """Corners at equal angles, their distances from the centre cycling through `radii`; the first one points up."""
    angles = np.arange(turns * len(radii)) * 2 * np.pi / (turns * len(radii))
    reach = np.tile(radii, turns)
    return np.stack([reach * np.sin(angles), -reach * np.cos(angles)], axis=1)


def _cross(arm: float) -> Float[np.ndarray, "corner 2"]:
    """A plus sign whose arms are `2 * arm` wide and end at circumradius 1."""
    end = np.sqrt(1 - arm * arm)
    quarter = np.array([[-arm, -end], [arm, -end], [arm, -arm]])
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    return np.concatenate([quarter @ np.linalg.matrix_power(turn, k) for k in range(4)])


def _crescent(x: Field, y: Field) -> Field:
    return np.maximum(np.hypot(x, y) - 1, 0.78 - np.hypot(x - 0.5, y))


SHAPES: dict[str, Distance] = {
    "disc": lambda x, y: np.hypot(x, y) - 0.95,
    "octagon": _polygon(_corners(1.0, turns=8)),
    "square": _polygon(_corners(1.0, turns=4)),
    "triangle": _polygon(_corners(1.0, turns=3)),
    "star": _polygon(_corners(1.0, 0.45, turns=5)),
    "cross": _polygon(_cross(0.3)),
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.74) - 0.24,
    "crescent": _crescent,
}
"""Every shape's name and unit distance; the order is that of the classes."""
