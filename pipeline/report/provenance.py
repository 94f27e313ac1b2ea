"""What was run, on what and by what: facts of `_run.json` and of the files, in words."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ..store.reader import StoreReader
from ..store.success_file import read_success
from ..text import counted, duration
from .rows import ReportRows


@dataclass(frozen=True)
class Provenance:
    """The run, for the page's head and foot."""

    model: str
    data: str
    created: str
    finished: bool
    shards: tuple[int, int]
    """Stored and planned."""
    facts: list[tuple[str, str]]
    settings: str
    """All of them, as JSON."""


def read_provenance(rows: ReportRows) -> Provenance:
    """Collect them; what an older or synthetic run does not say is left out."""
    atlas = rows.atlas
    run, said = atlas.run, atlas.metadata.get("provenance", {})
    settings, fingerprint = run["settings"], run["fingerprint"]
    planned = fingerprint.get("plan", {}).get("shards", len(atlas.parts))
    model = str(settings.get("model") or said.get("model") or "unknown model")
    [work] = atlas.query_rows(
        "SELECT sum(n_forwards)::DOUBLE, sum(seconds), list(DISTINCT device ORDER BY device) FROM atlas"
    )
    forwards, seconds, devices = work
    size = fingerprint.get("preprocess", {}).get("size")
    candidates = [
        ("Model", model),
        ("Model digest", said.get("model_digest") or fingerprint.get("model", {}).get("digest")),
        ("Data", settings.get("data")),
        ("Store", atlas.uri),
        ("Method", f"{rows.method}{_method_settings(fingerprint, rows.method)}"),
        ("Explained class", _target(settings.get("target") or fingerprint.get("target"))),
        ("Block layers", ", ".join(fingerprint.get("model", {}).get("layers", []))),
        ("Network input", f"{size[0]} x {size[1]} pixels, {fingerprint['preprocess'].get('resize')}" if size else None),
        ("Stored map", _map_size(atlas)),
        ("Rows", _rows_text(rows)),
        ("Shards", f"{len(atlas.parts)} of {planned}"),
        ("Work", _work(forwards, seconds)),
        ("Devices", ", ".join(device for device in devices or [] if device)),
        ("Precision, batch", _joined(fingerprint.get("precision"), fingerprint.get("batch_size"))),
        ("Seed", fingerprint.get("seed")),
        ("Listing digest", fingerprint.get("plan", {}).get("listing")),
        ("Started", run.get("created")),
        ("Versions", ", ".join(f"{name} {value}" for name, value in fingerprint.get("versions", {}).items())),
    ]  # fmt: skip
    facts = [(name, str(value)) for name, value in candidates if value not in (None, "")]
    return Provenance(
        model, str(settings.get("data") or ""), str(run.get("created") or ""), read_success(atlas.uri) is not None,
        (len(atlas.parts), planned), facts, json.dumps(settings, indent=2, ensure_ascii=False),
    )  # fmt: skip


def _method_settings(fingerprint: dict[str, Any], method: str) -> str:
    own = fingerprint.get(method)
    texts = [f"{name} = {value}" for name, value in own.items()] if isinstance(own, dict) else []
    if (budget := fingerprint.get("budget")) not in (None, "exact"):
        texts.append(f"budget {budget}")
    return f" ({', '.join(texts)})" if texts else ""


def _target(target: Any) -> str | None:
    known = {"predicted": "the predicted class", "label": "the class that the data set states"}
    return None if target is None else known.get(str(target), str(target))


def _map_size(atlas: StoreReader) -> str | None:
    shape = atlas.metadata.get("map")
    return f"{shape['height']} x {shape['width']}, values from 0 to 1" if shape else None


def _rows_text(rows: ReportRows) -> str:
    others = "".join(f"; {count:,} of {name}, not in this report" for name, count in rows.others.items())
    several = f" for {counted(rows.images, 'image')}" if rows.images != rows.total else ""
    return f"{rows.total:,}{several}{others}"


def _work(forwards: float | None, seconds: float | None) -> str | None:
    if not forwards:
        return None
    return f"{forwards:,.0f} forward passes, {duration(seconds or 0)} of all workers together"


def _joined(*values: Any) -> str:
    return ", ".join(str(value) for value in values if value is not None)
