"""What a shard worker asks of whatever explains images, so that tests can put something else in its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from ...engine.explanation import Explanation
from ...engine.scoring.whole_image import ClassOverview
from ...engine.session import Explained
from ...engine.time_spent import WorkMeter
from ..images.decode import Prepared
from ..protocols import SampleReader
from ..samples import Sample
from .spec import WorkerSpec


@runtime_checkable
class Session(Protocol):
    """Explains a stream of images, several in flight; see `engine.session.ExplainSession`."""

    def push(
        self,
        key: int,
        image: Tensor,
        *,
        target: int | None = None,
        truth: Tensor | None = None,
        label: int | None = None,
        sample_seed: int | None = None,
        given: Explanation | None = None,
    ) -> Sequence[Explained]:
        """Take an image in, return those that are finished."""
        ...

    def finish(self) -> Sequence[Explained]:
        """Return every image still in flight."""
        ...

    def reset(self) -> None:
        """Forget everything in flight."""
        ...


@runtime_checkable
class Engine(Protocol):
    """A loaded model with its preprocessing and a session."""

    @property
    def session(self) -> Session: ...
    @property
    def meter(self) -> WorkMeter:
        """Where the time goes."""
        ...

    @property
    def num_classes(self) -> int | None: ...
    @property
    def device(self) -> str:
        """As stored in the rows: `cpu`, `cuda:NVIDIA H100`, ..."""
        ...

    @property
    def batch_size(self) -> int:
        """Masked images per forward, as the device's memory allows."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of how the engine could be built."""
        ...

    def prepare(self, sample: Sample, reader: SampleReader) -> Prepared:
        """Read, decode and preprocess; called from several threads.

        Raises:
            SampleError: When the sample cannot be used.
        """
        ...

    @property
    def precision(self) -> str:
        """As stored in the rows."""
        ...

    def overview(self, image: Tensor, label: int | None) -> ClassOverview:
        """One forward pass: what the model says of a prepared image."""
        ...

    def shrink(self) -> bool:
        """Halve the micro-batch after the device ran out of memory; False if it is 1 already."""
        ...

    def usable(self) -> bool:
        """Whether the device still computes; False after a sticky accelerator fault."""
        ...


Build = Callable[[WorkerSpec, SampleReader], Engine]
