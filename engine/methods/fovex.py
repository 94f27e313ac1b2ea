"""FovEx (Panda et al., IJCV 2025, doi 10.1007/s11263-025-02543-y): where a fovea must look for the model to see the target.

All but the fovea is blurred. Each fixation is a gradient search for the place where a look lowers the cross-entropy most;
the map is the sum of all looks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..fill import BLUR_SIDE, BLUR_SIGMA, gaussian_blur
from ..layers.outputs import logits_of
from ..random import sample_generator
from .batch_settings import FovexSettings
from .layer_gradients import wide
from .normalise import spread
from .passes import differentiable, plain
from .protocol import Cost, MethodMaps, method


class Fovex:
    """All images of a batch search at the same time; nothing of one depends on another."""

    def __init__(self, model: nn.Module, settings: FovexSettings):
        self._model = model
        self._settings = settings
        self._cost = cost(settings)

    def explain(
        self,
        images: Float[Tensor, "batch channel height width"],
        targets: Int[Tensor, " batch"],
        seeds: Sequence[int],
    ) -> MethodMaps:
        """The map, and the scanpath: fixations (x, y) in [-1, 1] of the image's half sides, and the loss at each."""
        with differentiable(self._model):
            images = plain(images)
            drawn = self._restarts(seeds).to(images)
            periphery = gaussian_blur(images, BLUR_SIGMA, BLUR_SIDE) - images
            grid = pixel_grid(images)
            seen = heat = images.new_zeros(len(images), *images.shape[2:])
            fixations, losses = [], []
            for fixation in range(self._settings.fixations):
                place, loss = self._fixate(images, periphery, targets, grid, seen, drawn[:, fixation])
                look = self._fovea(grid, place)
                seen, heat = self._settings.memory * seen + look, heat + look
                fixations.append(place)
                losses.append(loss)
        path, found = torch.stack(fixations, dim=1).float(), torch.stack(losses, dim=1)
        broken = ~found.isfinite().all(dim=1)
        maps = torch.where(broken[:, None, None], torch.nan, spread(heat.double())).float()
        return MethodMaps(maps, self._cost, {"fixations": path, "fixation_losses": found})

    def extra_shapes(self, image: Float[Tensor, "channel height width"]) -> dict[str, tuple[int, ...]]:
        """A place and a number per fixation."""
        count = self._settings.fixations
        return {"fixations": (count, 2), "fixation_losses": (count,)}

    def _fixate(
        self, images: Tensor, periphery: Tensor, targets: Tensor, grid: Tensor, seen: Tensor, drawn: Tensor
    ) -> tuple[Float[Tensor, "batch 2"], Float[Tensor, " batch"]]:
        """The place of the lowest loss on the way, starting in the middle."""
        place = images.new_zeros(len(images), 2)
        best = place
        lowest = torch.full((len(images),), torch.inf, device=images.device)
        for step in range(self._settings.steps):
            place = place.detach().requires_grad_()
            shown = (seen + self._fovea(grid, place)).clamp(0, 1)
            logits = wide(logits_of(self._model(images + periphery * (1 - shown)[:, None])))
            loss = F.cross_entropy(logits, targets, reduction="none")
            slope = torch.autograd.grad(loss.sum(), place)[0]
            moved = place.detach() - self._settings.step_size * slope.sign()
            better = loss.detach() < lowest
            lowest = torch.where(better, loss.detach().float(), lowest)
            best = torch.where(better[:, None], moved if self._settings.best_after_step else place.detach(), best)
            if self._settings.random_restart:
                moved = torch.where(better[:, None], moved, drawn[:, step])
            place = moved
        return best, lowest

    def _fovea(self, grid: Tensor, place: Float[Tensor, "batch 2"]) -> Float[Tensor, "batch height width"]:
        """exp(-|u - p|^2 / s) at every pixel u."""
        distance = (grid - place[:, None, None]).square().sum(dim=3)
        return (-distance / self._settings.fovea).exp()

    def _restarts(self, seeds: Sequence[int]) -> Float[Tensor, "batch fixation step 2"]:
        """Uniform in [-1, 1]^2, of each image's own generator."""
        shape = (self._settings.fixations, self._settings.steps, 2)
        drawn = [torch.rand(shape, generator=sample_generator(self._settings.seed, seed, "fovex")) for seed in seeds]
        return torch.stack(drawn) * 2 - 1


def pixel_grid(images: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "1 height width 2"]:
    """(x, y) of every pixel, from -1 at the first to 1 at the last."""
    down, across = (torch.linspace(-1, 1, side, device=images.device, dtype=images.dtype) for side in images.shape[2:])
    y, x = torch.meshgrid(down, across, indexing="ij")
    return torch.stack([x, y], dim=-1)[None]


def cost(settings: FovexSettings) -> Cost:
    """One forward and one backward for each step of each fixation."""
    passes = settings.fixations * settings.steps
    return Cost(passes, passes)


@method(
    name="fovex",
    summary="where a fovea must look for the model to see the target, and in which order",
    source="Panda et al., IJCV 2025, as in its released code with the place that was measured",
    architecture="any",
    settings=FovexSettings,
    cost=cost,
    gradients=True,
    resolution="input",
    stochastic=True,
    extras={
        "fixations": "x and y of each fixation, in [-1, 1] from the left and from the top",
        "fixation_losses": "cross-entropy of the target at each fixation",
    },
)
def build(model: nn.Module, settings: FovexSettings) -> Fovex:
    return Fovex(model, settings)
