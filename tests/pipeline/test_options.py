"""The typed keyword arguments name what the settings name."""

from __future__ import annotations

import inspect

import heatlas
import pytest
from heatlas.engine import explainer_by_name
from heatlas.engine.methods.protocol import METHODS
from heatlas.engine.methods.registry import built_in
from heatlas.pipeline.cli.imported import SETTINGS as IMPORT_SETTINGS
from heatlas.pipeline.cluster.cluster import cluster_maps
from heatlas.pipeline.curate.queue import run_recipes
from heatlas.pipeline.evaluate.settings import EXECUTION
from heatlas.pipeline.export.export import export_store
from heatlas.pipeline.report.build import write_report
from heatlas.pipeline.settings.methods import METHOD_GROUPS
from heatlas.pipeline.settings.options import ExecutionOptions, ImportOptions, RunOptions
from heatlas.pipeline.settings.run import Settings
from heatlas.pipeline.statistics.paired_tests import compare_scores
from heatlas.pipeline.view.serve import start_view

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


def test_other_commands_take_the_settings_that_the_command_line_takes():
    assert set(ExecutionOptions.__annotations__) == set(EXECUTION)
    groups = {name.partition(".")[0] for name in IMPORT_SETTINGS}
    assert set(ImportOptions.__annotations__) == groups - ARGUMENTS


@pytest.mark.parametrize(("method", "function"), [
    (heatlas.Atlas.compare, compare_scores), (heatlas.Atlas.curate, run_recipes), (heatlas.Atlas.cluster, cluster_maps),
    (heatlas.Atlas.view, start_view), (heatlas.Atlas.report, write_report), (heatlas.Atlas.export, export_store),
])  # fmt: skip
def test_an_atlas_takes_what_the_function_behind_it_takes(method, function):
    own, behind = (
        {parameter.name: parameter.default for parameter in inspect.signature(each).parameters.values() if parameter.kind is parameter.KEYWORD_ONLY}
        for each in (method, function)
    )  # fmt: skip
    assert own == behind
