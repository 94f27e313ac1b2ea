"""The typed keyword arguments name what the settings name."""

from __future__ import annotations

import inspect

import heatlas
from heatlas.engine import explainer_by_name
from heatlas.engine.methods.protocol import METHODS
from heatlas.engine.methods.registry import built_in
from heatlas.pipeline.settings.methods import METHOD_GROUPS
from heatlas.pipeline.settings.options import RunOptions
from heatlas.pipeline.settings.run import Settings

SOURCE = inspect.getsource(explainer_by_name)
ARGUMENTS = {"model", "data", "out", "preprocess"}
"""Of `explain_dataset` itself."""


def test_every_setting_is_a_typed_option_and_no_other_name_is():
    methods_of_other_packages = {name for name in METHOD_GROUPS if name not in RunOptions.__annotations__}
    assert set(RunOptions.__annotations__) == set(Settings.model_fields) - ARGUMENTS - methods_of_other_packages
    assert {"sise", "rise", "grad_cam"} <= set(RunOptions.__annotations__)


def test_every_method_of_heatlas_is_a_public_class_and_a_typed_name():
    classes = {name: METHODS[name].explainer.__name__ for name in built_in()}
    assert set(classes.values()) <= set(heatlas.__all__)
    for name, public in classes.items():
        assert getattr(heatlas, public).declared.name == name
        assert f'def explainer(name: Literal["{name}"], model: nn.Module, **options: Any) -> {public}: ...' in SOURCE
        assert name in RunOptions.__annotations__ or not has_settings(name)


def has_settings(name: str) -> bool:
    return name in METHOD_GROUPS
