"""`heatlas choose`: rank methods over the same images, and take the cheapest that cannot be told from the best."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...engine.methods.registry import find_method
from ...engine.metrics import spelt_out
from ...engine.metrics.evaluate import find_metric
from ...errors import UsageError
from ..explain.explain import explain_settings
from ..run_samples import chosen_samples
from ..settings.load import load_settings
from ..sources.reading.confinement import check_data_root
from ..statistics.bootstrap import RESAMPLES, check_bootstrap
from ..storage.atomic_write import put
from ..storage.location import child
from ..store.reader import StoreReader, open_store
from ..terminal_log import say
from .choice import NAME, Choice, choice_place, make_choice
from .method_values import ChoiceColumn, MethodValues, choice_columns, read_values
from .ranking import rank_methods
from .stratified_sample import stratified_ids

IMAGES = 200
METRICS = ("ebpg", "insertion_auc", "deletion_auc")
OWN = ("method", "out", "ids", "sample", "limit", "target")
"""Settings that a choice makes itself."""


@dataclass(frozen=True)
class ChosenMethod:
    """A choice, and what became of the methods that were to be tried."""

    choice: Choice
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Why a method was not tried, by its name."""
    notes: tuple[str, ...] = ()


def choose_among(
    stores: Sequence[str | os.PathLike[str] | StoreReader],
    *,
    columns: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    write: bool = True,
) -> ChosenMethod:
    """Rank methods that were run already, each in a store of its own over the same images and model.

    Args:
        stores: At least two.
        columns: `plausibility`, `faithfulness`, `stability`, `retention`; None for those of the first three that all stores have.
        resamples: Of the images.
        seed: Of the resamples.
        write: Whether every store gets the choice as `choice/choice.parquet`, by which `heatlas compare` knows of it.

    Raises:
        UsageError: If the stores cannot be ranked against each other: other models or metrics, too few images.
        StorageError: If one cannot be read.
    """
    check_bootstrap(resamples, seed)
    if len(stores) < 2:
        raise UsageError(f"a choice is between at least 2 stores, got {len(stores)}")
    uris = [store.uri if isinstance(store, StoreReader) else os.fspath(store).rstrip("/") for store in stores]
    if twice := [uri for uri in uris if uris.count(uri) > 1]:
        raise UsageError(f"{twice[0]} is named twice; a choice is between different stores, one per method")
    atlases = [store if isinstance(store, StoreReader) else open_store(store) for store in stores]
    _refuse_other_models(atlases)
    wanted = choice_columns(atlases, columns)
    _refuse_other_definitions(atlases, wanted)
    methods, ids = read_values(atlases, wanted)
    kept, notes = _with_values(methods, wanted, asked=columns is not None)
    places = [wanted.index(column) for column in kept]
    ranking = rank_methods(np.stack([method.values[places] for method in methods]), resamples=resamples, seed=seed)
    own = [_cut(method, places) for method in methods]
    notes += [
        f"{method.method} has no map of {method.failed} images, which no method is ranked on"
        for method in methods
        if method.failed
    ]
    notes += [
        f"{column.name}: no chance map was measured, so nothing was subtracted"
        for place, column in enumerate(kept)
        if column.chance_map and np.isnan([method.chance[place] for method in own]).any()
    ]
    choice = make_choice(own, kept, ranking, ids, resamples=resamples, seed=seed)
    if write:
        for atlas in atlases:
            choice.write(choice_place(atlas.uri))
    return ChosenMethod(choice, notes=tuple(notes))


