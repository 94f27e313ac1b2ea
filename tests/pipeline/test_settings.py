"""Settings: precedence, ranges, and the texts that a user sees."""

from __future__ import annotations

import os
import pathlib
from dataclasses import fields

import pytest
import yaml
from heatlas.configs import packaged_configs
from heatlas.errors import SettingsError
from heatlas.pipeline.cli.app import build_app
from heatlas.pipeline.cli.settings_flags import GROUPS, given_settings
from heatlas.pipeline.settings.allowed_values import admits, allowed, choices, metavar
from heatlas.pipeline.settings.load import load_settings
from heatlas.pipeline.settings.run import PreprocessSettings, Settings, describe, leaves
from heatlas.workers.images.preprocess import Preprocess, with_overrides
from heatlas.workers.models.load import ModelSpec
from pydantic import ValidationError

REQUIRED = {"model": "torchvision:resnet18", "data": "images", "out": "out"}


def refusal(flags: dict, config: str | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings({**REQUIRED, **flags}, config)
    return str(caught.value)


def test_flags_win_over_yaml_and_yaml_over_defaults(tmp_path: pathlib.Path):
    config = tmp_path / "my.yaml"
    config.write_text("batch_size: 8\nseed: 5\nsise: {mu: 0.3, layers: [a, b]}\nmetrics: ebpg\n")
    settings = load_settings({**REQUIRED, "seed": "6", "sise.mu": "0.5"}, str(config))
    assert (settings.seed, settings.batch_size, settings.precision) == (6, 8, "auto")
    assert (settings.sise.mu, settings.sise.layers, settings.metrics) == (0.5, ("a", "b"), ("ebpg",))


def test_nested_mappings_mean_the_same_as_dotted_names():
    dotted = load_settings({**REQUIRED, "preprocess.size": 32, "preprocess.mean": [0.5], "limit": None})
    assert dotted == load_settings({**REQUIRED, "preprocess": {"size": [32, 32], "mean": (0.5,)}})
    assert dotted.preprocess.size == (32, 32)


def test_everything_that_preprocess_knows_can_be_set():
    of_models, of_files = {"processor"}, {"levels", "clip_levels", "level_kind", "bands"}
    assert set(PreprocessSettings.model_fields) == {field.name for field in fields(Preprocess)} - of_models - of_files
    settings = load_settings({**REQUIRED, "preprocess.interpolation": "lanczos", "preprocess.channels": "1"})
    spec = ModelSpec(spec="m", **settings.preprocess.model_dump())
    result = with_overrides(Preprocess(mean=(0.5,), std=(0.5,), channels=1), spec.overrides())
    assert (result.interpolation, result.channels) == ("lanczos", 1)


@pytest.mark.parametrize(
    ("written", "meant"), [("fast", "fast"), ("120", 120), (120, 120), ("0.2", 0.2), (0.2, 0.2), ("1.0", 1.0)]
)
def test_a_budget_is_a_name_a_number_or_a_share(written: object, meant: object):
    result = load_settings({**REQUIRED, "budget": written}).budget
    assert (result, type(result)) == (meant, type(meant))


def test_paths_are_accepted_as_text():
    assert load_settings({**REQUIRED, "out": pathlib.Path("a/b")}).out == os.path.join("a", "b")


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ({"sise.mu": "1.5"}, "setting sise.mu = '1.5' is not allowed: it must be a number in [0, 1)"),
        ({"sise.mu": float("nan")}, "setting sise.mu = nan is not allowed: it must be a number in [0, 1)"),
        ({"workers": -1}, "setting workers = -1 is not allowed: it must be 'auto' or a whole number of at least 0"),
        ({"gpus_per_worker": 0}, "setting gpus_per_worker = 0 is not allowed: it must be a number in (0, 1]"),
        (
            {"budget": "fats"},
            "setting budget = 'fats' is not allowed: it must be 'exact' or 'balanced' or 'fast' or a whole number of at least 9 or a number in (0, 1]; did you mean 'fast'?",
        ),
        ({"budget": "1"}, "setting budget = '1' is not allowed: it must be 'exact' or 'balanced' or 'fast' or a whole"),
        ({"budget": 1.5}, "or a whole number of at least 9 or a number in (0, 1]"),
        ({"budget": True}, "setting budget = True is not allowed"),
        ({"limit": True}, "setting limit = True is not allowed: it must be a whole number of at least 1 or none"),
        ({"target": 1.5}, "setting target = 1.5 is not allowed: it must be a whole number of at least 0 or text"),
        ({"confidence": "sigmod"}, "did you mean 'sigmoid'?"),
        (
            {"batchsize": 3},
            "unknown setting 'batchsize'; did you mean 'batch_size'? (`heatlas explain --help` lists all settings)",
        ),
        ({"sise": {"mo": 3}}, "unknown setting 'sise.mo'; did you mean 'sise.mu'?"),
        ({"score": "sigmoid"}, "setting 'score' is called 'confidence' now"),
        ({"floors": 3}, "setting 'floors' is called 'chance_maps' now"),
        ({"store": 3}, "setting 'store' is a group of settings: give store.map, store.map_size, store.map_png"),
        (
            {"preprocess.mean": ["0.5", "0.5"]},
            "setting preprocess.mean has 2 numbers; it needs one per channel: 3 (RGB), 1 (grey), or as many as --preprocess.channels says",
        ),
        (
            {"preprocess.channels": "0"},
            "setting preprocess.channels = '0' is not allowed: it must be a whole number of at least 1",
        ),
        (
            {"preprocess.interpolation": "lanczoz"},
            "it must be 'nearest' or 'bilinear' or 'bicubic' or 'lanczos' or none; did you mean 'lanczos'?",
        ),
        ({"decode.range": "5"}, "'5' is not allowed: it must be dtype or minmax or percentile or LOW,HIGH or none"),
        ({"preprocess.std": 0}, "it must be a list of numbers, each above 0 or none"),
    ],
)
def test_refusals_name_setting_value_range_and_remedy(flags: dict, text: str):
    assert text in refusal(flags)


