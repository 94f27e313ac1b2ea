"""Consensus: several methods' maps as ranks, averaged; and how much they disagree, since the hardest images are where they do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from itertools import combinations
from typing import Any

from jaxtyping import Float

from ... import statuses
from ..explainer import Explainer
from ..explanation import Explanation
from ..lazy_torch import torch
from ..requests import Steps, Together
from ..scoring.scoring_options import Scoring
from .batch_method import BatchMethod
from .protocol import Cost, Method, method, require, setting
from .registry import find_method, make_explainer


def pixel_ranks(maps: Float[torch.Tensor, "batch height width"]) -> Float[torch.Tensor, "batch pixel"]:
    """Ranks in [0, 1], equal values sharing the mean of their places; NaN for a map that is not finite."""
    from ..metrics.ranking import average_ranks

    flat = maps.flatten(1)
    ranks = (average_ranks(flat) - 1) / max(flat.shape[1] - 1, 1)
    return torch.where(flat.isfinite().all(dim=1, keepdim=True), ranks, torch.nan)


def disagreement(ranks: Float[torch.Tensor, "method batch pixel"]) -> Float[torch.Tensor, " batch"]:
    """1 less the mean of Spearman's correlation over all pairs of methods: 0 where all rank alike, above 1 where they rank against
    each other. A method whose map is constant agrees with none: its correlations are 0."""
    from ..metrics.ranking import correlation

    pairs = torch.stack(
        [correlation(ranks[first], ranks[second]) for first, second in combinations(range(len(ranks)), 2)]
    )
    return 1 - pairs.nan_to_num(0).mean(dim=0)


def members_of(settings: Any) -> dict[str, Method]:
    """The methods that it asks for.

    Raises:
        SettingsError: When there is none of a name.
    """
    return {name: find_method(name) for name in settings.of}


def cost(settings: Any) -> Cost | None:
    """The sum over its methods; None where one's depends on the image."""
    costs: list[Any] = [member.cost(member.settings()) for member in members_of(settings).values()]
    if None in costs:
        return None
    return Cost(sum(each.forwards for each in costs), sum(each.backwards for each in costs))


@method(
    name="consensus",
    summary="mean rank of several methods' maps, and how much they disagree",
    source="rank average; no paper",
    status="ours",
    architecture="cnn",
    cost=cost,
    gradients=True,
    resolution="input",
    extras={"disagreement": "1 less the mean Spearman correlation over pairs of the methods; 0 where all agree"},
)
class Consensus(Explainer):
    """The mean rank of every pixel over the methods, in [0, 1]."""

    of: tuple[str, ...] = setting(
        default=("grad_cam", "grad_cam_pp", "layer_cam", "integrated_gradients"),
        text="methods that are averaged, two or more",
    )

    def check(self) -> None:
        require(len(set(self.of)) >= 2, f"of must name two methods or more, got {', '.join(self.of) or 'none'}")
        require(len(set(self.of)) == len(self.of), f"of names a method twice: {', '.join(self.of)}")
        require("consensus" not in self.of, "of must not name consensus itself")
        shown = [name for name, member in members_of(self).items() if member.for_display]
        require(not shown, f"of must not name {', '.join(shown)}, whose map holds more than the model's evidence")

    def bind(self) -> None:
        _ = self.members

    @cached_property
    def members(self) -> list[Explainer]:
        """The methods over the model, in the precision of the run where they score no masks."""
        own = Scoring(batch_size=self.batch_size, images=self.images, confidence=self.confidence)
        return [
            make_explainer(name, self.model, None, own if member.packed else replace(own, precision=self.precision))
            for name, member in members_of(self).items()
        ]

    def explain_image(
        self, image: Float[torch.Tensor, "channel height width"], target: int | None, seed: int
    ) -> Steps[Explanation]:
        logits = yield self.rows_of(self.read_logits, image, target, seed)
        if logits.target is None or logits.failure is not None:
            return logits.explanation()
        explanations = yield Together([known_class(member, image, logits.target, seed) for member in self.members])
        ranks = torch.stack([pixel_ranks(shown(each, image)[None]) for each in explanations])
        return logits.explanation(
            ranks.mean(dim=0)[0].reshape(image.shape[1:]).float(),
            n_forwards=1 + sum(each.n_forwards for each in explanations),
            n_backwards=sum(each.n_backwards for each in explanations),
            extras={"disagreement": disagreement(ranks)[0]},
        )

    def extra_shapes(self, image: Float[torch.Tensor, "channel height width"]) -> Mapping[str, tuple[int, ...]]:
        """One number."""
        return {"disagreement": ()}


def known_class(member: Explainer, image: torch.Tensor, target: int, seed: int) -> Steps[Explanation]:
    """A member's explanation, with no forward of its own where a batch method has no need of one."""
    if isinstance(member, BatchMethod):
        return member.known_class(image, target, seed)
    return member.start(image, target, seed)


def shown(explanation: Explanation, image: torch.Tensor) -> Float[torch.Tensor, "height width"]:
    """Its map; zeros where it says nothing of the image, NaN where it breaks."""
    blank = torch.nan if explanation.status == statuses.NON_FINITE else 0.0
    return image.new_full(image.shape[1:], blank, dtype=torch.float32) if explanation.map is None else explanation.map
