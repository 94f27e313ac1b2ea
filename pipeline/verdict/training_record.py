"""What `heatlas fix` writes beside the weights of a repair: the model, the seeds, and every image that was trained on."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import StorageError
from ...workers.models.load import ModelSpec
from ..storage.atomic_write import put
from ..storage.json_object import read_object
from ..storage.location import bytes_of, child, locate

RECORD, IMAGES = "fix.json", "training_images.parquet"


@dataclass(frozen=True)
class TrainingRecord:
    """One repair."""

    recipe: str
    model: Mapping[str, Any]
    """Arguments of `ModelSpec`: the architecture into which the weights fit."""
    store: str
    split: str
    """Digest of the locked test split that was kept out."""
    created: str
    files: tuple[str, ...]
    """Weights beside the record, one file per seed."""
    seeds: tuple[int, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    """Sha256 (hex) of the files that were trained on."""


def write_record(folder: str, record: TrainingRecord) -> None:
    """Write the record last, so that a folder with one is complete.

    Raises:
        StorageError: If it cannot be written.
    """
    buffer = io.BytesIO()
    table = pa.table({"id": pa.array(record.ids, pa.string()), "digest": pa.array(record.digests, pa.string())})
    pq.write_table(table, buffer, compression="zstd")
    put(child(folder, IMAGES), buffer.getvalue())
    facts = {name: value for name, value in asdict(record).items() if name not in ("ids", "digests")}
    put(child(folder, RECORD), json.dumps(facts, indent=2).encode())


def read_record(folder: str) -> TrainingRecord | None:
    """The record in a folder; None where there is none.

    Raises:
        StorageError: If it is damaged.
    """
    facts = read_object(child(folder, RECORD), "repair anew with heatlas fix")
    if facts is None:
        return None
    try:
        fs, path = locate(child(folder, IMAGES))
        table = pq.read_table(pa.BufferReader(bytes_of(fs, path)))
        files = tuple(_plain_name(name) for name in facts.pop("files"))
        notes, seeds = tuple(facts.pop("notes")), tuple(facts.pop("seeds"))
        ids, digests = (tuple(table[name].to_pylist()) for name in ("id", "digest"))
        spec: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in facts["model"].items()
        }
        ModelSpec(**spec)  # a field that it does not have is a TypeError
        facts["model"] = spec
        return TrainingRecord(**facts, files=files, notes=notes, seeds=seeds, ids=ids, digests=digests)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise StorageError(
            f"cannot read the record of the repair {folder}: {error}; repair anew with heatlas fix"
        ) from error


def _plain_name(name: Any) -> str:
    if not isinstance(name, str) or "/" in name or "\\" in name or name in ("", ".", ".."):
        raise ValueError(f"{name!r} is no file beside it")
    return name


def seed_file(seed: int) -> str:
    """Name of the weights of a seed."""
    return f"seed-{seed}.safetensors"
