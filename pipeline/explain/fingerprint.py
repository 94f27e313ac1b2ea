"""What a run says of itself: the fingerprint that a resuming run must share, and the facts in every file's metadata."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
from torch import nn

from ...engine.method_fit import Fit
from ...engine.methods.registry import find_method
from ...engine.metrics import METRICS
from ...engine.metrics.chance_maps import chance_metrics
from ...engine.metrics.sanity import SANITY, SANITY_METRIC
from ...workers.models.behaviour import AdaptedModel
from ...workers.models.load import LoadedModel
from ...workers.models.model_identity import model_facts, names_digest
from ...workers.samples import Shard
from ..settings.methods import chosen_settings
from ..settings.run import Settings
from ..shards import cut, plan_digest
from ..sources.listing.check import listing_digest
from ..store.identity import SCHEMA_FACT, require_listed, schema_digest
from ..store.run_file import versions
from ..store.schema import MethodColumn, StoreLayout
from .shift_correction import FACT, pixels_of


def run_fingerprint(
    settings: Settings,
    metrics: Sequence[str],
    model: LoadedModel,
    fit: Fit,
    listing: pa.Table,
    shards: Sequence[Shard],
    data_root: str | None = None,
    score: str = "softmax",
    class_names: Sequence[str] | None = None,
    layout: StoreLayout | None = None,
) -> dict[str, Any]:
    """Everything that changes a row: what `IDENTITY` lists. Not in it: how many workers there are and where they run, patience, and `out`."""
    samples = listing_digest(listing)
    plan = {"samples": len(listing), "shards": len(shards), "listing": samples, "digest": plan_digest(samples, shards)}
    if shards != cut(len(listing), len(shards)):
        plan["sizes"] = list(map(len, shards))
    fingerprint = {
        "plan": plan,
        **nested(model_facts(model)),
        "preprocess": asdict(model.preprocess),
        "method": settings.method,
        settings.method: method_identity(settings),
        "target": settings.target,
        "metrics": [METRICS[name].definition for name in metrics],
        "floors": settings.chance_maps,
        "sanity": settings.sanity,
        "budget": settings.budget,
        "precision": settings.precision,
        "batch_size": settings.batch_size,
        "threads": settings.cpus_per_worker,
        "seed": settings.seed,
        "store": settings.store.model_dump(),
        **({"data_root": data_root} if data_root else {}),
        **corrected_shift(settings),
        **({"forward": settings.forward} if settings.forward != "eager" else {}),
        **({"score": score} if score != "softmax" else {}),
        **({SCHEMA_FACT: schema_digest(layout.schema())} if layout else {}),
    }
    fingerprint["model"] |= {"layers": list(fit.blocks.names)} if fit.blocks else {}
    fingerprint["model"] |= {"source": model.source} if model.source else {}
    fingerprint["classes"]["names"] = names_digest(class_names)
    require_listed(fingerprint)
    return fingerprint


def corrected_shift(settings: Settings) -> dict[str, Any]:
    """Pixels down and right by which maps are moved back, where they are."""
    shift = list(pixels_of(settings.correct_shift))
    return {FACT: shift} if any(shift) else {}


def nested(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts with dotted keys as a mapping of mappings; what does not apply is left out."""
    groups: dict[str, Any] = {}
    for key, value in facts.items():
        group, _, name = key.partition(".")
        if value is not None:
            groups.setdefault(group, {})[name] = value
    return groups


def store_layout(
    settings: Settings,
    metrics: Sequence[str],
    model: LoadedModel,
    fit: Fit,
    class_names: Sequence[str] | None,
    score: str = "softmax",
    extra: tuple[tuple[str, str], ...] = (),
    feature_width: int | None = None,
) -> StoreLayout:
    """The files' columns, and metadata by which they can be understood without this program.

    What is in it follows from the fingerprint, so no path: the same weights may lie elsewhere tomorrow, and parts are compared by it.
    """
    provenance = {
        "model": architecture(model.module),
        "model_digest": model.digest,
        **({"bank_digest": model.bank_digest} if settings.bank else {}),
        **explainer_facts(model),
        **({"layers": [asdict(layer) for layer in fit.blocks]} if fit.blocks else {}),
        "preprocess": asdict(model.preprocess),
        "settings": {
            **method_identity(settings),
            "target": settings.target,
            "score": score,
            "budget": settings.budget,
            "precision": settings.precision,
            **corrected_shift(settings),
        },
        "versions": versions(),
    }
    columns = (*metrics, *([SANITY] if settings.sanity else []))
    return StoreLayout(
        input_size=model.preprocess.size,
        method=settings.method,
        metrics=columns,
        extra=extra,
        method_columns=tuple(
            MethodColumn(name, fit.extra_shapes[name], meaning)
            for name, meaning in find_method(settings.method).extras.items()
        ),
        chance_metrics=tuple(metric.name for metric in chance_metrics(METRICS[name] for name in metrics))
        if settings.chance_maps
        else (),
        map_size=settings.store.map_size,
        with_map=settings.store.map,
        with_png=settings.store.map_png,
        feature_width=feature_width,
        metadata={
            "metrics": {name: metric_facts(name) for name in columns},
            "class_names": list(class_names or ()),
            "provenance": provenance,
        },
    )


def architecture(module: nn.Module) -> str:
    """The name of a model's class."""
    inner = getattr(module, "model", None) if isinstance(module, AdaptedModel) else module
    return type(inner).__name__


def explainer_facts(model: LoadedModel) -> dict[str, Any]:
    """Which trained explainer made the maps."""
    stored = model.explainer
    if stored is None:
        return {}
    facts = {name: stored.facts.get(name) for name in ("training_images", "best_epoch", "agreement", "teacher")}
    facts |= {name: stored.facts[name] for name in ("parts", "part_classes", "fidelity") if name in stored.facts}
    return {"explainer": {"digest": stored.digest(), "image_digest": stored.image_digest, **facts}}


def file_digest(path: str) -> str:
    """Sha256 (hex) of a file that a method reads, so that another content is another run wherever it lies."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def method_identity(settings: Settings) -> dict[str, Any]:
    """The chosen method's settings. SISE's layers stand with the model, and what it learnt to do later only where it does it."""
    chosen = chosen_settings(settings)
    identity: dict[str, Any] = {
        name: list(value) if isinstance(value, tuple) else value for name, value in asdict(chosen).items()
    }
    for name in find_method(settings.method).files:
        if identity[name] is not None:
            identity[name] = f"sha256:{file_digest(identity[name])}"
    if settings.method != "sise":
        return identity
    plain = asdict(type(chosen)())
    return {
        name: identity[name]
        for name in identity
        if name == "mu" or (name != "layers" and identity[name] != plain[name])
    }


def metric_facts(name: str) -> dict[str, Any]:
    """A metric's definition for the metadata."""
    metric = METRICS.get(name, SANITY_METRIC)
    return {
        "definition": metric.definition,
        "formula": metric.formula,
        "unit": metric.unit,
        "range": [str(limit) if limit in (float("inf"), float("-inf")) else limit for limit in metric.range],
        "better": metric.better,
        "baseline": metric.baseline,
        "source": metric.source,
    }
