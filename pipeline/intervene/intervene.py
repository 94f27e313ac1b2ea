"""`heatlas intervene`: does the model need a region, and is the region enough? By intervention, over a store's data set."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pyarrow as pa

from ...engine.interventions.prediction_sign import intervention_scorer
from ...engine.interventions.region_fill import FILL_TEXTS, FillName, RegionFill
from ...engine.scoring.confidence import CONFIDENCES
from ...errors import UsageError, did_you_mean
from ...workers.models.factory import import_user_module, module_attribute
from ..decisions.record import current_decisions
from ..decisions.upright_masks import WHOLE_SHARE
from ..features.compute import load_stored_model
from ..statistics.bootstrap import RESAMPLES, check_bootstrap
from ..store.added_values import Key, write_values
from ..store.reader import StoreReader, open_store
from ..terminal_log import say
from ..text import counted
from .effect_tests import LEAST_EFFECT, GroupVerdict, judge_groups
from .group_effects import ImageBench, InterventionPlan
from .groups_of_rows import FEWEST_IMAGES, chosen_method, explained_rows, row_groups
from .intervention_table import SCHEMA, group_record, write_groups

COLUMN_FACTS: dict[str, dict[str, Any]] = {
    "necessity": {
        "definition": "necessity/1", "formula": "confidence lost without the region - that lost without control regions of equal area", "unit": "probability",
        "range": [-1.0, 1.0], "better": None, "baseline": "control regions", "source": "heatlas intervene",
    },
    "sufficiency": {
        "definition": "sufficiency/1", "formula": "confidence gained by other classes' images that are given the region - that gained with a control region",
        "unit": "probability", "range": [-1.0, 1.0], "better": None, "baseline": "control regions", "source": "heatlas intervene",
    },
    "confirmed": {
        "definition": "confirmed/1", "formula": "1 where the region decides for the row's class beyond both nulls and in this row, else 0", "unit": "0 or 1",
        "range": [0.0, 1.0], "better": None, "baseline": "control regions and other classes' images", "source": "heatlas intervene",
    },
}  # fmt: skip
"""What the columns mean that an intervention adds to the store."""


@dataclass(frozen=True)
class Intervention:
    """What was measured, and where it was written."""

    groups: pa.Table
    """One row per group, confirmed ones first; as `STORE/interventions/groups.parquet` has them."""
    uri: str
    columns: str
    """Folder of the columns `necessity`, `sufficiency` and `confirmed`, relative to the store."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Why a group was not measured, by its name."""

    def text(self) -> str:
        """One sentence per group."""
        lines = list(self.groups["text"].to_pylist())
        lines += [f"{name}: not measured, {why}" for name, why in self.skipped.items()]
        return "\n".join([*lines, f"interventions: {self.uri}; columns necessity, sufficiency, confirmed"])


