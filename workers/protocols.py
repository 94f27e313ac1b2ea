"""What a worker needs from outside, injected so that `workers/` never imports upward. Implementations live in `pipeline/`
and must be picklable, because they travel into actors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from .samples import Row, Sample, Shard

if TYPE_CHECKING:
    from ..engine.explanation import Explanation


@runtime_checkable
class SampleReader(Protocol):
    """Bytes of an image or mask by its uri."""

    def read(self, uri: str) -> bytes:
        """The whole object.

        Raises:
            SampleError: With status `read_error`, when the object cannot be read.
        """
        ...


@runtime_checkable
class StoredExplanations(Protocol):
    """What an earlier run said of its samples."""

    def of(self, sample: Sample) -> Sequence[Explanation]:
        """The explanations that have a map, one for each target, at network-input resolution; of a stored run for a sample whose
        `explained_in` is set. Without a prediction the model is asked for what it says. Called from several threads.

        Raises:
            StorageError: When it is not there or cannot be read.
            SampleError: When the sample has none.
        """
        ...


@runtime_checkable
class RowEncoder(Protocol):
    """A sink that can encode a finished row before its shard is committed."""

    def encode(self, row: Row) -> None:
        """Encode what takes time and keep it in the row. Called once for a row, from a thread beside the work; `commit` does what was
        left out."""
        ...


@runtime_checkable
class ShardSink(Protocol):
    """Where a finished shard goes."""

    def commit(self, shard: Shard, rows: Sequence[Row]) -> bool:
        """Store the rows of `shard` atomically, if nobody has stored that shard before.

        Returns:
            True if these rows are now the shard's, False if another writer was first (which counts as success).

        Raises:
            StorageError: When storage still fails after retries; nothing partial is then visible.
        """
        ...
