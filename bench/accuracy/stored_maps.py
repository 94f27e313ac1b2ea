"""How far metrics move when a map is read back from the store instead of measured at once: float16, and the 8-bit PNG.

    python -m bench stored_maps [--images 12] [--metrics standard] [--mu 0.5]

Explains photographs with MobileNetV2, measures every map as it was made, as `map` holds it (float16) and as `map_png` holds it (256 grey
levels), both at input resolution, and prints the differences as a Markdown table.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np
import torch
from heatlas.engine.explanation import Explanation
from heatlas.engine.methods.sise import SISE
from heatlas.engine.metrics import METRICS, rank_pixels, spelt_out, top_share
from heatlas.engine.session import Explained, ExplainSession
from heatlas.statuses import OK
from heatlas.workers.images.decode import Prepared
from heatlas.workers.samples import Sample
from heatlas.workers.worker.shard_attempt import seed_of
from torch import Tensor

from ..data_sets import DATA_SETS, prepared

KEPT: dict[str, Callable[[Tensor], Tensor]] = {
    "float16": lambda map: map.half().float(),
    "8-bit PNG": lambda map: (map * 255).round() / 255,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench stored_maps")
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--metrics", nargs="+", default=["standard"])
    parser.add_argument("--mu", type=float, default=0.5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    samples = DATA_SETS[0].samples(arguments.images)
    images = [prepared(sample) for sample in samples]
    session = ExplainSession(
        SISE(DATA_SETS[0].model(), mu=arguments.mu, batch_size=32),
        [name for name in spelt_out(arguments.metrics) if not METRICS[name].layers],
    )
    made = measured(session, samples, images)
    read_back = {
        name: measured(session, samples, images, [as_read(explanation, keep) for explanation in made])
        for name, keep in KEPT.items()
    }
    print(table(made, read_back))


def measured(
    session: ExplainSession, samples: Sequence[Sample], images: Sequence[Prepared], given: Sequence[Explanation] = ()
) -> list[Explained]:
    """Every image with its metrics, explained anew unless its explanation is given."""
    left: list[Explained] = []
    for key, (sample, ready) in enumerate(zip(samples, images, strict=True)):
        left += session.push(
            key, ready.image, truth=ready.truth, label=sample.label, sample_seed=seed_of(sample.id),
            given=given[key] if given else None,
        )  # fmt: skip
    return [*left, *session.finish()]


def as_read(explained: Explained, keep: Callable[[Tensor], Tensor]) -> Explanation:
    map_ = None if explained.map is None else keep(explained.map)
    return Explanation(
        explained.status,
        explained.error,
        explained.prediction,
        explained.target,
        explained.confidence,
        explained.logit,
        map=map_,
    )


def table(made: Sequence[Explained], read_back: dict[str, list[Explained]]) -> str:
    """Mean of every metric, and the mean and largest distance of each way to keep a map."""
    ok = [place for place, explanation in enumerate(made) if explanation.status == OK]
    lines = [
        f"{len(ok)} maps; pixels that share their value with another: "
        + ", ".join(f"{name} {shared([made[place].map for place in ok], keep):.0%}" for name, keep in {"float32": lambda map: map, **KEPT}.items()),
        "",
        "Pixels of the top 15 % that change, per image: " + ", ".join(
            f"{name} {min(counts)} to {max(counts)}" for name, result in read_back.items()
            for counts in [[changed(made[place].map, result[place].map) for place in ok]]
        ),
        "",
        f"| metric | mean | {' | '.join(f'{name}: mean off by | at most' for name in KEPT)} |",
        "|---|---|" + "---|---|" * len(KEPT),
    ]  # fmt: skip
    for name in made[ok[0]].metrics:
        values = np.array([made[place].metrics[name] for place in ok], dtype=float)
        if not np.isfinite(values).any():
            continue
        cells = [f"`{name}`", f"{np.nanmean(values):.4g}"]
        for result in read_back.values():
            off = np.abs(np.array([result[place].metrics[name] for place in ok], dtype=float) - values)
            cells += [f"{np.nanmean(off):.1g}", f"{np.nanmax(off):.1g}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def changed(first: Tensor | None, second: Tensor | None) -> int:
    """How many pixels of the top 15 % of one map are not in that of the other."""
    if first is None or second is None:
        return 0
    top, other = (top_share(rank_pixels(map[None]), 0.15, (map.shape[0], map.shape[1]))[0] for map in (first, second))
    return int((top & ~other).sum())


def shared(maps: Sequence[Tensor | None], keep: Callable[[Tensor], Tensor]) -> float:
    """Mean share of the pixels that are tied."""
    shares = []
    for map in maps:
        if map is not None:
            counts = keep(map).flatten().unique(return_counts=True)[1]
            shares.append(float(counts[counts > 1].sum()) / map.numel())
    return float(np.mean(shares))


if __name__ == "__main__":
    main()
