"""The randomised-model check of every method in one table, and how much of a map hangs on the class; writes docs/randomised-models.md.

    python -m bench random_models [--images 8] [--minutes 9] [--methods sise:mu=0.5 grad_cam ...]

Every image is explained three times by every method: by the network, for the class it predicts; by the network, for the class it holds second
most likely; and by the network with every weight drawn anew, for the predicted class. Spearman's correlation over the pixels of the first with each of
the others, the mean over images. An interrupted call goes on where it stopped, and so does one whose minutes were over; the table tells
the images of every method.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np
import torch
from heatlas.engine.explainer import Explainer
from heatlas.engine.methods.registry import find_method, make_explainer
from heatlas.engine.metrics.ranking import spearman
from heatlas.engine.metrics.sanity_check import RandomModel
from heatlas.engine.scheduler import run
from heatlas.engine.scoring.scoring_options import Scoring
from heatlas.errors import SettingsError
from heatlas.workers.worker.malloc import keep_freed_memory
from heatlas.workers.worker.shard_attempt import seed_of
from torch import Tensor

from ..data_sets import boxed_samples, imagenet_network, prepared
from ..page_part import DOCS, circumstances, table, write_part
from ..records import Records
from .evaluation_methods import Asked

METHODS = (
    "grad_cam", "grad_cam_pp", "layer_cam", "lafam", "refine_cam", "winsor_cam", "agf", "bee", "feature_cam:edges=sobel",
    "feature_cam:edges=sobel,variant=soft", "feature_cam:edges=sobel,variant=fused", "feature_cam:edges=sobel,variant=edges_only",
    "integrated_gradients", "expected_gradients", "occlusion", "ucag", "consensus", "bee_select:draws=4", "sise:mu=0.5", "ada_sise", "sise_plus:mu=0.5",
    "rise:masks=500", "lima:grid=5", "fovex:fixations=3", "score_cam",
)  # fmt: skip
"""Costly ones with fewer passes than their defaults, and last."""
ELSEWHERE = "`daam` (no weights of a transformer at hand), `ttame`, `ptame` and `explainer_network` (they are trained; [training.md](training.md))"


def correlation(first: Tensor | None, second: Tensor | None) -> float | None:
    """Over the pixels; None where a map is missing or constant."""
    if first is None or second is None:
        return None
    value = float(spearman(first.flatten()[None].float(), second.flatten()[None].float()))
    return value if np.isfinite(value) else None


def measured(trained: Explainer, random: Explainer, image: Tensor, sample: str) -> dict[str, float | None]:
    """Both correlations of one image."""
    with torch.no_grad():
        first, second = trained.model(image[None]).float()[0].topk(2).indices.tolist()
    seed = seed_of(sample)
    own, other, drawn = (
        run(explainer.start(image, target, seed)).map
        for explainer, target in ((trained, first), (trained, second), (random, first))
    )
    return {"random": correlation(own, drawn), "runner_up": correlation(own, other)}


def shown(values: Sequence[float | None]) -> str:
    """Mean and twice its standard error, and how many images have no value."""
    kept = [value for value in values if value is not None]
    if not kept:
        return "-"
    error = f" ± {2 * np.std(kept, ddof=1) / len(kept) ** 0.5:.2f}" if len(kept) > 1 else ""
    return f"{np.mean(kept):.2f}{error}" + (
        f" ({len(values) - len(kept)} without a map)" if len(kept) < len(values) else ""
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench random_models")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=9, help="begin no further explanation after so many")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), metavar="NAME[:SETTING=VALUE,...]")
    arguments = parser.parse_args()
    try:
        methods = [Asked.of(text) for text in arguments.methods]
    except SettingsError as error:
        parser.error(str(error))
    torch.set_num_threads(1)
    keep_freed_memory()
    samples = boxed_samples(arguments.images)
    model = imagenet_network().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    trained = {
        each.text: make_explainer(each.name, model, each.settings, Scoring(batch_size=32, precision="bf16"))
        for each in methods
    }
    random = {text: RandomModel(explainer).explainer for text, explainer in trained.items()}
    records, begun = Records("random-models"), time.monotonic()
    for sample in samples:
        image = prepared(sample).image
        for text, explainer in trained.items():
            if (key := f"{text} {sample.id} {torch.__version__}") in records:
                continue
            if time.monotonic() - begun > 60 * arguments.minutes:
                break
            records.add(key, measured(explainer, random[text], image, sample.id))
    rows = []
    for each in methods:
        known = [
            records.found[key]
            for sample in samples
            if (key := f"{each.text} {sample.id} {torch.__version__}") in records
        ]
        mark = " (for the eye)" if find_method(each.name).for_display else ""
        if known:
            rows.append(
                [
                    f"`{each.text}`{mark}",
                    *(shown([record[name] for record in known]) for name in ("random", "runner_up")),
                    len(known),
                ]
            )
    head = [
        "method",
        "randomised model (near 0: the map comes from what was learnt)",
        "runner-up class (1: the map knows no class)",
        "images",
    ]
    text = [
        *table(head, rows), "",
        "Spearman's correlation of the map for the predicted class with the map of the same network with every weight drawn anew, and with the map for the second "
        "most likely class; means ± 2 standard errors over the images that have both maps. MobileNetV2 at 224 x 224 on photographs, bf16. "
        f"Not here: {ELSEWHERE}.", "", circumstances(),
    ]  # fmt: skip
    write_part(DOCS / "randomised-models.md", "random_models", "\n".join(text))


if __name__ == "__main__":
    main()
