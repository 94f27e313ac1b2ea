"""Storage that is gone is one fault of the run and not one of every shard: counted over all shards, forgotten at the first success."""

from __future__ import annotations

from collections import Counter

FAILURES_IN_ROW = 5
"""Failed puts of one shard, each after its own retries with nothing stored in between, after which the storage counts as gone."""
PAUSE_SECONDS = 0.5
"""Between two puts; each retries by itself for some ten seconds."""
LONGEST_PAUSE_SECONDS = 30.0
"""While the storage is waited for."""


class StorageOutage:
    """Failed puts since the last one that went well.

    Args:
        wait: Whether the storage is waited for, however long it takes.
    """

    def __init__(self, *, wait: bool = False):
        self._wait = wait
        self._failures: Counter[int] = Counter()
        self._noted = False

    def failed(self, shard: int, *, permanent: bool) -> bool:
        """Note a put that failed; True if the run has to end."""
        self._failures[shard] += 1
        return not self._wait and (permanent or self._failures[shard] >= FAILURES_IN_ROW)

    def over(self) -> None:
        """Something was stored."""
        self._failures.clear()
        self._noted = False

    @property
    def pause(self) -> float:
        """Seconds until the next put of the shard that failed last."""
        most = max(self._failures.values(), default=0)
        return min(PAUSE_SECONDS * 2 ** min(most, 8), LONGEST_PAUSE_SECONDS) if self._wait else PAUSE_SECONDS

    def note(self, text: str) -> str:
        """What to tell the user of a wait; empty but for the first time of an outage."""
        if not self._wait or self._noted:
            return ""
        self._noted = True
        return f"waiting for the storage, with the computed rows kept: {text}"

    def reason(self, text: str) -> str:
        """Why the run ends."""
        return f"the storage is gone: {text} (--wait-for-space waits for it instead)"
