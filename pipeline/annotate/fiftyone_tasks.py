"""Write suggestions as a folder that FiftyOne imports, without FiftyOne, and read its export back (`FiftyOneDataset`)."""

from __future__ import annotations

import base64
import io
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from ...errors import SampleError, UsageError
from ..decisions.decision_file import read_mask_image
from ..decisions.rle import LARGEST_PIXELS, Rle, decode_mask, encode_mask
from ..export.fiftyone_dataset import suffix_of
from ..sources.reading.reader import FsspecReader
from .suggestion import DECISIONS, RELABEL, Answer, Suggestion, united

MASKS = ("shortcut", "core")
"""Fields with a `Segmentation`."""
SAMPLES = "samples.json"


def write_fiftyone_tasks(suggestions: Sequence[Suggestion], folder: Path, reader: FsspecReader) -> int:
    """Write `metadata.json`, `samples.json`, `data/` (the images) and `fields/` (the masks as PNGs, 255 where set).

    A sample has `heatlas_id`, `reason`, `label`, `proposal` (what is suggested), `suggestion_ids`, and `shortcut` and `core` with their masks. People edit the masks,
    set `decision` (a `Classification` with a decision or `relabel:CLASS` as its label), or tag the sample with a decision.

    Returns:
        Images that could not be read and are left out.
    """
    by_image: dict[str, list[Suggestion]] = {}
    for it in suggestions:
        by_image.setdefault(it.id, []).append(it)
    samples, unread = [], 0
    (folder / "data").mkdir()
    for number, (identity, group) in enumerate(by_image.items()):
        try:
            data = reader.read(group[0].uri)
        except SampleError:
            unread += 1
            continue
        name = f"{number:06d}{suffix_of(group[0].uri)}"
        (folder / "data" / name).write_bytes(data)
        sample: dict[str, Any] = {
            "filepath": f"data/{name}", "tags": [], "metadata": None, "heatlas_id": identity, "reason": " ".join(dict.fromkeys(it.reason for it in group)),
            "suggestion_ids": [it.suggestion_id for it in group],
            "proposal": {"_cls": "Classifications", "classifications": [{"_cls": "Classification", "tags": [], "label": it.proposal, "confidence": it.priority}
                                                                         for it in group]},
        }  # fmt: skip
        if group[0].label is not None:
            sample["ground_truth"] = {"_cls": "Classification", "tags": [], "label": group[0].label}
        for field in MASKS:
            mask = united(it.mask for it in group if it.mask is not None and it.proposal == field)
            if mask is not None:
                place = f"fields/{field}/{number:06d}.png"
                (folder / place).parent.mkdir(parents=True, exist_ok=True)
                (folder / place).write_bytes(_png(mask))
                sample[field] = {"_cls": "Segmentation", "tags": [], "mask_path": place}
        samples.append(sample)
    (folder / SAMPLES).write_text(json.dumps({"samples": samples}, ensure_ascii=False), encoding="utf-8")
    (folder / "metadata.json").write_text(
        json.dumps({"name": "heatlas-review", "media_type": "image", "info": {}}), encoding="utf-8"
    )
    return unread


def read_fiftyone_answers(folder: str) -> list[Answer]:
    """Decisions (`decision`, tags) and masks (`shortcut`, `core`) of an export.

    Raises:
        UsageError: For a folder of another form, or a mask that cannot be read.
    """
    place = os.path.join(folder, SAMPLES)
    try:
        with open(place, encoding="utf-8") as file:
            samples = json.load(file)["samples"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{folder} is no FiftyOneDataset with a {SAMPLES}: {error!r}; export with dataset_type=fo.types.FiftyOneDataset"
        ) from None
    answers = []
    for sample in samples:
        identity = sample.get("heatlas_id")
        if identity is None:
            raise UsageError(f"a sample of {place} has no heatlas_id; keep that field")
        decision = sample.get("decision") or {}
        for called in dict.fromkeys([decision.get("label"), *(sample.get("tags") or ())]):
            if called in DECISIONS or str(called).startswith(RELABEL):
                answers.append(Answer(str(identity), str(called), by_person=True))
        for field in MASKS:
            if sample.get(field):
                answers.append(Answer(str(identity), field, _mask(sample[field], place)))
    by_person = {(answer.id, answer.called) for answer in answers if answer.by_person}
    masked = {(answer.id, answer.called): answer.mask for answer in answers if answer.mask is not None}
    merged = [
        Answer(it.id, it.called, masked.get((it.id, it.called)), by_person=(it.id, it.called) in by_person)
        for it in answers
    ]
    return list({(it.id, it.called): it for it in merged}.values())


def _mask(field: Mapping[str, Any], place: str) -> Rle:
    """A mask by its path, or as FiftyOne serialises arrays: a zipped .npy."""
    if field.get("mask_path"):
        path = str(field["mask_path"])
        folder = os.path.dirname(place)
        if os.path.isabs(path):  # FiftyOne writes absolute paths of what it exported
            path = os.path.relpath(path, folder)
        return encode_mask(read_mask_image(path, place))
    stored = field.get("mask")
    text = stored.get("$binary", {}).get("base64") if isinstance(stored, Mapping) else None
    try:
        packed = zlib.decompressobj()
        data = packed.decompress(base64.b64decode(str(text), validate=True), 8 * LARGEST_PIXELS)
        pixels = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, zlib.error, EOFError) as error:
        raise UsageError(f"a mask in {place} is neither a path nor a zipped array: {error}") from None
    if pixels.ndim != 2:
        raise UsageError(f"a mask in {place} has {pixels.ndim} dimensions, it must have 2")
    return encode_mask(cast(Any, pixels != 0))


def _png(mask: Rle) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(decode_mask(mask).astype(np.uint8) * 255).save(buffer, "PNG")
    return buffer.getvalue()
