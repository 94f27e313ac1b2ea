"""A run whose maps are not made but imported; the command and `heatlas.import_maps` are both this."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

from ...engine.metrics import METRICS, spelt_out
from ...engine.metrics.evaluate import find_metric
from ...errors import TargetError, UsageError
from ...workers.targets import PREDICTED, TargetRule
from ...workers.worker.build import build_engine
from ..explain.explain import carry_out
from ..explain.given import named_objects
from ..explain.prepare import PreparedRun, prepare_run
from ..explain.result import RunResult
from ..settings.imported_runs import CARRIER, IMPORTED, OF_THE_MAPS
from ..settings.load import load_settings
from ..settings.options import ImportOptions
from ..settings.run import Settings, describe
from ..store.identity import SCHEMA_FACT, schema_digest
from ..store.part_origin import run_identity
from ..store.run_file import stored_fingerprint
from ..terminal_log import say
from .choices import Channels, Covers, MapChoices, Match, Sign
from .imported import ImportedMaps
from .map_index import index_maps
from .survey import MapCounts, survey_maps

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn
    from torch.utils.data import DataLoader, Dataset

SEVERAL = ("both", "top", "above", "components")
"""Rules that may choose several classes of an image."""


def import_maps(
    maps: str | os.PathLike[str] | Mapping[str, Tensor | np.ndarray] | Tensor | np.ndarray,
    *,
    model: str | nn.Module,
    data: str | os.PathLike[str] | Dataset[Any] | DataLoader[Any],
    out: str | os.PathLike[str],
    config: str | os.PathLike[str] | None = None,
    preprocess: Any = None,
    class_names: Sequence[str] | None = None,
    method: str = "imported",
    by: Match = "id",
    sign: Sign = "positive",
    channels: Channels = "sum",
    covers: Covers | None = None,
    array: str | None = None,
    method_index: int | None = None,
    **settings: Unpack[ImportOptions],
) -> RunResult:
    """Make a store from maps that another tool made, so that every metric, report, queue and comparison works on them.

    The model says what it predicts and measures the maps; nothing is explained. The same call again resumes.

    Args:
        maps: Folder of files named like the images' ids, or one file with ids: `.npy`, `.npz`, `.pt`, `.safetensors`, `.parquet`, `.png`
            (grey); path or fsspec URI. Or the maps themselves: a mapping of ids to arrays, or an array with `by="position"`.
            A map is `(height, width)`, or has 1 or 3 channels before or behind.
        model: As for `explain_dataset`: the classifier that the maps explain.
        data: As for `explain_dataset`.
        out: Directory or URI of the store.
        config: YAML file with settings, or the name of a packaged one.
        preprocess: As for `explain_dataset`.
        class_names: Of a model object, one per class.
        method: Name of the method that made the maps, for the column `method`.
        by: `id`, or `position`: the maps stand in the order of the data set's listing.
        sign: What becomes of values below 0: `positive` (they count as 0), `negative` (only they count), `absolute`, or `range` (each map's
            range becomes [0, 1]).
        channels: How channels become one: `sum`, or `largest` (by absolute value).
        covers: What a map of another size than the network's input covers: the network's `input`, or the whole upright `image`.
        array: Which array of a file with several.
        method_index: Which method along the second axis of `(image, method, channel, height, width)`.
        **settings: Other settings of `heatlas import --help`. `target` says which class maps explain whose files do not say it; maps are
            stored at full resolution unless `store={"map_size": ...}` says otherwise.

    Returns:
        What the store now holds.

    Raises:
        UsageError: When maps, model and images do not go together, or it cannot be told how; nothing was begun.
        RunError: When the run failed; what is committed stays, and the same call resumes.
    """
    choices = MapChoices(method, by, sign, channels, covers, array, method_index)
    with named_objects(model, data, preprocess, class_names) as named:
        held = os.fspath(maps) if isinstance(maps, str | os.PathLike) else maps
        return import_settings(held, choices, load_settings(with_defaults({**named, "out": out, **settings}), config))


def with_defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with those that an import has of its own: full maps, because only those can be measured later."""
    nested = given.get("store")
    size = given.get("store.map_size") or (nested.get("map_size") if isinstance(nested, Mapping) else None) or "input"
    others = {name: value for name, value in given.items() if name not in ("store", "store.map_size", "method")}
    return {**others, "method": CARRIER, "store": {**(nested or {}), "map_size": size}}


