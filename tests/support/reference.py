"""The oracle: SISE and its metrics once more, slowly and literally, in float64, from the paper's equations alone.

Written from `shared/spec/sise.md` (sections 2-5, 8) and `metrics.md` without sight of the engine. It shares nothing with
it but torch's forward and autograd: the layers come from torchvision's feature extractor, upsampling, min-max, sorting and
aggregation are spelt out in NumPy, Otsu is scikit-image's. One image at a time; no attempt at speed except that
masked images pass the model in chunks.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from skimage.filters import threshold_otsu
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names


@dataclass
class ReferenceMap:
    """Everything that SISE computes for one image and one class, float64; lists run over the layers, low to high."""

    status: str
    target: int
    prediction: int
    score: float
    map: np.ndarray
    """(height, width), S / B in [0, 1]; zeros unless the status is ok."""
    alphas: list[np.ndarray] = field(default_factory=list)
    """Eq. 6 for every channel of the layer."""
    kept: list[list[int]] = field(default_factory=list)
    """Channels that pass eq. 7 and whose map is not constant."""
    layer_maps: list[np.ndarray] = field(default_factory=list)
    """V_l, each min-maxed to [0, 1]."""
    thresholds: list[float] = field(default_factory=list)
    """Otsu's threshold of each V_l."""

    @property
    def mask_counts(self) -> list[int]:
        return [len(channels) for channels in self.kept]

    def selection_gap(self, mu: float) -> float:
        """How far the nearest alpha is from eq. 7's bound, relative to the largest |alpha|: small means a coin flip.

        Alphas of exactly 0 do not count: no gradient reaches those maps, in whatever precision.
        """
        gaps = [np.abs(a[a != 0] - mu * a.max()).min() / np.abs(a).max() for a in self.alphas if a.any()]
        return min(gaps, default=math.inf)

    def gated_near(self, tolerance: float) -> np.ndarray:
        """(height, width): pixels where some V_l is within `tolerance` of its threshold, so that Fig. 5's gate is a coin flip."""
        near = np.zeros(self.map.shape, dtype=bool)
        for values, threshold in zip(self.layer_maps[1:], self.thresholds[1:], strict=True):
            near |= np.abs(values - threshold) <= tolerance
        return near


# ---------------------------------------------------------------------------------------------------- the model, in float64


def taps_of(model: nn.Module, layers: Sequence[str], dtype: torch.dtype = torch.float64) -> tuple[nn.Module, str]:
    """A copy of the model in `dtype` that returns the layers' activations and its output, and the output's name."""
    twin = copy.deepcopy(model).to(dtype).eval()
    for (
        module
    ) in twin.modules():  # an activation that a later layer overwrites would not be the activation of that layer
        if hasattr(module, "inplace"):
            module.inplace = False
    output = get_graph_node_names(twin)[1][-1]
    return create_feature_extractor(twin, return_nodes=[*layers, output], suppress_diff_warning=True), output


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def probability(taps: nn.Module, output: str, image: Tensor, target: int) -> float:
    """Psi: the softmax probability of the class."""
    with torch.no_grad():
        logits = taps(image[None])[output][0]
    return float(softmax(logits.double().numpy())[target])


# ------------------------------------------------------------------------------------------------- selection, eqs. 6 to 8


def alphas_of(
    taps: nn.Module, output: str, image: Tensor, target: int, layers: Sequence[str], form: str = "probability"
) -> list[np.ndarray]:
    """Eq. 6: the sum over positions of d Psi / d A_k; with `form="margin"` of d (z_c - logsumexp of the others) / d A_k."""
    with torch.enable_grad():
        # The input asks for a gradient so that a model with frozen parameters has a graph too.
        result = taps(image[None].clone().requires_grad_(True))
        logits = result[output][0]
        others = torch.cat([logits[:target], logits[target + 1 :]])
        psi = {
            "probability": lambda: torch.softmax(logits, dim=0)[target],
            "margin": lambda: logits[target] - torch.logsumexp(others, dim=0),
        }[form]()
        gradients = torch.autograd.grad(psi, [result[name] for name in layers])
    alphas = []
    for gradient in gradients:
        per_channel = []
        for channel in gradient[0].double().numpy():
            per_channel.append(float(channel.sum()))
        alphas.append(np.array(per_channel))
    return alphas


