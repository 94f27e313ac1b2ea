"""Load a model, or the message of the refusal."""

from __future__ import annotations

import pytest
from heatlas.errors import ModelError
from heatlas.workers.models.load import LoadedModel, ModelSpec, load_model


def load(spec: str, **overrides: object) -> LoadedModel:
    return load_model(ModelSpec(spec=spec, **overrides))


def refusal(spec: str, **overrides) -> str:
    with pytest.raises(ModelError) as caught:
        load(spec, **overrides)
    return str(caught.value)
