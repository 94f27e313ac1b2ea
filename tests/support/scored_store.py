"""Writes a store whose scores and chance baselines are given, without maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from heatlas.pipeline.shards import plan_shards
from heatlas.pipeline.store.parquet_sink import ParquetSink
from heatlas.pipeline.store.run_file import claim_run
from heatlas.pipeline.store.schema import StoreLayout
from heatlas.workers.samples import Row, Sample

BETTER = {"drop_pct": "lower", "ebpg": "higher", "spread": "neither", "random_model_spearman": "neither",
          "insertion_auc": "higher", "deletion_auc": "lower"}  # fmt: skip


def write_scores(
    out: Path,
    scores: Mapping[str, Sequence[float | None]],
    *,
    chance: Mapping[int, Mapping[str, Mapping[str, float | None]]] | None = None,
    failed: Sequence[int] = (),
    labels: Sequence[int | None] | None = None,
    shard_size: int = 4,
    definitions: Mapping[str, str] | None = None,
    method: str = "sise",
    model: str | None = None,
    passes: int = 0,
) -> Path:
    """A run of as many images `img-0000 ...` as there are scores; `chance` by place; `failed` places have no map."""
    metrics = tuple(scores)
    count = len(next(iter(scores.values())))
    facts = {name: {"definition": f"{name}/v1", "unit": "1", "better": BETTER[name]} for name in metrics}
    for name, definition in (definitions or {}).items():
        facts[name]["definition"] = definition
    chance_metrics = tuple(next(iter(next(iter(chance.values())).values()))) if chance else ()
    layout = StoreLayout(
        (4, 4), method=method, metrics=metrics, chance_metrics=chance_metrics, with_map=False, with_png=False,
        metadata={"metrics": facts, "class_names": ["ant", "bee"]},
    )  # fmt: skip
    claim_run(str(out), {"plan_digest": "p", **({"model": {"digest": model}} if model else {})}, {"seed": 0})
    for shard in plan_shards(count, shard_size):
        rows = []
        for place in range(shard.start, shard.stop):
            sample = Sample(f"img-{place:04d}", "/x.png", labels[place] if labels else place % 2)
            if place in failed:
                rows.append(Row(sample, "decode_error", "no image"))
                continue
            values = {name: scores[name][place] for name in metrics}
            rows.append(
                Row(
                    sample,
                    "ok",
                    prediction=1,
                    target=1,
                    metrics=values,
                    n_forwards=passes,
                    chance=(chance or {}).get(place),
                )
            )
        assert ParquetSink(str(out), layout).commit(shard, rows)
    return out