def intervene_store(
    out: str | os.PathLike[str] | StoreReader,
    region: str,
    *,
    classes: Sequence[str] | None = None,
    images: int = 64,
    receivers: int = 8,
    controls: int = 8,
    fill: str | RegionFill = "surround",
    method: str | None = None,
    batch_size: int = 64,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Intervention:
    """Measure whether a store's model needs a region, and whether the region is enough; write what comes out beside the store.

    Columns `necessity`, `sufficiency` and `confirmed` of an earlier call are replaced. Loads the run's model, which runs its code.

    Args:
        out: Directory or URI of a run's store, or the store opened.
        region: A place (`lower_left`, `border`, ...), a box `x0,y0,x1,y1` in shares of the network's input, `clusters` (those of `heatlas cluster`) or
            `cluster:CLASS:NUMBER`, `masks` (what was painted as a shortcut), or `cues` (those of `heatlas curate --probe`).
        classes: Names of classes; None for all.
        images: Most rows measured of each group, at least 5: an even sample.
        receivers: Images of other classes that each region is pasted into, at least 1.
        controls: Control regions per image, at least 1.
        fill: What takes a region's place: a name of `FILL_TEXTS`, `package.module:callable`, or a function of images and regions.
        method: Whose rows; None for the method with the most.
        batch_size: Inputs per forward.
        resamples: Of the bootstrap.
        seed: Of samples, control regions and resamples.

    Raises:
        UsageError: For an unknown region, class, method or fill, or values out of range.
        RunMismatchError: If the model has other weights now.
        StorageError: If the store cannot be read or written.
    """
    check_bootstrap(resamples, seed)
    for name, value, least in (
        ("images", images, FEWEST_IMAGES),
        ("receivers", receivers, 1),
        ("controls", controls, 1),
        ("batch_size", batch_size, 1),
    ):
        if value < least:
            raise UsageError(f"{name} must be at least {least}, got {value}")
    chosen_fill = load_fill(fill) if isinstance(fill, str) else fill
    atlas = out if isinstance(out, StoreReader) else open_store(out)
    name = chosen_method(atlas, method)
    wanted = None if classes is None else [class_index(atlas, text) for text in classes]
    rows = explained_rows(atlas, name)
    model = load_stored_model(atlas)
    groups = row_groups(atlas, model, region, rows, current_decisions(atlas.uri), wanted)
    plan = InterventionPlan(images=images, receivers=receivers, controls=controls, fill=chosen_fill, seed=seed)
    bench = ImageBench(
        model,
        intervention_scorer(model.module, CONFIDENCES[model.confidence], batch_size=batch_size),
        atlas,
        name,
        rows,
        plan,
    )
    measured, skipped = [], {}
    for group in groups:
        effects = bench.measure(group)
        if effects is None:
            skipped[group.name] = (
                f"fewer than {FEWEST_IMAGES} images with a region of at most {100 * WHOLE_SHARE:.0f} % of the image, or of the class without "
                "the cue, or of other classes, can be read"
            )
        else:
            measured.append(effects)
            say(f"{group.name}: {counted(len(effects.rows), 'image')} measured")
    if not measured:
        why = "; ".join(f"{group}: {text}" for group, text in list(skipped.items())[:3])
        raise UsageError(f"nothing to measure for the region {region}{f' ({why})' if why else ' in these classes'}")
    verdicts = judge_groups(measured, resamples=resamples, seed=seed)
    verdicts.sort(
        key=lambda verdict: (
            not verdict.confirmed,
            -max(verdict.necessity.beyond, verdict.sufficiency.beyond),
            verdict.effects.group.name,
        )
    )
    records = [group_record(verdict, atlas.class_names) for verdict in verdicts]
    facts = {"region": region, "images": images, "receivers": receivers, "controls": controls, "seed": seed, "method": name, "model": model.digest,
             "fill": fill if isinstance(fill, str) else getattr(fill, "__qualname__", repr(fill)), "least_effect": LEAST_EFFECT}  # fmt: skip
    evaluation = write_values(atlas, row_values(verdicts, name), COLUMN_FACTS, facts)
    uri = write_groups(atlas.uri, records, {**facts, "skipped": skipped})
    return Intervention(pa.Table.from_pylist(records, schema=SCHEMA), uri, evaluation.folder, skipped)


def row_values(verdicts: Sequence[GroupVerdict], method: str) -> dict[Key, dict[str, float | None]]:
    """The columns of every measured row. A cue that is no region has its sufficiency in its class only."""
    values: dict[Key, dict[str, float | None]] = {}
    for verdict in verdicts:
        effects = verdict.effects
        necessity = effects.removals.necessity
        sufficiency = effects.rises - effects.control_rises
        for place, row in enumerate(effects.rows):
            own = float(sufficiency[place]) if effects.per_donor else None
            decides = (verdict.necessity.counts and necessity[place] >= LEAST_EFFECT) or (
                verdict.sufficiency.counts and (own is None or own >= LEAST_EFFECT)
            )
            values[row.id, None, row.target, method] = {
                "necessity": _number(float(necessity[place])),
                "sufficiency": None if own is None else _number(own),
                "confirmed": float(decides),
            }
    return values


def load_fill(text: str) -> RegionFill:
    """The fill of that name, or the callable `package.module:name`.

    Raises:
        UsageError: For a name that is neither.
    """
    if text in FILL_TEXTS:
        return cast(FillName, text)
    module, colon, name = text.partition(":")
    if not colon or not module or not name:
        raise UsageError(
            f"there is no fill {text!r}{did_you_mean(text, FILL_TEXTS)}; choose {', '.join(FILL_TEXTS)}, or give package.module:callable"
        )
    fill = module_attribute(import_user_module(module), name, module)
    if not callable(fill):
        raise UsageError(f"--fill {text}: {name} is not callable; it must be a function of images and regions")
    return cast(RegionFill, fill)


def class_index(atlas: StoreReader, text: str) -> int:
    """The class of that name or number.

    Raises:
        UsageError: If there is none.
    """
    if text in atlas.class_names:
        return atlas.class_names.index(text)
    if text.isdecimal() and (not atlas.class_names or int(text) < len(atlas.class_names)):
        return int(text)
    known = ", ".join(atlas.class_names[:20]) or "numbers"
    raise UsageError(f"there is no class {text!r}{did_you_mean(text, atlas.class_names)}; the classes are {known}")


def intervention_json(intervention: Intervention) -> str:
    return json.dumps(
        {
            "groups": intervention.groups.to_pylist(),
            "skipped": intervention.skipped,
            "uri": intervention.uri,
            "columns": intervention.columns,
        },
        indent=2,
    )


def _number(value: float) -> float | None:
    return value if value == value else None
