"""What a session asks of whatever explains its images: SISE, another method on the packed scorer, or a batch method behind an adapter."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from .explanation import Explanation
from .scoring.masked_scorer import Scorer


@runtime_checkable
class Explainer(Protocol):
    """Explains images of which several are in flight: `begin` each, `advance` it until it is `done`, then `complete` it.

    What `begin` returns has a property `done`; nothing else looks into it.
    """

    @property
    def model(self) -> nn.Module: ...
    @property
    def scorer(self) -> Scorer:
        """Scores the metrics' probes, too."""
        ...

    @property
    def keep_layers(self) -> bool:
        """Whether explanations keep the block maps."""
        ...

    def begin(self, image: Float[Tensor, "channel height width"], target: int | None, seed: int = 0) -> Any:
        """Take an image in.

        Args:
            image: In network-input space, on the model's device.
            target: The class to explain; None for the predicted one.
            seed: Stands for the image in random draws.

        Raises:
            TargetError: When `target` is no class of the model; nothing was taken in.
        """
        ...

    def advance(self, pending: Any) -> bool:
        """Take in what is scored of an image and queue what it needs next; whether there was something to do."""
        ...

    def flush(self) -> None:
        """Work off what is queued, also where it fills no batch."""
        ...

    def complete(self, pending: Any, *, keep_layers: bool | None = None) -> Explanation:
        """Of an image that is done."""
        ...

    def reset(self) -> None:
        """Forget everything in flight."""
        ...

    def over(self, model: nn.Module) -> Explainer:
        """The same explainer, settings and all, over another model of the same architecture."""
        ...


def finish(explainer: Explainer, *pending: Any) -> None:
    """Work until these images are done."""
    while True:
        explainer.flush()
        if not sum(explainer.advance(one) for one in pending):
            return