def selected(alphas: np.ndarray, mu: float, maps: np.ndarray | None = None) -> list[int]:
    """Eqs. 7 and 8: the channels with alpha_k > mu * beta, beta the largest alpha of the layer's maps that are not the same everywhere."""
    varying = [maps is None or maps[k].min() < maps[k].max() for k in range(len(alphas))]
    beta = max((alpha for alpha, varies in zip(alphas, varying, strict=True) if varies), default=math.inf)
    return [k for k, alpha in enumerate(alphas) if varying[k] and alpha > mu * beta]


# ------------------------------------------------------------------------------------------------------------------ masks


def interpolation(size_in: int, size_out: int) -> np.ndarray:
    """(size_out, size_in): the weights of linear interpolation along one axis with half-pixel centres, edges repeated."""
    weights = np.zeros((size_out, size_in))
    for i in range(size_out):
        place = (i + 0.5) * size_in / size_out - 0.5
        place = min(max(place, 0.0), size_in - 1.0)
        left = math.floor(place)
        right = min(left + 1, size_in - 1)
        weights[i, left] += 1.0 - (place - left)
        weights[i, right] += place - left
    return weights


def upsampled(feature_map: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear upsampling to (height, width)."""
    rows, columns = interpolation(feature_map.shape[0], height), interpolation(feature_map.shape[1], width)
    return rows @ feature_map @ columns.T


def min_max(values: np.ndarray) -> np.ndarray:
    return (values - values.min()) / (values.max() - values.min())


def mask_of(feature_map: np.ndarray, height: int, width: int) -> np.ndarray | None:
    """Upsample, then min-max to [0, 1]; None where the feature map is the same everywhere."""
    if feature_map.max() == feature_map.min():
        return None
    return min_max(upsampled(feature_map, height, width))


# ------------------------------------------------------------------------------------------------ scoring, eqs. 10 to 12


def layer_map(
    taps: nn.Module, output: str, image: Tensor, target: int, masks: list[np.ndarray], chunk: int
) -> np.ndarray:
    """V_l: the mean over the masks m of Psi(I * m) * m / sum(m), not normalised yet."""
    total = np.zeros(masks[0].shape)
    for start in range(0, len(masks), chunk):
        part = masks[start : start + chunk]
        with torch.no_grad():
            logits = taps(torch.stack([image * torch.from_numpy(m).to(image.dtype) for m in part]))[output]
        for mask, z in zip(part, logits.double().numpy(), strict=True):
            total += softmax(z)[target] * mask / mask.sum()
    return total / len(masks)


# --------------------------------------------------------------------------------------------------------- fusion, Fig. 5


def fused(layer_maps: Sequence[np.ndarray]) -> tuple[np.ndarray, list[float]]:
    """S, in [0, B], and Otsu's threshold of each layer; `layer_maps` are min-maxed, low layer to high."""
    thresholds = [float(threshold_otsu(values)) for values in layer_maps]
    s = layer_maps[0].copy()
    for values, threshold in zip(layer_maps[1:], thresholds[1:], strict=True):
        for y in range(s.shape[0]):
            for x in range(s.shape[1]):
                s[y, x] = s[y, x] + values[y, x] if values[y, x] > threshold else 0.0
    return s, thresholds


# -------------------------------------------------------------------------------------------------------------- the whole


def sise(
    model: nn.Module,
    layers: Sequence[str],
    image: Tensor,
    target: int | None = None,
    *,
    mu: float = 0.0,
    form: str = "probability",
    chunk: int = 32,
    dtype: torch.dtype = torch.float64,
) -> ReferenceMap:
    """SISE of one (channel, height, width) image; `dtype` is the forward's, everything after it is float64."""
    taps, output = taps_of(model, layers, dtype)
    image = image.to(dtype)
    height, width = image.shape[-2:]
    with torch.no_grad():
        outcome = taps(image[None])
    logits = outcome[output][0].double().numpy()
    nothing = np.zeros((height, width))
    if not np.isfinite(logits).all():
        return ReferenceMap("non_finite", -1 if target is None else target, -1, math.nan, nothing)
    prediction = int(np.argmax(logits))
    target = prediction if target is None else target
    result = ReferenceMap("ok", target, prediction, float(softmax(logits)[target]), nothing)
    result.alphas = alphas_of(taps, output, image, target, layers, form)

    masks_of_layer: list[list[np.ndarray]] = []
    for name, alphas in zip(layers, result.alphas, strict=True):
        maps = outcome[name][0].double().numpy()
        masks = {k: mask_of(maps[k], height, width) for k in selected(alphas, mu, maps)}
        result.kept.append([k for k, mask in masks.items() if mask is not None])
        masks_of_layer.append([mask for mask in masks.values() if mask is not None])
    if not all(masks_of_layer):
        result.status = "no_evidence"
        return result

    raw = [layer_map(taps, output, image, target, masks, chunk) for masks in masks_of_layer]
    if not all(np.isfinite(values).all() for values in raw):
        result.status = "non_finite"
        return result
    if any(values.max() == values.min() for values in raw):
        result.status = "constant_map"
        return result
    result.layer_maps = [min_max(values) for values in raw]
    s, result.thresholds = fused(result.layer_maps)
    if s.max() == s.min():
        result.status = "constant_map"
        return result
    result.map = s / len(layers)
    return result


# ---------------------------------------------------------------------------------------------------------------- metrics


def ranked_pixels(map_: np.ndarray) -> list[int]:
    """Row-major pixel numbers, the largest value first, equal values in pixel order."""
    values = map_.reshape(-1)
    return sorted(range(values.size), key=lambda pixel: (-values[pixel], pixel))


def top_mask(map_: np.ndarray, count: int) -> np.ndarray:
    """(height, width) bool with exactly `count` true pixels, the top of the ranking."""
    chosen = np.zeros(map_.size, dtype=bool)
    for pixel in ranked_pixels(map_)[:count]:
        chosen[pixel] = True
    return chosen.reshape(map_.shape)


def top_share(map_: np.ndarray, share: float) -> np.ndarray:
    return top_mask(map_, round(share * map_.size))


def drop_and_increase(model: nn.Module, image: Tensor, target: int, map_: np.ndarray) -> tuple[float, float]:
    """Drop in percent and whether confidence rose: T is the hard mask of the top 15 % pixels, the rest of the image is 0."""
    twin, output = taps_of(model, [])
    image = image.double()
    before = probability(twin, output, image, target)
    after = probability(twin, output, image * torch.from_numpy(top_share(map_, 0.15)), target)
    return max(0.0, before - after) / before * 100.0, 1.0 if after > before else 0.0


def ebpg(map_: np.ndarray, truth: np.ndarray) -> float | None:
    """Share of the map's mass that lies inside the ground truth."""
    inside = total = 0.0
    for value, true in zip(map_.reshape(-1), truth.reshape(-1), strict=True):
        total += float(value)
        inside += float(value) if true else 0.0
    return inside / total if truth.any() and total > 0 else None


def miou(map_: np.ndarray, truth: np.ndarray) -> float | None:
    """Intersection over union of the top 20 % pixels with the ground truth."""
    if not truth.any():
        return None
    top = top_share(map_, 0.20)
    return int((top & truth).sum()) / int((top | truth).sum())


def bbox(map_: np.ndarray, truth: np.ndarray) -> float | None:
    """Share of the top-N pixels inside the ground truth, N = its pixels."""
    size = int(truth.sum())
    return int((top_mask(map_, size) & truth).sum()) / size if size else None
