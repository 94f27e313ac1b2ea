"""What a model file cannot say of itself, in a JSON file beside it: `model.pt` has `model.pt.json`.

    {"preprocess": {"size": [224, 224], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}, "class_names": ["ant", "bee"]}

Both keys are optional; `preprocess` holds any of the preprocess settings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ...errors import ModelError, SettingsError
from ..images.preprocess import Preprocess, with_overrides
from .built_model import UNSTATED

KEYS = ("preprocess", "class_names")


def sidecar_of(path: str) -> str:
    return f"{path}.json"


def read_sidecar(path: str, content: bytes | None) -> tuple[Preprocess, tuple[str, ...] | None, str]:
    """Preprocessing, class names and where they come from.

    Args:
        path: Of the model file.
        content: Of its sidecar; None where there is none.

    Raises:
        ModelError: When it is not what is described above.
    """
    if content is None:
        return Preprocess(), None, UNSTATED
    name = sidecar_of(path)
    try:
        said = json.loads(content)
    except ValueError as error:
        raise ModelError(f"{name} is not JSON: {error}") from error
    if not isinstance(said, dict) or set(said) - set(KEYS):
        raise ModelError(f"{name} must be an object with {' and '.join(KEYS)} and nothing else")
    return _preprocess(name, said.get("preprocess")), _class_names(name, said.get("class_names")), f"sidecar {name}"


def _preprocess(name: str, said: Any) -> Preprocess:
    if said is None:
        return Preprocess()
    if not isinstance(said, Mapping):
        raise ModelError(f"preprocess in {name} must be an object with preprocess settings such as size and mean")
    try:
        return with_overrides(Preprocess(), said)
    except SettingsError as error:
        raise ModelError(f"{name}: {error}") from error


def _class_names(name: str, said: Any) -> tuple[str, ...] | None:
    if said is None:
        return None
    if not isinstance(said, list) or not all(isinstance(text, str) for text in said):
        raise ModelError(f"class_names in {name} must be a list of texts, one per class")
    return tuple(said)
