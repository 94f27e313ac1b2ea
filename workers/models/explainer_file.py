"""Trained explainers as files: safetensors with a network's weights, and in the metadata what it explains and how it was trained.

Metadata, all texts: `kind`, `method`, `model_digest` (weights and preprocessing of the explained model), `image_digest` (of the listing
of its training images), `settings`, `curve`, `facts` (JSON objects and a list), `heatlas_version`. Nothing in it is run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from safetensors.torch import save
from torch import Tensor

from ...engine.training.attention_head import AttentionHead
from ...engine.training.auxiliary import Auxiliary
from ...engine.training.trained_head import Activation, TrainedHead
from ...engine.training.trained_parts import TrainedParts
from ...errors import ModelError, SettingsError
from ..protocols import SampleReader
from .weights import read_file, safetensors_of

KIND = "heatlas explainer"
SUFFIX = ".safetensors"
_REMEDY = "`heatlas train` makes one"
_SHORT = 12
"""Digits of a digest that a message shows."""
PARTS = "explainer_network"
"""The method whose file holds an explainer network; others hold attention heads."""
_OWN_FACTS = ("parts", "norms", "auxiliary")
"""Facts that decide a map and that not every method has."""
_LONGEST_JSON = 16 << 20
"""Characters of JSON that are read."""


@dataclass(frozen=True, eq=False)
class StoredExplainer:
    """A trained explainer and whose it is."""

    method: str
    tensors: Mapping[str, Tensor]
    model_digest: str
    """Sha256 (hex) of weights and preprocessing of the model that it explains."""
    image_digest: str
    """Sha256 (hex) of the listing of its training images."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    """`layers`, `training_images`, ...; of heads `channels`, `classes`, `shared_row`, `activation` (of inference), `agreement` and of P-TAME
    `auxiliary`; of explainer networks `parts`, `part_classes`, `norms`, `fidelity`."""
    curve: Sequence[Mapping[str, Any]] = ()
    """One entry an epoch."""
    auxiliary: Auxiliary | None = None
    """P-TAME's auxiliary network, once it is loaded."""

    def digest(self) -> str:
        """Sha256 (hex) of what decides a map."""
        shapes = {name: list(value.shape) for name, value in sorted(self.tensors.items())}
        deciding = {name: self.facts.get(name) for name in ("layers", "activation")}
        deciding |= {name: self.facts[name] for name in _OWN_FACTS if name in self.facts}
        texts = [self.method, self.model_digest, deciding]
        digest = hashlib.sha256(json.dumps([texts, shapes]).encode())
        for _, value in sorted(self.tensors.items()):
            digest.update(value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def trained(self) -> TrainedHead | TrainedParts:
        """The network, as the method uses it.

        Raises:
            ModelError: When the file's tensors are not those that it says.
        """
        try:
            for name, value in self.tensors.items():
                if value.is_floating_point() and not bool(value.isfinite().all()):
                    raise ValueError(f"{name} holds numbers that are not finite")
            if self.method == PARTS:
                return self._parts()
            head = AttentionHead(
                self.facts["channels"], int(self.facts["classes"]), bias="fusion.bias" in self.tensors,
                shared_row=bool(self.facts["shared_row"]),
            )  # fmt: skip
            head.load_state_dict(dict(self.tensors))
            activation = self.facts["activation"]
            if activation not in get_args(Activation):
                raise ValueError(f"unknown activation {activation!r}")
            return TrainedHead(head.eval(), tuple(map(str, self.facts["layers"])), activation, self.auxiliary)
        except (KeyError, TypeError, ValueError, RuntimeError, SettingsError) as error:
            raise ModelError(f"the explainer is damaged or was made by hand: {error}; {_REMEDY}") from error

    def _parts(self) -> TrainedParts:
        [layer] = self.facts["layers"]
        parts, norms = tuple(map(int, self.facts["parts"])), tuple(map(float, self.facts["norms"]))
        if not parts or not norms or len(set(parts)) < len(parts):
            raise ValueError("no parts, or one of them twice")
        return TrainedParts(self.tensors, str(layer), parts, norms)


def explainer_bytes(stored: StoredExplainer, version: str) -> bytes:
    """The file of an explainer; `version` is heatlas's."""
    facts = {
        "kind": KIND, "method": stored.method, "model_digest": stored.model_digest, "image_digest": stored.image_digest,
        "settings": json.dumps(stored.settings), "facts": json.dumps(stored.facts), "curve": json.dumps(list(stored.curve)),
        "heatlas_version": version,
    }  # fmt: skip
    return save({name: value.detach().cpu().contiguous() for name, value in stored.tensors.items()}, facts)


def read_explainer(uri: str, reader: SampleReader | None = None) -> StoredExplainer:
    """The explainer in a file.

    Args:
        uri: Local path or `file://` URI; anything else is read through `reader`.
        reader: Reads remote URIs.

    Raises:
        ModelError: When it is missing, damaged, or no explainer.
    """
    data = read_file(uri, reader, "explainer", f"check the path; {_REMEDY}")
    tensors = safetensors_of(uri, data)
    length = int.from_bytes(data[:8], "little")
    texts = json.loads(data[8 : 8 + length]).get("__metadata__") or {}
    if texts.get("kind") != KIND:
        held = ", ".join(sorted(tensors)[:5]) or "nothing"
        raise ModelError(f"{uri} is a safetensors file but no trained explainer (it holds {held}); {_REMEDY}")
    try:
        parsed = {
            name: json.loads(texts[name])
            for name in ("settings", "facts", "curve")
            if len(texts[name]) <= _LONGEST_JSON
        }
        return StoredExplainer(texts["method"], tensors, texts["model_digest"], texts["image_digest"],
                               dict(parsed["settings"]), dict(parsed["facts"]), list(parsed["curve"]))  # fmt: skip
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ModelError(f"the explainer {uri} is damaged or was made by hand: {error}; {_REMEDY}") from error


def explainer_for(uri: str, digest: str, model: str, reader: SampleReader | None = None) -> StoredExplainer:
    """The explainer in a file, if it was trained for this model.

    Args:
        uri: As for `read_explainer`.
        digest: Of the model.
        model: Its name, for messages.
        reader: Reads remote URIs.

    Raises:
        ModelError: When it is no explainer, or another model's.
    """
    stored = read_explainer(uri, reader)
    if stored.model_digest != digest:
        raise ModelError(
            f"the explainer {uri} was trained for another model or with other preprocessing (digest {stored.model_digest[:_SHORT]}, {model} "
            f"has {digest[:_SHORT]}); give the weights and --preprocess settings it was trained with, or train one (`heatlas train`)"
        )
    stored.trained()
    return stored
