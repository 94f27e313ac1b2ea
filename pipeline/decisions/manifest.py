"""Write the manifest overlay: the run's data set with its labels replaced, rows dropped and mask columns added."""

# pyarrow.compute makes its functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import hashlib
import io
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from PIL import Image

from ...errors import DataError, UsageError
from ..run_samples import chosen_samples
from ..settings.load import load_settings
from ..shards import EXTRA
from ..sources.listing.detection import item_source
from ..storage.atomic_write import put
from ..storage.location import child, locate
from ..stored_settings import remedy_for_relative_data, settings_of_run
from ..text import counted
from .decision import Decision
from .record import current_decisions
from .rle import decode_mask

if TYPE_CHECKING:
    from ..store.reader import StoreReader

FORMATS = (".csv", ".jsonl", ".parquet")
OWN = ("decision", "label_original", "shortcut_mask", "core_mask")
"""Columns that the overlay adds."""


@dataclass(frozen=True)
class ManifestOverlay:
    """A manifest that was written, and how it differs from the data set."""

    uri: str
    rows: int
    relabelled: int
    dropped: int
    masks: int
    left_out: int
    """Decisions that a manifest of whole images cannot hold: about single objects, or images no longer listed."""


def write_manifest(atlas: StoreReader, to: str) -> ManifestOverlay:
    """Write the run's data set as a manifest in which the current decisions hold; the data set itself is not changed.

    Columns: `id, uri, label, boxes, mask`, the data set's own, and `OWN`: the decision about the label, the label before it where
    it was replaced, and PNGs (in a folder beside the manifest, in pixels of the upright image) of the regions that were painted.

    Args:
        atlas: The store; its run's `--data` must still be readable.
        to: Path or URI ending in .csv, .jsonl or .parquet; `heatlas explain --data` reads it.

    Raises:
        UsageError: For another ending, a place in the store, or data that comes from Python code.
        DataError: If the data set cannot be listed.
        StorageError: If the decisions cannot be read or the manifest cannot be written.
    """
    ending = os.path.splitext(to)[1].lower()
    if ending not in FORMATS:
        raise UsageError(f"cannot tell the format of the manifest {to!r}; let it end in {', '.join(FORMATS)}")
    _refuse_inside(atlas.uri, to)
    settings = load_settings({**settings_of_run(atlas.run), "out": atlas.uri})
    if item_source(settings.data) is not None:
        raise UsageError(f"the run's data {settings.data} are items of Python code, which a manifest cannot name; use "
                         "`heatlas.open(STORE).decisions()` in that code")  # fmt: skip
    try:
        listing = chosen_samples(settings, atlas.run["fingerprint"].get("data_root")).listing
    except DataError as error:
        raise DataError(f"{error}{remedy_for_relative_data(atlas.run)}") from error
    current, listed = current_decisions(atlas.uri).current, set(listing["id"].to_pylist())
    by_id: dict[str, dict[str, Decision]] = defaultdict(dict)
    for decision in current:
        if decision.object_id is None and decision.id in listed:
            by_id[decision.id][decision.group] = decision
    masks = _write_masks(to, [decision for groups in by_id.values() for decision in groups.values()])
    table = overlaid(listing, by_id, masks)
    put(to, _bytes(table, ending))
    labels = [groups["label"] for groups in by_id.values() if "label" in groups]
    kept = sum(map(len, by_id.values()))
    return ManifestOverlay(
        to, len(table), sum(decision.kind == "relabel" for decision in labels),
        sum(decision.kind == "drop" for decision in labels), len(masks),
        len(current) - kept,
    )  # fmt: skip


