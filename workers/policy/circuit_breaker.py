"""The circuit breaker: when too many of the recent images failed, something else than the images is wrong."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from ... import statuses

WINDOW = 200
"""Images that count as recent."""
LEAST = 20
"""With fewer images no rate is meaningful."""
FAILURES = frozenset(statuses.STATUSES) - {
    statuses.OK,
    statuses.NO_TARGET,
    statuses.NO_MAP,
    statuses.NO_EVIDENCE,
    statuses.CONSTANT_MAP,
}
"""`no_target`, `no_map`, `no_evidence` and `constant_map` are what the model, the method or the user says about an image, not failures."""


def count_failures(counts: Mapping[str, int]) -> int:
    """Failed images among `counts` (rows by status)."""
    return sum(number for status, number in counts.items() if status in FAILURES)


class Breaker:
    """Share of failures among the last images, in chunks as they come in; the newest chunk always counts whole.

    Args:
        max_error_rate: In [0, 1]; the breaker opens above it, so 1 never opens it.
    """

    def __init__(self, max_error_rate: float):
        self.max_error_rate = max_error_rate
        self._chunks: deque[tuple[int, int]] = deque()

    def add(self, failed: int, images: int) -> bool:
        """Note `failed` of `images`; True if the breaker is open now."""
        self._chunks.append((failed, images))
        while self.images - self._chunks[0][1] >= WINDOW:
            self._chunks.popleft()
        return self.open

    @property
    def failed(self) -> int:
        return sum(failed for failed, _ in self._chunks)

    @property
    def images(self) -> int:
        return sum(images for _, images in self._chunks)

    @property
    def open(self) -> bool:
        return self.images >= LEAST and self.failed > self.max_error_rate * self.images

    def reason(self) -> str:
        """Text for the user: what happened, the limit, the remedy."""
        return (
            f"{self.failed} of the last {self.images} images failed, more than the allowed share of "
            f"{self.max_error_rate:g}; look at the errors, and raise max_error_rate (1 switches it off) if they are expected"
        )
