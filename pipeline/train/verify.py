"""`heatlas explain --verify N`: explain some random images exactly as well, and say how far a trained explainer is off on this data [ours]."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from ...engine.methods.registry import find_method
from ...engine.metrics import METRICS, spelt_out
from ...engine.metrics.ranking import spearman
from ...errors import RunMismatchError, UsageError
from ...workers.models.explainer_file import read_explainer
from ...workers.training.agreement import MeanMaps, weighted_jaccard
from ...workers.training.training_spec import TeacherMap
from ..explain.explain import explain_settings
from ..run_samples import chosen_samples
from ..settings.run import Settings
from ..sources.listing.selection import draw_sample
from ..sources.reading.confinement import check_data_root
from ..sources.reading.reader import FsspecReader
from ..statistics.bootstrap import BucketSums
from ..storage.atomic_write import put
from ..storage.location import child
from ..store.reader import StoreReader, open_store
from ..terminal_log import say
from ..text import counted

FOLDER = "verify"
WORST = 5
LEAST = 2
"""Images below which nothing can be said."""


@dataclass(frozen=True)
class Difference:
    """A mean over images with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float

    def text(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class ExplainerCheck:
    """A trained explainer beside the exact method on the same images."""

    exact: str
    """The method that it is compared with."""
    rows: int
    """Compared: those of both stores that are `ok`."""
    spearman: Difference
    jaccard: Difference
    class_mean_spearman: Difference
    """Of the mean exact map of the class over the other images; of all others where the class has none."""
    ahead_of_class_mean: Difference
    """Spearman less that of the mean map, paired."""
    metrics: Mapping[str, Difference]
    """The trained explainer's less the exact method's, paired, metric by metric."""
    worst: Sequence[str]
    """Ids of the images on which it is farthest off."""
    store: str
    """The exact maps."""

    def summary(self) -> str:
        """For people."""
        ahead = self.ahead_of_class_mean
        said = (
            "better than the mean map of its class"
            if ahead.low > 0
            else "no better than the mean map of its class on this data: do not use it for single images"
        )
        lines = [
            f"verified on {counted(self.rows, 'row')} explained exactly by {self.exact}: Spearman {self.spearman.text()}, weighted Jaccard "
            f"{self.jaccard.text()}; the mean map of the class: Spearman {self.class_mean_spearman.text()}; {said} ({ahead.text()})"
        ]
        lines += [
            f"  {name}: {difference.text()} against the exact maps' ({METRICS[name].better} is better)"
            for name, difference in self.metrics.items()
        ]
        return "\n".join([*lines, f"  farthest off: {', '.join(self.worst)}; the exact maps are in {self.store}"])


def check_explainer(settings: Settings, count: int) -> ExplainerCheck:
    """Explain random images of a finished run exactly, into `OUT/verify/exact`, and compare. Interrupted, the same call goes on.

    Args:
        settings: Of the run, which a trained explainer made.
        count: Images, at least 2.

    Raises:
        UsageError: When the run has no trained explainer or stores no maps, or too few images can be compared.
        RunError: When explaining fails.
    """
    refuse_check(settings, count)
    exact, drawn = exact_settings(settings, count)
    fewer = f" (all there are; --verify asks for {count:,})" if drawn < count else ""
    say(f"verifying {settings.method} on {counted(drawn, 'random image')}{fewer} with {exact.method}")
    try:
        explain_settings(exact)
    except RunMismatchError as error:
        folder = child(settings.out, FOLDER)
        raise RunMismatchError(
            f"{folder} verifies other images or by other settings than --verify {count} does; delete {folder} to verify anew, or give the "
            f"command that made it: {error}"
        ) from error
    check = compared(open_store(settings.out), open_store(exact.out), exact.method, settings.out)
    put(child(settings.out, f"{FOLDER}/agreement.json"), json.dumps(asdict(check), indent=2).encode())
    return check


def refuse_check(settings: Settings, count: int) -> None:
    """Refuse, before a run begins, what could not be verified after it.

    Raises:
        UsageError: Saying why.
    """
    if not find_method(settings.method).trained:
        raise UsageError(
            f"--verify compares a trained explainer with the exact method; {settings.method} is not trained: leave it out"
        )
    if settings.explainer is None:
        raise UsageError(
            f"--verify compares a trained explainer with the exact method; name that of {settings.method} with --explainer, or train one "
            f"(`heatlas train {settings.method}`)"
        )
    if count < LEAST:
        raise UsageError(f"--verify must be at least {LEAST} images, got {count}")
    if not settings.store.map:
        raise UsageError("--verify compares stored maps; leave --store.map on")
    exact_method(read_explainer(str(settings.explainer), FsspecReader(check_data_root(settings.data_root))).facts)


def exact_settings(settings: Settings, count: int) -> tuple[Settings, int]:
    """The run that explains the same images exactly, by the method whose maps a student imitated, else by SISE; and how many they are."""
    data_root = check_data_root(settings.data_root)
    listing = draw_sample(chosen_samples(settings, data_root).listing, count, settings.seed)
    ids = child(settings.out, f"{FOLDER}/ids.csv")
    put(ids, "".join(f"{quoted_field(id)}\n" for id in ("id", *listing["id"].to_pylist())).encode())
    facts = read_explainer(str(settings.explainer), FsspecReader(data_root)).facts
    method, own = exact_method(facts)
    changes: dict[str, Any] = {
        "method": method, "explainer": None, "out": child(settings.out, f"{FOLDER}/exact"), "ids": ids, "sample": None, "limit": None, "where": None,
        "budget": "exact", "chance_maps": 0, "sanity": 0, "retry_errors": False,
    }  # fmt: skip
    group = getattr(settings, method)
    known = {name: value for name, value in own.items() if name in type(group).model_fields}
    changes[method] = type(group).model_validate({**group.model_dump(), **known})
    return settings.model_copy(update=changes), len(listing)


def exact_method(facts: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The method whose maps a student imitated with its settings, else SISE; from the facts of an explainer.

    Raises:
        UsageError: When that method is trained itself.
    """
    made_by: Mapping[str, Any] = facts.get("made_by") or {}
    method = str(made_by.get("method", "sise"))
    if find_method(method).trained:
        raise UsageError(
            f"--verify: the explainer imitates {method}, which is trained itself; there is no exact method to verify it by"
        )
    return method, made_by.get("settings") or {}


def quoted_field(text: str) -> str:
    """A field of a CSV file."""
    return '"' + text.replace('"', '""') + '"'


def compared(trained: StoreReader, exact: StoreReader, method: str, out: str) -> ExplainerCheck:
    """The rows that both stores have.

    Raises:
        UsageError: When there are too few.
    """
    names = [name for name in spelt_out(["full"]) if name in trained.schema.names and name in exact.schema.names]
    own, other = rows_of(trained, names), rows_of(exact, names)
    keys = [key for key in other if key in own]
    if len(keys) < LEAST:
        raise UsageError(
            f"only {counted(len(keys), 'row')} of {out} and of its exact run can be compared; at least {LEAST} are needed"
        )
    first = torch.from_numpy(np.stack([own[key][0] for key in keys]))
    second = torch.from_numpy(np.stack([other[key][0] for key in keys]))
    means = torch.from_numpy(np.stack([mean_without(other, keys, key) for key in keys]))
    near = spearman(first.flatten(1), second.flatten(1)).numpy()
    of_mean = spearman(means.flatten(1), second.flatten(1)).numpy()
    overlap = weighted_jaccard(first, second).numpy()
    differences = np.array([[own[key][1][name] - other[key][1][name] for name in names] for key in keys]).reshape(
        len(keys), len(names)
    )
    ids = [id for id, _ in keys]
    columns = np.column_stack([near, overlap, of_mean, near - of_mean, differences]).astype(np.float64)
    sums = BucketSums.of(ids, columns)
    low, high = sums.intervals()
    said = [
        Difference(float(mean), float(start), float(end))
        for mean, start, end in zip(sums.means, low, high, strict=True)
    ]
    worst = [ids[place] for place in np.argsort(near, kind="stable")[:WORST]]
    metrics = {name: value for name, value in zip(names, said[4:], strict=True) if value.mean == value.mean}
    return ExplainerCheck(method, len(keys), said[0], said[1], said[2], said[3], metrics, worst, exact.uri)


def rows_of(store: StoreReader, names: Sequence[str]) -> dict[tuple[str, int], tuple[np.ndarray, dict[str, float]]]:
    """Map and metrics of every row that is `ok`, by id and target."""
    facts = store.metadata["map"]
    shape = (facts["height"], facts["width"])
    rows: dict[tuple[str, int], tuple[np.ndarray, dict[str, float]]] = {}
    for batch in store.batches(["id", "target", "map", *names], "status = 'ok'"):
        maps, values = batch.column("map"), batch.drop_columns(["map"]).to_pylist()
        for place, row in enumerate(values):
            own = np.asarray(maps[place].values, dtype=np.float32).reshape(shape)
            rows[row["id"], row["target"]] = own, {name: np.nan if row[name] is None else row[name] for name in names}
    return rows


def mean_without(
    rows: Mapping[tuple[str, int], Any], keys: Sequence[tuple[str, int]], left_out: tuple[str, int]
) -> np.ndarray:
    """The mean map of a row's class over the other rows; of all others where the class has none."""
    others = [TeacherMap(key[1], rows[key][0]) for key in keys if key != left_out]
    return MeanMaps(others).of(left_out[1])
