"""Whether maps lie where the evidence is, without ground truth: an image and its mirror image must get mirrored maps.

    python -m bench mirror [--images 16] [--methods sise:mu=0.3 grad_cam ucag ...]

For each boxed ImageNet image the map's centroid across, and that of the mirror image's map mirrored back, both for the class predicted
for the image itself. Half their difference is how far a method moves evidence to the right: 0 for a method without a bias, as far as
the network itself is symmetric. Writes the table in docs/method-notes.md.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from heatlas.engine.explainer import Explainer
from heatlas.engine.methods.registry import make_explainer
from heatlas.engine.scheduler import run_all
from heatlas.engine.scoring.fast_forward import folded
from heatlas.engine.scoring.scoring_options import Scoring
from heatlas.workers.worker.malloc import keep_freed_memory
from heatlas.workers.worker.shard_attempt import seed_of
from torch import Tensor

from ..data_sets import boxed_samples, network, prepared
from ..page_part import DOCS, machine, table, write_part
from .evaluation_methods import Asked

METHODS = (
    "sise:mu=0.3", "grad_cam", "grad_cam_pp", "layer_cam", "refine_cam", "integrated_gradients", "occlusion", "ucag", "ucag:magnify=2.585",
)  # fmt: skip


def centroids(explainer: Explainer, images: list[Tensor], targets: list[int], seeds: list[int]) -> np.ndarray:
    """`(image,)` centroid across, 0 at the left edge and 1 at the right; NaN where there is no map."""
    result = []
    for explanation in run_all(explainer.start(*entry) for entry in zip(images, targets, seeds, strict=True)):
        map = explanation.map
        if map is None:
            result.append(np.nan)
            continue
        places = (torch.arange(map.shape[1]) + 0.5) / map.shape[1]
        result.append(float((map.sum(dim=0) * places).sum() / map.sum()))
    return np.array(result)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), metavar="NAME[:SETTING=VALUE,...]")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    samples = boxed_samples(arguments.images)
    model = network("mobilenet_v2").to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images, seeds = [prepared(sample).image for sample in samples], [seed_of(sample.id) for sample in samples]
    model = folded(model, images[0][None])
    with torch.no_grad():
        targets = model(torch.stack(images)).argmax(dim=1).tolist()
    mirrored = [image.flip(2) for image in images]
    rows = []
    for asked in map(Asked.of, arguments.methods):
        explainer = make_explainer(asked.name, model, asked.settings, Scoring(batch_size=32, precision="bf16"))
        plain = centroids(explainer, images, targets, seeds)
        back = 1 - centroids(explainer, mirrored, targets, seeds)
        shift = 100 * (plain - back) / 2
        error = np.nanstd(shift, ddof=1) / np.sqrt(np.isfinite(shift).sum())
        rows.append([f"`{asked.text}`", f"{np.nanmean(shift):+.1f} ± {2 * error:.1f}"])
        print(*rows[-1], flush=True)
    text = [
        *table(("method", "evidence moved to the right, % of the side (± 2 standard errors)"), rows),
        "",
        f"MobileNetV2 at 224 x 224, {len(samples)} images, `python -m bench mirror`, {machine()}.",
    ]
    write_part(DOCS / "method-notes.md", "mirror", "\n".join(text))


if __name__ == "__main__":
    main()
