"""The table `STORE/interventions/groups.parquet`: what interventions said of each class, with the sentence that people read."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import StorageError
from ..storage.atomic_write import put
from ..storage.location import child, locate, names_in
from ..text import class_name

if TYPE_CHECKING:
    from .effect_tests import Effect, GroupVerdict

FOLDER, NAME = "interventions", "groups.parquet"
METADATA_KEY = b"heatlas_interventions"
NUMBERS = ("mean", "low", "high", "control", "null", "beyond", "p", "p_holm")
SCHEMA = pa.schema(
    [
        ("group", pa.string()), ("class", pa.int32()), ("class_name", pa.string()), ("region", pa.string()), ("images", pa.int64()),
        *((f"necessity_{name}", pa.float64()) for name in NUMBERS), ("lost", pa.float64()), ("lost_control", pa.float64()),
        *((f"sufficiency_{name}", pa.float64()) for name in NUMBERS), ("turned", pa.float64()), ("turned_control", pa.float64()),
        ("turned_null", pa.float64()), ("needed", pa.bool_()), ("sufficient", pa.bool_()), ("confirmed", pa.bool_()), ("text", pa.string()),
    ]
)  # fmt: skip
"""`necessity_*`: confidence lost with the region (`mean`, 95 % interval `low` to `high`), with control regions (`control`), in other classes' images
without the same region (`null`), beyond both (`beyond`), tests `p` and `p_holm`. `sufficiency_*`: the same of confidence gained where it is pasted.
`lost`: share of images that lose the class; `turned`: share of other images that become it."""


def group_record(verdict: GroupVerdict, class_names: Sequence[str]) -> dict[str, Any]:
    """One row of the table."""
    effects, removals = verdict.effects, verdict.effects.removals
    return {
        "group": effects.group.name, "class": effects.group.target, "class_name": class_name(class_names, effects.group.target),
        "region": effects.group.what, "images": len(effects.rows), **_numbers("necessity", verdict.necessity),
        "lost": float(removals.lost.mean()), "lost_control": _known(_mean(removals.lost_control)), **_numbers("sufficiency", verdict.sufficiency),
        "turned": _known(effects.turned), "turned_control": _known(effects.turned_control), "turned_null": _known(effects.turned_null),
        "needed": verdict.necessity.counts, "sufficient": verdict.sufficiency.counts, "confirmed": verdict.confirmed,
        "text": sentence(verdict, class_names),
    }  # fmt: skip


def sentence(verdict: GroupVerdict, class_names: Sequence[str]) -> str:
    """What an intervention says of a class, for people; the same in terminal, table and report."""
    effects, necessity, sufficiency = verdict.effects, verdict.necessity, verdict.sufficiency
    name = class_name(class_names, effects.group.target)
    lost = 100 * float(effects.removals.lost.mean())
    costs = (
        f"costs {_points(necessity.mean)} points of confidence"
        if necessity.mean >= 0
        else f"adds {_points(-necessity.mean)} points of confidence"
    )
    most = max(effects.turned_by_class.items(), key=lambda entry: (entry[1][0], -entry[0]), default=None)
    often = (
        f", of {class_name(class_names, most[0])} {100 * most[1][0]:.0f} %"
        if most and most[1][0] > 0 and len(effects.turned_by_class) > 1
        else ""
    )
    said = {
        (True, True): "Confirmed: the model needs it, and it is enough", (True, False): "Confirmed: the model needs it",
        (False, True): "Confirmed: it is enough", (False, False): "Not confirmed",
    }[necessity.counts, sufficiency.counts]  # fmt: skip
    return (
        f"{effects.group.name}: removing {effects.group.what} {costs} (95 % interval {_points(necessity.low)} to {_points(necessity.high)}; "
        f"control {_points(necessity.control)}, other classes {_points(necessity.null)}), and {lost:.0f} % of {len(effects.rows)} images lose the class; "
        f"giving it to other images makes {_percent(effects.turned)} of them {name}{often} (control {_percent(effects.turned_control)}, "
        f"from other classes {_percent(effects.turned_null)}). {said}."
    )


def write_groups(out: str, records: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> str:
    """Write the table beside the store, over an older one; returns its URI."""
    table = pa.Table.from_pylist(
        list(records), schema=SCHEMA.with_metadata({METADATA_KEY: json.dumps(dict(facts)).encode()})
    )
    buffer, uri = io.BytesIO(), child(out, f"{FOLDER}/{NAME}")
    pq.write_table(table, buffer, compression="zstd")
    put(uri, buffer.getvalue())
    return uri


def interventions_of(out: str) -> pa.Table | None:
    """What interventions said of a store, as `SCHEMA`; None where there was none.

    Raises:
        StorageError: If the table cannot be read.
    """
    fs, path = locate(child(out, FOLDER))
    if NAME not in names_in(fs, path):
        return None
    try:
        with fs.open(f"{path}/{NAME}", "rb") as file:
            table = pq.read_table(pa.PythonFile(file))
        return table.select(SCHEMA.names).cast(SCHEMA.with_metadata(table.schema.metadata))
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise StorageError(
            f"cannot read {out}/{FOLDER}/{NAME}: {error}; run `heatlas intervene {out}` again"
        ) from error


def _numbers(prefix: str, effect: Effect) -> dict[str, float | None]:
    return {f"{prefix}_{name}": _known(getattr(effect, name)) for name in NUMBERS}


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _mean(values: Any) -> float:
    there = values[~(values != values)]
    return float(there.mean()) if len(there) else float("nan")


def _points(value: float) -> str:
    return f"{round(100 * value) + 0:d}" if math.isfinite(value) else "not measured"


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %" if math.isfinite(value) else "not measured"