def choose_by_trial(
    settings: Mapping[str, Any],
    methods: Sequence[str],
    out: str | os.PathLike[str],
    *,
    count: int = IMAGES,
    columns: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> ChosenMethod:
    """Explain a stratified sample with every method, then rank them.

    Args:
        settings: Of `heatlas explain`: `model`, `data` and what else is wanted, but none of `OWN`.
        methods: At least two; one that does not fit the model is left out and said.
        out: Folder or URI: a store per method, the sample's ids, and `choice.parquet`. The same call again resumes.
        count: Images.
        columns: As `choose_among` takes them.
        resamples: Of the images.
        seed: Of the sample and of the resamples.

    Raises:
        UsageError: If fewer than two methods can be tried, or the settings are wrong.
        RunError: If a run fails; the same call resumes.
    """
    if len(set(methods)) < 2:
        raise UsageError(f"--methods needs at least 2 methods to choose from, got {', '.join(methods) or 'none'}")
    if taken := [name for name in OWN if name in settings]:
        raise UsageError(f"a choice sets {taken[0]!r} itself; leave it out")
    for method in methods:
        find_method(method)
    for name in spelt_out(
        load_settings({**settings, "out": os.fspath(out)}).metrics if "metrics" in settings else METRICS
    ):
        find_metric(name)
    out = os.fspath(out)
    ids = _sample(settings, out, count, seed)
    stores, skipped = [], {}
    for method in dict.fromkeys(methods):
        place = child(out, method)
        own = {"metrics": METRICS, "chance_maps": count, "seed": seed, **settings}
        try:
            explain_settings(load_settings({**own, "method": method, "out": place, "ids": ids, "target": "predicted"}))
        except UsageError as error:
            skipped[method] = str(error)
            say(f"note: {method} is left out: {error}")
            continue
        stores.append(place)
    if len(stores) < 2:
        raise UsageError(
            f"fewer than 2 of the methods could be tried: {'; '.join(f'{name}: {why}' for name, why in skipped.items())}"
        )
    chosen = choose_among(stores, columns=columns, resamples=resamples, seed=seed)
    chosen.choice.write(child(out, NAME))
    return ChosenMethod(chosen.choice, skipped, chosen.notes)


def _sample(settings: Mapping[str, Any], out: str, count: int, seed: int) -> str:
    """Write the ids of the stratified sample beside the stores; where they are."""
    loaded = load_settings({**settings, "out": out})
    listing = chosen_samples(loaded, check_data_root(loaded.data_root)).listing
    buffer, uri = io.BytesIO(), child(out, "sample.parquet")
    pq.write_table(pa.table({"id": pa.array(stratified_ids(listing, count, seed), pa.string())}), buffer)
    put(uri, buffer.getvalue())
    return uri


def _refuse_other_models(atlases: Sequence[StoreReader]) -> None:
    digests = [(atlas.run["fingerprint"].get("model") or {}).get("digest") for atlas in atlases]
    for atlas, digest in zip(atlases, digests, strict=True):
        if digest != digests[0]:
            raise UsageError(
                f"{atlas.uri} explains another model than {atlases[0].uri}; methods are chosen for one model"
            )


def _refuse_other_definitions(atlases: Sequence[StoreReader], columns: Sequence[ChoiceColumn]) -> None:
    for metric in (metric for column in columns for metric in column.metrics):
        definitions = [atlas.metadata.get("metrics", {}).get(metric, {}).get("definition") for atlas in atlases]
        for atlas, definition in zip(atlases, definitions, strict=True):
            if definition != definitions[0]:
                raise UsageError(
                    f"{metric} is {definition} in {atlas.uri} and {definitions[0]} in {atlases[0].uri}; they do not compare"
                )


def _with_values(
    methods: Sequence[Any], columns: Sequence[ChoiceColumn], *, asked: bool
) -> tuple[list[ChoiceColumn], list[str]]:
    """Columns with an image that every method has a value of; others are said, or refused where they were asked for."""
    kept, notes = [], []
    for place, column in enumerate(columns):
        if (~np.isnan([method.values[place] for method in methods])).all(axis=0).any():
            kept.append(column)
        elif asked:
            raise UsageError(f"no image has {column.name} ({', '.join(column.metrics)}) from every method")
        else:
            notes.append(f"{column.name} is left out: no image has {', '.join(column.metrics)} from every method")
    if not kept:
        named = "; ".join(f"{column.name} needs {', '.join(column.metrics)}" for column in columns)
        raise UsageError(
            f"nothing to rank by: no image has a value from every method ({named}); `heatlas evaluate` adds metrics to a store, and ebpg has values where objects are marked"
        )
    return kept, notes


def _cut(method: MethodValues, places: list[int]) -> MethodValues:
    return replace(method, values=method.values[places], chance=method.chance[places])