def test_all_problems_are_told_at_once():
    with pytest.raises(SettingsError) as caught:
        load_settings({"seed": -1})
    assert str(caught.value).splitlines() == [
        "setting 'model' is required: give --model or a line `model: ...` in the --config file",
        "setting 'data' is required: give --data or a line `data: ...` in the --config file",
        "setting 'out' is required: give --out or a line `out: ...` in the --config file",
        "setting seed = -1 is not allowed: it must be a whole number of at least 0",
    ]


def test_refusal_names_the_file_that_holds_the_value(tmp_path: pathlib.Path):
    config = tmp_path / "bad.yaml"
    config.write_text("batch_size: 0\nsise: {mu: 2, mo: 1}\nshared_fs: yes\ncpus_per_worker: yes\n")
    text = refusal({"sise.mu": 0.1}, str(config))
    assert f"batch_size = 0 (in {config})" in text
    assert f"unknown setting 'sise.mo' (in {config})" in text
    assert f"cpus_per_worker = True (in {config})" in text
    assert "shared_fs" not in text
    assert "sise.mu =" not in text, "the flag's good value replaced the file's bad one"


def test_unknown_configuration_lists_the_packaged_ones():
    text = refusal({}, "imagenet-resnet5")
    assert "no configuration 'imagenet-resnet5'; did you mean 'imagenet-resnet50'?" in text
    assert all(name in text for name in packaged_configs())


def test_yaml_cannot_instantiate_objects(tmp_path: pathlib.Path):
    witness = tmp_path / "witness"
    config = tmp_path / "evil.yaml"
    config.write_text(
        f"model: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{witness}']]\n"
    )
    assert "is not plain YAML" in refusal({}, str(config))
    assert not witness.exists()


@pytest.mark.parametrize(
    ("content", "text"), [("- a\n- b\n", "must hold `name: value` lines"), ("a: [1", "is not plain YAML")]
)
def test_yaml_of_another_shape_is_refused(tmp_path: pathlib.Path, content: str, text: str):
    config = tmp_path / "odd.yaml"
    config.write_text(content)
    assert text in refusal({}, str(config))


@pytest.mark.parametrize("name", packaged_configs())
def test_packaged_configurations_hold_valid_settings(name: str):
    assert load_settings({"data": "images", "out": "out"}, name).model


def test_settings_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        load_settings(REQUIRED).seed = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_described_settings_survive_yaml_and_give_the_same_settings(tmp_path: pathlib.Path):
    settings = load_settings({**REQUIRED, "preprocess.size": (3, 4), "sise.layers": "a", "workers": 2})
    config = tmp_path / "again.yaml"
    config.write_text(yaml.safe_dump(describe(settings)))
    assert load_settings({}, str(config)) == settings


