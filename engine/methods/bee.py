"""BEE (Barkan, Elisha, Weill, Koenigstein, AAAI 2025, arXiv 2412.17512): gradients integrated on the way from baselines to a layer's maps.

The paper's text beyond its abstract was not at hand and its released code cannot run; what is here is a sound reading of both:
(h - h0) times the mean gradient of the target's logit between a drawn baseline h0 and the layer's maps h, at the midpoints of equal
steps, summed over channels, so that a map adds up to the difference of the logits. The release adds up products of gradient and
activation instead, which is `path=released`. `bee` averages over baselines of every family and tells how much the map hangs on
the choice; `bee_select` keeps the map that does best by a metric, as the paper does. Ours: the family `train` draws among activations that
the user stores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from jaxtyping import Float, Int

from ..explainer import Explainer
from ..lazy_torch import F, torch
from ..random import sample_generator
from .activation_baselines import FAMILIES, draw_baseline
from .batch_method import BatchMethod, MethodMaps, predicted_where_negative
from .cams import LAYER_TEXT, last_layer
from .layer_gradients import LayerGradients, target_logits
from .normalise import over_max, spread
from .protocol import Cost, method, require, require_one_of, setting
from .straight_path import path_gradient

RELEASED_PLACES = {"normal": 4, "uniform": 4, "blur": 5, "constant": 5, "train": 5}
"""Points of the released code's paths, both ends included."""
RECTIFIED = {"blur", "constant", "train"}
"""Families for which the released code multiplies positive gradients with positive activations."""
SOURCE = "Barkan et al., AAAI 2025, arXiv 2412.17512, as its abstract and code have it"


@dataclass(frozen=True, eq=False, kw_only=True)
class BaselinePaths(Explainer):
    """What both methods share: maps from baselines that are drawn."""

    layer: str | None = setting(default=None, text=LAYER_TEXT)
    families: tuple[str, ...] = setting(
        default=FAMILIES[:4],
        text="what baselines are drawn from: normal, uniform, blur, constant, train",
    )
    activations: str | None = setting(
        default=None,
        text="safetensors: `activations` (row, channel, h, w)",
    )
    steps: int = setting(default=10, text="points of each path, at least 1")
    path: Literal["midpoint", "released"] = setting(
        default="midpoint", text="midpoint: adds up to the logits' difference; released: times activation"
    )
    seed: int = setting(default=0, text="of the draws")

    def check(self) -> None:
        require(len(self.families) > 0, "families must name one at least")
        require(len(set(self.families)) == len(self.families), f"families names one twice: {', '.join(self.families)}")
        for family in self.families:
            require_one_of("families", family, FAMILIES)
        require(
            "train" not in self.families or self.activations is not None,
            "families has train, which draws among stored activations: name their file as activations, or leave train out",
        )
        require(self.steps >= 1, f"steps must be at least 1, got {self.steps}")
        require_one_of("path", self.path, ("midpoint", "released"))

    def bind(self) -> None:
        _ = self.stored  # a file that cannot be read is refused before anything runs

    @cached_property
    def gradients(self) -> LayerGradients:
        """Reads the layer."""
        return LayerGradients(self.model, None if self.layer is None else [self.layer], last_layer)

    @cached_property
    def stored(self) -> torch.Tensor | None:
        """Activations of other images `(row, channel, h, w)`."""
        from ..stored_tensor import read_tensor

        return None if self.activations is None else read_tensor(self.activations, "activations", axes=4)

    def path_map(
        self,
        images: Float[torch.Tensor, "batch channel height width"],
        targets: Int[torch.Tensor, " batch"],
        maps: Float[torch.Tensor, "batch layer_channel h w"],
        baselines: Float[torch.Tensor, "batch layer_channel h w"],
        family: str,
    ) -> Float[torch.Tensor, "batch h w"]:
        """Signed, at the layer's resolution; with `path=midpoint` it adds up to y_c(h) - y_c(h0) but for the steps."""
        from ..layers.capture import logits_with_layer

        places = self._places(family)
        shares = torch.tensor(places, device=maps.device, dtype=maps.dtype).reshape(1, -1, 1, 1, 1)
        repeated = targets.repeat_interleave(len(places))

        def score(points: torch.Tensor) -> torch.Tensor:
            logits = logits_with_layer(self.model, self.gradients.plan(images), images, points.flatten(0, 1))
            return target_logits(logits, repeated)

        way = (maps - baselines)[:, None]
        slopes, values = (each.double() for each in path_gradient(score, baselines[:, None], way, shares))
        if self.path == "midpoint":
            return (slopes.mean(dim=1) * way[:, 0].double()).sum(dim=1)
        return (slopes.relu() * values.relu() if family in RECTIFIED else slopes * values).sum(dim=(1, 2))

    def baselines(
        self,
        images: Float[torch.Tensor, "batch channel height width"],
        maps: Float[torch.Tensor, "batch layer_channel h w"],
        seeds: Sequence[int],
        family: str,
        draw: int,
    ) -> Float[torch.Tensor, "batch layer_channel h w"]:
        """One draw for each image; a stored activation of another shape is refused by name."""
        if family == "train" and self.stored is not None:
            require(
                self.stored.shape[1:] == maps.shape[1:],
                f"activations are {tuple(self.stored.shape[1:])} each, those of the layer {tuple(maps.shape[1:])}",
            )
        generators = [sample_generator(self.seed, seed, f"bee {family} {draw}") for seed in seeds]
        return torch.stack(
            [
                draw_baseline(family, each, images.shape[2], generator, self.stored)
                for each, generator in zip(maps, generators, strict=True)
            ]
        )

    def finished(
        self, signed: Float[torch.Tensor, "batch h w"], size: tuple[int, int]
    ) -> Float[torch.Tensor, "batch height width"]:
        """Bicubic to the input's size; then the positive part over its maximum, or of the released path the range to [0, 1]."""
        wide = F.interpolate(signed[:, None], size=size, mode="bicubic", align_corners=False)[:, 0]
        return (over_max(wide.relu()) if self.path == "midpoint" else spread(wide)).float()

    def _places(self, family: str) -> list[float]:
        if self.path == "midpoint":
            return [(step + 0.5) / self.steps for step in range(self.steps)]
        count = RELEASED_PLACES[family]
        return [step / (count - 1) for step in range(count)]


