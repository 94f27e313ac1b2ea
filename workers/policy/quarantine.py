"""Which image kills its worker: the one in flight at three consecutive deaths on its shard.

A prototype quarantined after two deaths, not even consecutive, and so blamed innocent images.
"""

from __future__ import annotations

from collections.abc import Iterable

DEATHS_TO_QUARANTINE = 3


class Blame:
    """Deaths in a row that each image of one shard was alive at."""

    def __init__(self) -> None:
        self._streaks: dict[int, int] = {}

    def death(self, alive: Iterable[int]) -> tuple[int, ...]:
        """Note a death with these images in flight (none: it came during the write); images not among them start again at 0.

        Returns:
            The images that are guilty now; they are forgotten.
        """
        self._streaks = {image: self._streaks.get(image, 0) + 1 for image in alive}
        guilty = tuple(image for image, streak in self._streaks.items() if streak >= DEATHS_TO_QUARANTINE)
        for image in guilty:
            del self._streaks[image]
        return guilty