def test_every_setting_has_help_and_a_group():
    for name, field in leaves().items():
        assert field.description.endswith("."), name
        assert name.partition(".")[0] in GROUPS
        assert allowed(field.annotation, field.metadata)
        assert metavar(field.annotation)


APP = build_app()
CANDIDATES = (
    True,
    False,
    0.25,
    0,
    3,
    32,
    120,
    -1.0,
    "layer_cam",
    ("agnostic",),
    "some text",
    "minmax",
    "measured",
    ("a", "b"),
    ("grad_cam", "layer_cam"),
    ("uniform", "blur"),
    "insertion_auc",
    (3, 4),
    (0.5, 0.25, 0.125),
)


def other_value(name: str) -> object:
    """A value of a setting that is not its default."""
    field = leaves()[name]
    for value in (*choices(field.annotation), *CANDIDATES):
        try:
            settings = load_settings({**REQUIRED, name: value})
        except SettingsError:
            continue
        if value_of(settings, name) == value != field.default:
            return value
    raise AssertionError(f"no candidate suits {name}")


def value_of(settings: object, name: str) -> object:
    for part in name.split("."):
        settings = getattr(settings, part)
    return settings


def as_flags(name: str, value: object) -> list[str]:
    """The words of a command line that say `name` is `value`."""
    group, dot, key = name.replace("_", "-").rpartition(".")
    if isinstance(value, bool):
        return [f"--{group}{dot}{'' if value else 'no-'}{key}"]
    if value is None:
        return [f"--{group}{dot}{key}", "none"]
    return [f"--{group}{dot}{key}", *map(str, value if isinstance(value, tuple) else [value])]


def from_words(words: list[str]) -> Settings:
    _, bound, _ = APP.parse_args(["explain", *words], exit_on_error=False, print_error=False)
    return load_settings({"model": "m", "data": "d", "out": "o", **given_settings(dict(bound.arguments))})


def from_yaml(content: dict, folder: pathlib.Path) -> Settings:
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump({"model": "m", "data": "d", "out": "o", **content}))
    return load_settings({}, path)


@pytest.mark.parametrize("name", leaves())
def test_every_setting_means_the_same_as_flag_in_yaml_and_from_python(name: str, tmp_path: pathlib.Path):
    value = other_value(name)
    in_python = load_settings({"model": "m", "data": "d", "out": "o", name: value})
    assert value_of(in_python, name) == value
    plain = list(value) if isinstance(value, tuple) else value
    group, _, key = name.rpartition(".")
    assert from_words(as_flags(name, value)) == in_python
    assert from_yaml({name: plain}, tmp_path) == in_python
    assert from_yaml({group: {key: plain}} if group else {key: plain}, tmp_path) == in_python
    if isinstance(value, tuple):
        commas = ",".join(map(str, value))
        assert from_words(as_flags(name, commas)) == in_python
        assert from_yaml({name: commas}, tmp_path) == in_python
        assert load_settings({"model": "m", "data": "d", "out": "o", name: commas}) == in_python


@pytest.mark.parametrize("name", [name for name, field in leaves().items() if admits(field.annotation, type(None))])
def test_none_unsets_wherever_it_is_written(name: str, tmp_path: pathlib.Path):
    python = load_settings({"model": "m", "data": "d", "out": "o", name: None})
    assert value_of(python, name) is None
    assert from_words(as_flags(name, None)) == python
    assert from_yaml({name: "none"}, tmp_path) == python
    assert from_yaml({name: None}, tmp_path) == python


@pytest.mark.parametrize("written", ["none", ["none"], [], None])
@pytest.mark.parametrize("name", ["metrics", "columns.extra"])
def test_none_empties_a_list_wherever_it_is_written(name: str, written: object, tmp_path: pathlib.Path):
    python = load_settings({"model": "m", "data": "d", "out": "o", name: written})
    assert value_of(python, name) == ()
    assert from_yaml({name: written}, tmp_path) == python
    assert from_words(as_flags(name, "none")) == python


@pytest.mark.parametrize("written", ["gpu", "cuda"])
def test_gpu_is_understood(written: str, tmp_path: pathlib.Path):
    assert load_settings({**REQUIRED, "device": written}).device == "cuda"
    assert from_words(["--device", written]).device == "cuda"
    assert from_yaml({"device": written}, tmp_path).device == "cuda"
