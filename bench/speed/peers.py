"""Score-CAM and occlusion as other libraries make them, with the number of masks that they are told."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

PEERS = ("pytorch-grad-cam ScoreCAM", "torchcam ScoreCAM", "captum Occlusion")
Peer = Callable[[nn.Module, str, Tensor, int, int | None, int], tuple[Tensor, int]]
"""(model, layer, image, target, masks wanted or None for all, batch) -> (map `(height, width)`, masks that were scored)."""


def score_cam_of_grad_cam(
    model: nn.Module, layer: str, image: Tensor, target: int, masks: int | None, batch: int
) -> tuple[Tensor, int]:
    from pytorch_grad_cam import ScoreCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    used: list[int] = []

    def few(maps: Tensor) -> Tensor:
        used[:] = [min(maps.shape[1], masks or maps.shape[1])]
        return maps[:, : used[0]].float()

    with (
        ScoreCAM(model, [model.get_submodule(layer)], reshape_transform=few) as cam,
        contextlib.redirect_stderr(io.StringIO()),
    ):
        cam.batch_size = batch
        map = cam(image[None], [ClassifierOutputTarget(target)])[0]
    return torch.from_numpy(map), used[0]


def score_cam_of_torchcam(
    model: nn.Module, layer: str, image: Tensor, target: int, masks: int | None, batch: int
) -> tuple[Tensor, int]:
    from torchcam.methods import ScoreCAM

    used: list[int] = []

    def few(maps: Tensor) -> Tensor:
        used[:] = [min(maps.shape[1], masks or maps.shape[1])]
        return maps[:, : used[0]].float()

    with torch.no_grad(), ScoreCAM(model, layer, batch_size=batch, reshape_transform=few) as cam:
        scores = model(image[None])
        coarse = cam(target, scores)[0]
    map = nn.functional.interpolate(coarse.view(1, 1, *coarse.shape[-2:]).float(), image.shape[1:], mode="bilinear")
    return map[0, 0], used[0]


def occlusion_of_captum(
    model: nn.Module, layer: str, image: Tensor, target: int, masks: int | None, batch: int
) -> tuple[Tensor, int]:
    from captum.attr import Occlusion

    side = max(2, round(math.sqrt(masks or 650)))
    stride = math.ceil((image.shape[1] - 16) / (side - 1))
    window = max(16, stride)
    with torch.no_grad():
        result = Occlusion(model).attribute(
            image[None], (image.shape[0], window, window), strides=(image.shape[0], stride, stride), target=target,
            perturbations_per_eval=batch,
        )  # fmt: skip
    windows = (math.ceil((image.shape[1] - window) / stride) + 1) ** 2
    return result[0].mean(0).clamp(min=0).float(), windows


RUNS: dict[str, Peer] = dict(
    zip(PEERS, (score_cam_of_grad_cam, score_cam_of_torchcam, occlusion_of_captum), strict=True)
)
