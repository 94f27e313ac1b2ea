"""What a method asks for while it explains one image.

A method is a generator: it yields requests and is sent the replies. The scheduler serves them, for several images together, so that
a method knows nothing of batches, of what else is in flight, or of when the device is busy:

    def explain_image(self, image, target, seed):
        logits, layers = yield Rows(self.select_masks, image, target, seed)
        scores = yield Score(self.scorer, image, [layer.job for layer in layers])
        ...

A part of a conversation is a generator of its own: `yield from` it, or yield several at once with `Together`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from .lazy_torch import torch

if TYPE_CHECKING:
    from .scoring.masked_scorer import Scorer

Result = TypeVar("Result")
Fill = Callable[[int, "torch.Tensor"], object]
"""`fill(start, out)` writes the variants `start, start + 1, ...` into `out` `(n, channel, height, width)`."""


@dataclass(eq=False)
class Job:
    """`count` variants of one image, to be scored for one class."""

    count: int
    target: int
    fill: Fill
    scores: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    """Psi of every variant `(count,)` on the device, valid once `done`."""
    waiting: int = 0
    """Variants that are not scored yet."""

    @property
    def done(self) -> bool:
        return self.waiting == 0


@dataclass(eq=False)
class Score:
    """The model's confidence in a class with only a part of an image visible. Reply: None; every job has its scores."""

    scorer: Scorer
    image: torch.Tensor
    """`(channel, height, width)`: the network input of which the jobs make variants."""
    jobs: Sequence[Job]


@dataclass(eq=False)
class Rows:
    """One row of a batch. `function(images, targets, seeds)` is called once for the rows that several images ask for, and each is
    answered with its own: the reply is `function(...)[place]`.

    Every call has the same number of rows, missing ones are copies of the last, so that a row's bits do not depend on its neighbours.
    """

    function: Callable[[torch.Tensor, list[int | None], list[int]], Sequence[Any]]
    image: torch.Tensor
    target: int | None
    seed: int
    limit: int
    """Rows of a call, at least 1."""


@dataclass(eq=False)
class Batched:
    """Work on the device that several images share and that is no pass of the model. `function(items)` is called once for the items
    that they bring, and each is answered with its own: the reply is `function(...)[place]`.

    As with `Rows` every call has the same number of items.
    """

    function: Callable[[list[Any]], Sequence[Any]]
    item: Any
    key: Hashable
    """What items must have in common, such as shapes."""
    limit: int
    """Items of a call, at least 1."""


@dataclass(eq=False)
class Together:
    """Several conversations at once, which share batches. Reply: a list of their results."""

    parts: Sequence[Generator[Any, Any, Any]]


Request = Score | Rows | Batched | Together
Steps = Generator[Request, Any, Result]
"""A conversation that ends with a result."""