def import_settings(maps: Any, choices: MapChoices, settings: Settings) -> RunResult:
    """As `import_maps`, with resolved settings."""
    run = prepare_run(without_unmeasurable(settings))
    rule = single_target(run.spec.target, str(run.settings.target))
    classes = run.fingerprint["classes"]["number"]
    index = index_maps(maps, run.listing["id"].to_pylist(), choices)
    counts = survey_maps(index, len(run.listing), run.model.preprocess, classes)
    for note in counts.notes(index, str(settings.target)):
        say(f"note: {note}")
    source = ImportedMaps(index, run.model.preprocess, rule, classes)
    place = maps if isinstance(maps, str) else None
    own = imported(run, choices, counts, source)
    return carry_out(replace(own, described=stored_settings(own, choices, place, counts)))


def imported(run: PreparedRun, choices: MapChoices, counts: MapCounts, source: ImportedMaps) -> PreparedRun:
    """The run with the maps' facts in the place of a method's."""
    facts = {"imported": counts.digest, **{name: getattr(choices, name) for name in ("sign", "channels", "covers")}}
    target = target_of(run, counts)
    fingerprint = {name: value for name, value in run.fingerprint.items() if name != CARRIER}
    metadata = dict(run.sink.layout.metadata)
    said = metadata["provenance"]
    metadata["provenance"] = {**said, "settings": {"score": said["settings"]["score"], "target": target, **facts}}
    layout = replace(run.sink.layout, method=choices.method, metadata=metadata)
    fingerprint |= {
        "method": choices.method,
        choices.method: facts,
        "target": target,
        SCHEMA_FACT: schema_digest(layout.schema()),
    }
    return replace(
        run,
        fingerprint=fingerprint,
        spec=replace(run.spec, target=PREDICTED),
        sink=replace(run.sink, layout=layout, run=run_identity(stored_fingerprint(fingerprint))),
        made_by=f"with imported maps of {choices.method}",
        build=partial(build_engine, stored=source),
    )


def target_of(run: PreparedRun, counts: MapCounts) -> Any:
    return OF_THE_MAPS if counts.with_target == counts.maps else run.settings.target


def stored_settings(run: PreparedRun, choices: MapChoices, place: str | None, counts: MapCounts) -> dict[str, Any]:
    """What `_run.json` says to people: the settings, and how the maps were read."""
    described = {name: value for name, value in (run.described or describe(run.settings)).items() if name != CARRIER}
    own = {name: value for name, value in choices.stored().items() if name != "method"}
    return described | {"method": choices.method, "target": target_of(run, counts), IMPORTED: {"maps": place, **own}}


def single_target(rule: TargetRule, written: str) -> TargetRule:
    """Refuse a rule for which one map is not enough.

    Raises:
        TargetError: Naming it.
    """
    if rule.kind in SEVERAL or len(rule.classes) > 1:
        raise TargetError(
            f"target {written} may choose several classes, and a map explains one: give predicted, label, one class or column:NAME, or an "
            "array targets beside the maps"
        )
    return rule


def without_unmeasurable(settings: Settings) -> Settings:
    """The settings without those metrics of a preset that need more than a map, which is said.

    Raises:
        UsageError: For one that is asked for by its own name, and for the sanity check.
    """
    if settings.sanity:
        raise UsageError(
            "sanity explains images again with random weights, which only a method of heatlas's own can; leave it out"
        )
    names = [find_metric(name).name for name in spelt_out(settings.metrics)]
    more = [name for name in names if METRICS[name].layers or METRICS[name].explains]
    if named := sorted(set(more).intersection(settings.metrics)):
        raise UsageError(
            f"{', '.join(named)} needs more than a map: block layers or further explanations; leave it out"
        )
    if not more:
        return settings
    say(f"note: {', '.join(more)} left out: a map is not enough for it")
    kept = tuple(name for name in names if name not in more)
    return settings.model_copy(update={"metrics": kept})