def overlaid(
    listing: pa.Table, by_id: Mapping[str, Mapping[str, Decision]], masks: Mapping[tuple[str, str], str]
) -> pa.Table:
    """A listing as a manifest in which decisions hold.

    Args:
        listing: As the sources give it.
        by_id: Decisions by id and kind-group.
        masks: Path of the painted mask by id and kind-group.
    """
    ids = listing["id"].to_pylist()
    decided = [by_id.get(identity, {}).get("label") for identity in ids]
    kept = [place for place, decision in enumerate(decided) if decision is None or decision.kind != "drop"]
    labels = listing["label"].to_pylist()
    new = [decision.label_name if decision and decision.kind == "relabel" else label
           for decision, label in zip(decided, labels, strict=True)]  # fmt: skip
    before = [label if decision and decision.kind == "relabel" else None
              for decision, label in zip(decided, labels, strict=True)]  # fmt: skip
    columns: dict[str, Any] = {"id": listing["id"], "uri": listing["uri"], "label": pa.array(new, pa.string())}
    columns |= {"boxes": listing["boxes"], "mask": listing["mask_uri"]}
    for name in listing.column_names:
        own = name.removeprefix(EXTRA)
        if name.startswith(EXTRA) and own not in columns and own not in OWN:
            columns[own] = listing[name]
    columns["decision"] = pa.array([decision.kind if decision else None for decision in decided], pa.string())
    columns["label_original"] = pa.array(before, pa.string())
    for group in ("shortcut", "core"):
        columns[f"{group}_mask"] = pa.array([masks.get((identity, group)) for identity in ids], pa.string())
    empty = [name for name in ("boxes", "mask") if columns[name].null_count == len(listing)]
    return pa.table({name: column for name, column in columns.items() if name not in empty}).take(pa.array(kept, pa.int64()))  # fmt: skip


def manifest_text(overlay: ManifestOverlay) -> str:
    """What was written, as one line."""
    left = f"; {counted(overlay.left_out, 'decision')} about objects or images no longer listed left out" if overlay.left_out else ""  # fmt: skip
    return (
        f"manifest: {overlay.uri} ({counted(overlay.rows, 'row')}; {overlay.relabelled:,} relabelled, {overlay.dropped:,} dropped, "
        f"{counted(overlay.masks, 'mask')}{left})"
    )


def _write_masks(to: str, decisions: Iterable[Decision]) -> dict[tuple[str, str], str]:
    folder, _, name = to.replace(os.sep, "/").rpartition("/")
    masks = {}
    for decision in decisions:
        if decision.mask is None:
            continue
        file = f"{os.path.splitext(name)[0]}_masks/{hashlib.sha256(decision.id.encode()).hexdigest()[:20]}-{decision.group}.png"  # fmt: skip
        buffer = io.BytesIO()
        Image.fromarray(decode_mask(decision.mask).astype(np.uint8) * 255).save(buffer, "PNG", compress_level=3)
        put(child(folder, file) if folder else file, buffer.getvalue())
        masks[decision.id, decision.group] = file
    return masks


def _refuse_inside(out: str, to: str) -> None:
    (fs, run), (to_fs, path) = locate(out), locate(to)
    if fs.to_dict() == to_fs.to_dict() and path.startswith(run.rstrip("/") + "/"):
        raise UsageError(f"the manifest {to} lies in the store {out}; choose another place")


def _bytes(table: pa.Table, ending: str) -> bytes:
    buffer = io.BytesIO()
    if ending == ".parquet":
        pq.write_table(table, buffer, compression="zstd")
        return buffer.getvalue()
    if ending == ".jsonl":
        rows = (json.dumps(_without_nulls(row), ensure_ascii=False) for row in table.to_pylist())
        return "".join(f"{row}\n" for row in rows).encode()
    if "boxes" in table.column_names:
        texts = [None if boxes is None else json.dumps(boxes) for boxes in table["boxes"].to_pylist()]
        table = table.set_column(table.column_names.index("boxes"), "boxes", pa.array(texts, pa.string()))
    pyarrow.csv.write_csv(table, buffer)
    return buffer.getvalue()


def _without_nulls(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}
