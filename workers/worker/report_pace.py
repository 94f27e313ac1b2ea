"""How many images a worker reports at once: one where images are slow, so that a death names its image; more where they are fast,
because every report costs the driver a round trip."""

from __future__ import annotations

import time
from collections.abc import Callable

LARGEST_GROUP = 64
"""Images that a death can leave in doubt; the shard is then repeated image by image."""
SHORT_SECONDS, LONG_SECONDS = 0.1, 0.4
"""Between two reports: groups grow below the first, so that a worker sends some ten a second, and shrink above the second."""


class ReportPace:
    """Kept by a worker over all of its shards.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self._clock = clock
        self._last: float | None = None
        self.size = 1
        """Images of the next report."""

    def reported(self) -> None:
        """A report is out."""
        now = self._clock()
        if self._last is not None:
            if now - self._last < SHORT_SECONDS:
                self.size = min(2 * self.size, LARGEST_GROUP)
            elif now - self._last > LONG_SECONDS:
                self.size = max(1, self.size // 2)
        self._last = now

    def pause(self) -> None:
        """What comes next is no measure of how fast images are."""
        self._last = None
