"""FovEx (Panda et al., IJCV 2025, doi 10.1007/s11263-025-02543-y): where a fovea must look for the model to see the target.

All but the fovea is blurred. Each fixation is a gradient search for the place where a look lowers the cross-entropy most;
the map is the sum of all looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float, Int

from ..fill import BLUR_SIDE, BLUR_SIGMA, gaussian_blur
from ..layers.outputs import logits_of, wide
from ..lazy_torch import F, torch
from ..random import sample_generator
from .batch_method import BatchMethod, MethodMaps
from .normalise import spread
from .passes import differentiable, plain
from .protocol import Cost, method, require, setting


def pixel_grid(images: Float[torch.Tensor, "batch channel height width"]) -> Float[torch.Tensor, "1 height width 2"]:
    """(x, y) of every pixel, from -1 at the first to 1 at the last."""
    down, across = (torch.linspace(-1, 1, side, device=images.device, dtype=images.dtype) for side in images.shape[2:])
    y, x = torch.meshgrid(down, across, indexing="ij")
    return torch.stack([x, y], dim=-1)[None]


def cost(settings: Any) -> Cost:
    """One forward and one backward for each step of each fixation."""
    passes = settings.fixations * settings.steps
    return Cost(passes, passes)


@method(
    name="fovex",
    summary="where a fovea must look for the model to see the target, and in which order",
    source="Panda et al., IJCV 2025, as in its released code with the place that was measured",
    status="code",
    completed="keeps the position that was measured",
    architecture="any",
    cost=cost,
    gradients=True,
    resolution="input",
    stochastic=True,
    extras={
        "fixations": "x and y of each fixation, in [-1, 1] from the left and from the top",
        "fixation_losses": "cross-entropy of the target at each fixation",
    },
)
class FovEx(BatchMethod):
    """All images of a batch search at the same time; nothing of one depends on another."""

    fixations: int = setting(default=10, text="fixations, at least 1")
    steps: int = setting(default=20, text="gradient steps for each fixation, at least 1: forwards and backwards")
    step_size: float = setting(default=0.1, text="of a gradient step, in half image sides, above 0")
    fovea: float = setting(
        default=0.15, text="spread s of the fovea exp(-distance^2 / s), above 0, in half image sides squared"
    )
    memory: float = setting(
        default=0.1, text="share of what was seen that is still seen at the next fixation, in [0, 1]"
    )
    random_restart: bool = setting(default=True, text="draw the position anew where a step did not improve")
    best_after_step: bool = setting(
        default=False, text="keep the position after the best step, as the released code, not the one that was measured"
    )
    seed: int = setting(default=0, text="of the random positions, at least 0")

    def check(self) -> None:
        require(self.fixations >= 1, f"fixations must be at least 1, got {self.fixations}")
        require(self.steps >= 1, f"steps must be at least 1, got {self.steps}")
        require(self.step_size > 0, f"step_size must be above 0, got {self.step_size}")
        require(self.fovea > 0, f"fovea must be above 0, got {self.fovea}")
        require(0 <= self.memory <= 1, f"memory must be in [0, 1], got {self.memory}")
        require(self.seed >= 0, f"seed must be at least 0, got {self.seed}")

    def maps(
        self,
        images: Float[torch.Tensor, "batch channel height width"],
        targets: Int[torch.Tensor, " batch"],
        seeds: Sequence[int],
    ) -> MethodMaps:
        """The map, and the scanpath: fixations (x, y) in [-1, 1] of the image's half sides, and the loss at each."""
        with differentiable(self.model):
            images = plain(images)
            drawn = self._restarts(seeds).to(images)
            periphery = gaussian_blur(images, BLUR_SIGMA, BLUR_SIDE) - images
            grid = pixel_grid(images)
            seen = map_ = images.new_zeros(len(images), *images.shape[2:])
            fixations, losses = [], []
            for fixation in range(self.fixations):
                place, loss = self._fixate(images, periphery, targets, grid, seen, drawn[:, fixation])
                look = self._look(grid, place)
                seen, map_ = self.memory * seen + look, map_ + look
                fixations.append(place)
                losses.append(loss)
        path, loss_path = torch.stack(fixations, dim=1).float(), torch.stack(losses, dim=1)
        broken = ~loss_path.isfinite().all(dim=1)
        maps = torch.where(broken[:, None, None], torch.nan, spread(map_.double())).float()
        return MethodMaps(maps, cost(self), {"fixations": path, "fixation_losses": loss_path})

    def extra_shapes(self, image: Float[torch.Tensor, "channel height width"]) -> dict[str, tuple[int, ...]]:
        """A place and a number per fixation."""
        count = self.fixations
        return {"fixations": (count, 2), "fixation_losses": (count,)}

    def _fixate(
        self,
        images: torch.Tensor,
        periphery: torch.Tensor,
        targets: torch.Tensor,
        grid: torch.Tensor,
        seen: torch.Tensor,
        drawn: torch.Tensor,
    ) -> tuple[Float[torch.Tensor, "batch 2"], Float[torch.Tensor, " batch"]]:
        """The place of the lowest loss on the way, starting in the middle."""
        place = images.new_zeros(len(images), 2)
        best = place
        lowest = torch.full((len(images),), torch.inf, device=images.device)
        for step in range(self.steps):
            place = place.detach().requires_grad_()
            shown = (seen + self._look(grid, place)).clamp(0, 1)
            logits = wide(logits_of(self.model(images + periphery * (1 - shown)[:, None])))
            loss = F.cross_entropy(logits, targets, reduction="none")
            slope = torch.autograd.grad(loss.sum(), place)[0]
            moved = place.detach() - self.step_size * slope.sign()
            better = loss.detach() < lowest
            lowest = torch.where(better, loss.detach().float(), lowest)
            best = torch.where(better[:, None], moved if self.best_after_step else place.detach(), best)
            if self.random_restart:
                moved = torch.where(better[:, None], moved, drawn[:, step])
            place = moved
        return best, lowest

    def _look(
        self, grid: torch.Tensor, place: Float[torch.Tensor, "batch 2"]
    ) -> Float[torch.Tensor, "batch height width"]:
        """exp(-|u - p|^2 / s) at every pixel u."""
        distance = (grid - place[:, None, None]).square().sum(dim=3)
        return (-distance / self.fovea).exp()

    def _restarts(self, seeds: Sequence[int]) -> Float[torch.Tensor, "batch fixation step 2"]:
        """Uniform in [-1, 1]^2, of each image's own generator."""
        shape = (self.fixations, self.steps, 2)
        drawn = [torch.rand(shape, generator=sample_generator(self.seed, seed, "fovex")) for seed in seeds]
        return torch.stack(drawn) * 2 - 1