def path_points(settings: Any, family: str) -> int:
    """Forwards, and backwards, of one path."""
    return settings.steps if settings.path == "midpoint" else RELEASED_PLACES[family]


def cost(settings: Any) -> Cost:
    """One forward that reads the layer, then a forward and a backward from there for every point of every path."""
    points = settings.draws * sum(path_points(settings, family) for family in settings.families)
    return Cost(1 + points, points)


@method(
    name="bee",
    summary="gradients from drawn baselines of a layer, averaged; and how much the map hangs on the baseline",
    source=SOURCE,
    status="partial",
    completed="sound path integral in the place of the release's sums; stored activations for the family train",
    architecture="cnn",
    cost=cost,
    gradients=True,
    signed=True,
    stochastic=True,
    files=("activations",),
    extras={
        "baseline_instability": "mean standard deviation of the map over baselines, over its mean absolute value; high: the map hangs on the choice",
        "baseline_std": "standard deviation of the signed map over baselines, cell by cell of the layer, by rows",
    },
)
class BEE(BaselinePaths, BatchMethod):
    """The mean over baselines of every family, each map over its own largest absolute value."""

    reads_logits = True

    draws: int = setting(default=2, text="baselines of each family, at least 1")

    def check(self) -> None:
        BaselinePaths.check(self)  # not `super()`: a class of the settings alone runs it, too
        require(self.draws >= 1, f"draws must be at least 1, got {self.draws}")

    def signed(
        self,
        images: Float[torch.Tensor, "batch channel height width"],
        targets: Int[torch.Tensor, " batch"],
        seeds: Sequence[int],
    ) -> tuple[Float[torch.Tensor, "batch draw h w"], Float[torch.Tensor, "batch class"]]:
        """The signed map of every draw over its largest absolute value, and the logits."""
        logits, [layer] = self.gradients.values(images)
        targets = predicted_where_negative(targets, logits)
        path_maps = []
        for family in self.families:
            for draw in range(self.draws):
                baselines = self.baselines(images, layer, seeds, family, draw)
                path_maps.append(over_largest(self.path_map(images, targets, layer, baselines, family)))
        return torch.stack(path_maps, dim=1), logits

    def maps(
        self,
        images: Float[torch.Tensor, "batch channel height width"],
        targets: Int[torch.Tensor, " batch"],
        seeds: Sequence[int],
    ) -> MethodMaps:
        """The mean map and how the draws differ."""
        draws, logits = self.signed(images, targets, seeds)
        spreads, mean = draws.std(dim=1, correction=0), draws.mean(dim=1)
        size = mean.abs().mean(dim=(1, 2))
        extras = {
            "baseline_instability": (spreads.mean(dim=(1, 2)) / torch.where(size == 0, 1, size)).float(),
            "baseline_std": spreads.float(),
        }
        maps = self.finished(mean, (images.shape[2], images.shape[3]))
        return MethodMaps(maps, cost(self), extras, logits)


def over_largest(maps: Float[torch.Tensor, "batch h w"]) -> Float[torch.Tensor, "batch h w"]:
    """Signed maps over their own largest absolute values; a map of zeros stays one."""
    high = maps.abs().amax(dim=(1, 2), keepdim=True)
    return maps / torch.where(high == 0, 1, high)
