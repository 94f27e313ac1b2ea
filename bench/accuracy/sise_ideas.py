"""Ideas for a better SISE, one at a time, all made of the same scores of the same masks: what each gains and loses.

    python -m bench sise_ideas [--images 16] [--scores FOLDER]

SISE at mu = 0 scores every mask once (`bench/accuracy/known_scores.py`, the same files as `python -m bench evaluation`); every idea is another map
of those scores, so it costs no forward more (`nothing shown` one). The first half of the images is for choosing, the other for checking. Writes the
table in docs/sise.md: means over the checking half, and whether the paired 95 % bootstrap interval against SISE lies on one side
of 0 there.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from heatlas.engine.explanation import Explanation
from heatlas.engine.methods.registry import make_explainer
from heatlas.engine.methods.sise import ScoredBlocks
from heatlas.engine.metrics import METRICS
from heatlas.engine.scheduler import run_all
from heatlas.engine.scoring.fast_forward import folded
from heatlas.engine.scoring.scoring_options import Scoring
from heatlas.engine.session import ExplainSession
from heatlas.engine.sise.fusion import fuse
from heatlas.engine.sise.layer_masks import LayerMasks
from heatlas.engine.sise.masks import extremes, min_max, upsample
from heatlas.workers.worker.malloc import keep_freed_memory
from heatlas.workers.worker.shard_attempt import seed_of
from torch import Tensor

from ..data_sets import boxed_samples, network, prepared
from ..page_part import DOCS, circumstances, table, write_part
from .known_scores import KnownScores, full_sise
from .resampled_means import mean_interval, shown_change

WANTED = ("drop_pct", "insertion_auc", "deletion_auc", "ebpg", "pointing_hit", "infidelity")
GRID = 28
"""Side of the grid on which masks are fitted."""
RIDGE = 0.1
"""Weight of the ridge against the mean diagonal of the masks' products."""
RESAMPLES = 2000


def spread(values: Tensor) -> Tensor:
    low, high = values.min(), values.max()
    return (values - low) / (high - low if high > low else 1)


def layer_maps(layers: Sequence[LayerMasks], scores: Sequence[Tensor]) -> Tensor:
    """V_l of every block, min-maxed, of other scores than the masks' own."""
    raw = []
    for layer, own in zip(layers, scores, strict=True):
        kept, layer.job.scores = layer.job.scores, own
        raw.append(layer.weighted_sum())
        layer.job.scores = kept
    stacked = torch.stack(raw)
    return min_max(stacked, *extremes(stacked))


def own_scores(layers: Sequence[LayerMasks]) -> list[Tensor]:
    return [layer.job.scores.double() for layer in layers]


def masks_on_grid(layer: LayerMasks) -> Tensor:
    """Masks `(mask, pixel)` on the coarse grid, in [0, 1]."""
    small = F.interpolate(layer.maps[:, None].double(), size=(GRID, GRID), mode="bilinear", align_corners=False)[:, 0]
    return min_max(small, *extremes(small)).flatten(1)


def same_area(layers: Sequence[LayerMasks]) -> list[Tensor]:
    """What a mask scores beyond masks of its area: the residual of a straight line through (area, score), its positive part."""
    result = []
    for layer, scores in zip(layers, own_scores(layers), strict=True):
        area = masks_on_grid(layer).mean(dim=1)
        line = torch.stack([torch.ones_like(area), area], dim=1)
        fit = torch.linalg.lstsq(line, scores[:, None], driver="gelsd").solution[:, 0]
        result.append((scores - line @ fit).clamp(min=0))
    return result


def faded(layers: Sequence[LayerMasks]) -> list[Tensor]:
    """Scores that fade in where the gradient of a map passes 0.3 of the layer's largest, instead of a step there."""
    return [
        scores * (layer.alphas.double() / (0.3 * layer.alphas.max())).clamp(max=1)
        for layer, scores in zip(layers, own_scores(layers), strict=True)
    ]


def ridge(layers: Sequence[LayerMasks]) -> Tensor:
    """The score as a weighted sum of what is visible, fitted to all masks of all blocks; the positive weights as a map."""
    masks = torch.cat([masks_on_grid(layer) for layer in layers])
    scores = torch.cat(own_scores(layers))
    masks, centred = masks - masks.mean(dim=0), scores - scores.mean()
    products = masks @ masks.T
    damped = products + RIDGE * products.diagonal().mean() * torch.eye(len(masks), dtype=products.dtype)
    weights = (masks.T @ torch.linalg.solve(damped, centred)).reshape(1, GRID, GRID)
    return spread(upsample(weights.clamp(min=0), layers[0].size)[0])


def hard(maps: Tensor) -> Tensor:
    return fuse(maps) / len(maps)


