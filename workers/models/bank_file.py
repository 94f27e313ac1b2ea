"""Feature banks as files: safetensors with `features` (float32, of length 1) and `labels` (int64), and in the metadata whose they are.

Metadata, all texts: `kind`, `model_digest` (of the model without a bank), `num_classes`, `heatlas_version`, and where classes have
names `class_names` (a JSON list). Nothing in it is run.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import save

from ...engine.features.feature_bank import FeatureBank
from ...errors import ModelError, SettingsError
from ..protocols import SampleReader
from .weights import read_file, safetensors_of

KIND = "heatlas feature bank"
SUFFIX = ".safetensors"
_REMEDY = "`heatlas bank` makes one from labelled images"
_TENSORS = {"features": torch.float32, "labels": torch.int64}
_SHORT = 12
"""Digits of a digest that a message shows."""
_LONGEST_NAMES = 64 << 20
"""Characters of JSON that are read: 64 for each of as many classes as there may be."""
_MOST_DIGITS = 10
_SHOWN = 40
"""Characters of a text that a message shows."""


@dataclass(frozen=True, eq=False)
class StoredBank:
    """A bank and whose it is."""

    bank: FeatureBank
    model_digest: str
    """Sha256 (hex) of weights and preprocessing of the model that made it."""
    class_names: tuple[str, ...] | None = None
    """One per class, None where nobody says."""

    def digest(self) -> str:
        """Sha256 (hex) of what decides classes and what they are called: features, labels, and the names, or how many they are."""
        facts = [self.bank.num_classes, self.bank.features.shape, self.class_names]
        digest = hashlib.sha256(json.dumps(facts).encode())
        for tensor in (self.bank.features, self.bank.labels):
            digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


def bank_bytes(stored: StoredBank, version: str) -> bytes:
    """The file of a bank; `version` is heatlas's."""
    facts = {
        "kind": KIND,
        "model_digest": stored.model_digest,
        "num_classes": str(stored.bank.num_classes),
        "heatlas_version": version,
    }
    if stored.class_names is not None:
        facts["class_names"] = json.dumps(stored.class_names, ensure_ascii=False)
    tensors = {name: getattr(stored.bank, name).to(kind).contiguous() for name, kind in _TENSORS.items()}
    return save(tensors, facts)


def read_bank(uri: str, reader: SampleReader | None = None) -> StoredBank:
    """The bank in a file.

    Args:
        uri: Local path or `file://` URI; anything else is read through `reader`.
        reader: Reads remote URIs.

    Raises:
        ModelError: When it is missing, damaged, or no bank.
    """
    data = read_file(uri, reader, "feature bank", f"check the path; {_REMEDY}")
    tensors = safetensors_of(uri, data)
    facts = _facts(data)
    for name, kind in _TENSORS.items():
        if (tensor := tensors.get(name)) is None or facts.get("kind") != KIND:
            held = ", ".join(sorted(tensors)[:5]) or "nothing"
            raise ModelError(f"{uri} is a safetensors file but not a feature bank (it holds {held}); {_REMEDY}")
        if tensor.dtype != kind:
            raise ModelError(f"the feature bank {uri} has {name} of {tensor.dtype}, they must be {kind}; {_REMEDY}")
    names = _class_names(uri, facts)
    try:
        count = len(names) if names is not None else _count(uri, facts)
        bank = FeatureBank(tensors["features"], tensors["labels"], count)
    except SettingsError as error:
        raise ModelError(f"{uri} is damaged or was made by hand: {error}; {_REMEDY}") from error
    if bank.num_classes < 2:
        raise ModelError(f"the feature bank {uri} has 1 class, at least 2 are needed; {_REMEDY}")
    return StoredBank(bank, facts.get("model_digest", ""), names)


def bank_for(uri: str, width: int, digest: str, model: str, reader: SampleReader | None = None) -> StoredBank:
    """The bank in a file, if it was made by this model.

    Args:
        uri: As for `read_bank`.
        width: Of the model's features.
        digest: Of the model.
        model: Its name, for messages.
        reader: Reads remote URIs.

    Raises:
        ModelError: When it is no bank, or another model's.
    """
    stored = read_bank(uri, reader)
    own = stored.bank.features.shape[1]
    if own != width:
        raise ModelError(
            f"the feature bank {uri} has features of width {own}, {model} gives {width}: it was made by another model; name that "
            "one, or make a bank with this one (`heatlas bank`)"
        )
    if stored.model_digest != digest:
        by = stored.model_digest[:_SHORT] or "one that it does not name"
        raise ModelError(
            f"the feature bank {uri} was made by another model or with other preprocessing (digest {by}, {model} has "
            f"{digest[:_SHORT]}); give the weights and --preprocess settings it was made with, or make it again (`heatlas bank`)"
        )
    return stored


def _facts(data: bytes) -> dict[str, Any]:
    """The metadata of a file that safetensors has read already, so that its header is JSON."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]).get("__metadata__") or {}


def _class_names(uri: str, facts: dict[str, Any]) -> tuple[str, ...] | None:
    if "class_names" not in facts:
        return None
    text, names = facts["class_names"], None
    if len(text) <= _LONGEST_NAMES:
        try:
            names = json.loads(text)
        except (ValueError, RecursionError):
            names = None
    if not isinstance(names, list) or not all(isinstance(name, str) and is_text(name) for name in names):
        raise ModelError(
            f"the class_names of the feature bank {uri} must be a JSON list of texts that UTF-8 can write, of at most "
            f"{_LONGEST_NAMES >> 20} Mi characters in all; {_REMEDY}"
        )
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise ModelError(
            f"the class_names of the feature bank {uri} must differ, got {twice[0][:_SHOWN]!r} more than once; {_REMEDY}"
        )
    return tuple(names)


def is_text(name: str) -> bool:
    """Whether it can be written: a surrogate without its other half cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _count(uri: str, facts: dict[str, Any]) -> int | None:
    text = facts.get("num_classes")
    if text is None:
        return None
    if not text.isdecimal() or len(text) > _MOST_DIGITS:
        raise ModelError(
            f"num_classes of the feature bank {uri} must be a whole number of at most {_MOST_DIGITS} digits, got "
            f"{text[:_SHOWN]!r}; {_REMEDY}"
        )
    return int(text)