IDEAS: dict[str, Callable[[Sequence[LayerMasks]], Tensor]] = {
    "sise (mu = 0)": lambda layers: hard(layer_maps(layers, own_scores(layers))),
    "soft gates": lambda layers: fuse(layer_maps(layers, own_scores(layers)), "soft") / len(layers),
    "no gates (mean of blocks)": lambda layers: layer_maps(layers, own_scores(layers)).mean(dim=0),
    "no gates (product of blocks)": lambda layers: layer_maps(layers, own_scores(layers)).prod(dim=0),
    "weights fade in at mu = 0.3": lambda layers: hard(layer_maps(layers, faded(layers))),
    "increments over masks of the same area": lambda layers: hard(layer_maps(layers, same_area(layers))),
    "same area, no gates": lambda layers: layer_maps(layers, same_area(layers)).mean(dim=0),
    "ridge fit over all masks": ridge,
    "ridge fit times mean of blocks": lambda layers: ridge(layers) * layer_maps(layers, own_scores(layers)).mean(dim=0),
}


def measured(session_maker: object, images: Sequence[Tensor], seeds: Sequence[int], given: Sequence[Explanation], truths: Sequence[Tensor | None]) -> np.ndarray:  # fmt: skip
    """`(image, metric)`; NaN where a metric is not defined."""
    session = ExplainSession(session_maker, WANTED)  # type: ignore[arg-type]
    rows = []
    for key, (image, seed, explanation, truth) in enumerate(zip(images, seeds, given, truths, strict=True)):
        rows += session.push(key, image, truth=truth, sample_seed=seed, given=explanation)
    rows += session.finish()
    rows.sort(key=lambda row: row.key)
    return np.array([[np.nan if row.metrics[name] is None else row.metrics[name] for name in WANTED] for row in rows])


def with_map(blocks: ScoredBlocks, map_: Tensor) -> Explanation:
    return blocks.logits.explanation(spread(map_).float(), n_forwards=0)


def verdict(own: np.ndarray, reference: np.ndarray, name: str) -> str:
    """`+` better than SISE, `-` worse, by the paired bootstrap interval; nothing where it holds 0."""
    differences = own - reference
    if np.isnan(differences).all():
        return ""
    return {1: "+", 0: "", -1: "-"}[shown_change(mean_interval(differences, RESAMPLES), name)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--scores", type=Path, default=Path("bench-out"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    samples = boxed_samples(arguments.images)
    inputs = [prepared(sample) for sample in samples]
    images, seeds = [ready.image for ready in inputs], [seed_of(sample.id) for sample in samples]
    truths = [ready.truth for ready in inputs]
    model = network("mobilenet_v2").to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    known = KnownScores(arguments.scores / "scores-mobilenet_v2-bf16", full_sise(model, "bf16"))
    blocks = [known.of(sample.id, image) for sample, image in zip(samples, images, strict=True)]
    fast = folded(model, images[0][None])
    scorer = make_explainer("grad_cam", fast, None, Scoring(batch_size=32, precision="bf16"))
    result: dict[str, np.ndarray] = {}
    for name, idea in IDEAS.items():
        maps = [with_map(each, idea(each.layers)) for each in blocks]
        result[name] = measured(scorer, images, seeds, maps, truths)
        print(name, dict(zip(WANTED, np.nanmean(result[name], axis=0).round(4), strict=True)), flush=True)
    for name in ("grad_cam", "occlusion"):
        explainer = make_explainer(name, fast, None, Scoring(batch_size=32, precision="bf16"))
        maps = run_all(explainer.start(image, None, seed) for image, seed in zip(images, seeds, strict=True))
        result[f"`{name}`"] = measured(scorer, images, seeds, maps, truths)
        print(name, dict(zip(WANTED, np.nanmean(result[f"`{name}`"], axis=0).round(4), strict=True)), flush=True)
    half = len(images) // 2
    reference = result["sise (mu = 0)"][half:]
    rows = [
        [
            name,
            *(
                f"{np.nanmean(values[half:, place]):.3g}{verdict(values[half:, place], reference[:, place], metric)} "
                f"({np.nanmean(values[:half, place]):.3g})"
                for place, metric in enumerate(WANTED)
            ),
        ]
        for name, values in result.items()
    ]
    arrows = {"higher": "↑", "lower": "↓", "neither": ""}
    head = ["map", *(f"`{name}` {arrows[METRICS[name].better]}" for name in WANTED)]
    text = [
        *table(head, rows), "",
        f"MobileNetV2 at 224 x 224, bf16, {len(images) - half} photographs for checking and, in parentheses, {half} for choosing; + and -: better and worse than "
        f"SISE by the paired 95 % bootstrap interval on those for checking. `python -m bench sise_ideas --images {arguments.images}`.", "",
        circumstances(),
    ]  # fmt: skip
    write_part(DOCS / "sise.md", "sise_ideas", "\n".join(text))


if __name__ == "__main__":
    main()
