"""The command line: help, errors' texts, exit codes."""

from __future__ import annotations

import inspect
import re
import shlex
import subprocess
import sys

import heatlas
import pytest
from heatlas.engine.methods.registry import find_method
from heatlas.errors import HeatlasError, RunError, SettingsError, ShardsUndoneError
from heatlas.pipeline.cli.app import COMMANDS, build_app, main, told
from heatlas.pipeline.cli.settings_flags import given_settings
from heatlas.pipeline.settings.load import load_settings
from heatlas.pipeline.settings.methods import METHOD_GROUPS
from heatlas.pipeline.settings.run import leaves

REQUIRED = {"model": "torchvision:resnet18", "data": "images", "out": "out"}


def failing(error: BaseException):
    def action() -> int:
        raise error

    return action


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in ("explain", "layers", "show", "status", "demo"))


def in_help(name: str, text: str) -> bool:
    """Whether a help lists the flag of a setting."""
    group, dot, key = name.replace("_", "-").rpartition(".")
    return f"  --{group}{dot}{key}" in text or f"  --{group}{dot}[no-]{key}" in text


@pytest.mark.parametrize("method", METHOD_GROUPS)
@pytest.mark.parametrize("command", ["explain", "plan"])
def test_the_help_lists_every_setting_but_those_of_other_methods(
    command: str, method: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "80")
    assert main([command, "--method", method, "--help"]) == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) < 100 or command != "explain"
    assert all(len(line) <= 80 for line in text.splitlines() if "Example: " not in line)
    others = METHOD_GROUPS.keys() - {method}
    assert [name for name in leaves() if in_help(name, text) == (name.partition(".")[0] in others)] == []


@pytest.mark.parametrize("method", METHOD_GROUPS)
def test_the_options_of_every_method_are_told_by_methods(method: str, capsys: pytest.CaptureFixture[str]):
    assert main(["methods", method]) == 0
    text = capsys.readouterr().out
    options = [name for name in leaves() if name.startswith(f"{method}.")]
    assert options or find_method(method).trained
    assert all(f"--{name.replace('_', '-')}" in text for name in options)


def test_an_unknown_method_is_refused_with_a_hint(capsys: pytest.CaptureFixture[str]):
    assert main(["methods", "sice"]) == 2
    assert "unknown method 'sice'; did you mean 'sise'?" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_an_example_that_the_command_takes(name: str, capsys: pytest.CaptureFixture[str]):
    assert main([name, "--help"]) == 0
    example = re.search(r"^  Example: heatlas (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert example is not None
    words = shlex.split(example[1])
    assert words[0] == name
    build_app(words).parse_args(words, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_parameter_is_explained_and_stores_files_and_kinds_are_named_alike(
    name: str, capsys: pytest.CaptureFixture[str]
):
    command = COMMANDS[name].for_method("sise")
    for parameter in inspect.signature(command).parameters.values():
        texts = [item.help for item in parameter.annotation.__metadata__ if item.help]
        assert len(texts) == 1, parameter.name
        assert texts[0].endswith("."), parameter.name
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert not [flag for flag in ("--to ", "--html", "--place") if flag in text]
    if name in (
        "status",
        "summary",
        "verify",
        "show",
        "report",
        "export",
        "curate",
        "cluster",
        "compact",
        "migrate",
        "evaluate",
    ):
        assert "  STORE " in text


def test_version(capsys: pytest.CaptureFixture[str]):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == heatlas.__version__


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["explian"], 'Unknown command "explian". Did you mean "explain"?'),
        (["explain", "--sise.mo", "0.3"], "Unknown option: --sise.mo. Did you mean --sise.mu?"),
        (["explain", "--model"], "--model needs a value: torchvision:NAME"),
        (["explain", "stray"], "unexpected argument 'stray'"),
        (["demo", "--workers", "many"], "--workers 'many' is not allowed: it must be 'auto' or a whole number"),
        (["decide", "s", "--kind", "drp"], "or 'undo'; did you mean 'drop'?"),
        (
            ["annotate", "push", "s", "--tool", "coco", "--kind", "x"],
            "--kind 'x' is not allowed: it must be 'shortcut' or 'missing' or 'label'",
        ),
        (
            ["train", "--budget", "fast"],
            "`heatlas train` does not take --budget, a setting of `heatlas explain`; leave it out",
        ),
        (["explain", "--fold-bn"], "--fold-bn is --forward fold_bn now"),
        (["explain", "--sise.mu", "3"], "setting sise.mu = '3' is not allowed: it must be a number in [0, 1)"),
        (["explain", "--data", "d"], "setting 'model' is required: give --model"),
        (["explain", "--config", "imagenet-resnet51"], "did you mean 'imagenet-resnet50'?"),
        (["layers"], "`heatlas layers` needs MODEL: "),
        (["show", "out", "--limit", "many"], "--limit 'many' is not allowed: it must be a whole number"),
    ],
)
def test_misuse_is_told_on_stderr_with_exit_code_2(argv: list[str], text: str, capsys: pytest.CaptureFixture[str]):
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert err.startswith("heatlas: error: ")
    assert text in err
    assert out == ""
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("error", "code"),
    [(SettingsError("text"), 2), (RunError("text"), 1), (ShardsUndoneError("text"), 1), (HeatlasError("text"), 1)],
)
def test_exit_code_follows_the_error_tree(error: HeatlasError, code: int, capsys: pytest.CaptureFixture[str]):
    assert told(failing(error)) == code
    assert capsys.readouterr().err == "heatlas: error: text\n"


def test_interrupt_says_how_to_go_on(capsys: pytest.CaptureFixture[str]):
    assert told(failing(KeyboardInterrupt())) == 130
    assert "the same command resumes" in capsys.readouterr().err


def test_a_bug_shows_its_place_and_with_debug_its_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("HEATLAS_DEBUG", raising=False)
    assert told(failing(ZeroDivisionError("by zero"))) == 1
    text = capsys.readouterr().err
    assert "unexpected ZeroDivisionError at test_cli.py:" in text
    assert "Traceback" not in text
    monkeypatch.setenv("HEATLAS_DEBUG", "1")
    assert told(failing(ZeroDivisionError("by zero"))) == 1
    assert "Traceback" in capsys.readouterr().err


def test_flags_reach_the_settings_as_typed_values():
    flags = {
        "sise__mu": "0.3",
        "sise__layers": ["a.0", "b,c"],
        "preprocess__size": ["32"],
        "preprocess__mean": ["0.5,0.4", "0.3"],
        "metrics": ["none"],
        "target": "3",
        "limit": "none",
        "store__map": False,
        "store__map_size": "input",
        "seed": None,
    }
    settings = load_settings({**REQUIRED, **given_settings(flags)})
    assert (settings.sise.mu, settings.sise.layers) == (0.3, ("a.0", "b", "c"))
    assert (settings.preprocess.size, settings.preprocess.mean) == ((32, 32), (0.5, 0.4, 0.3))
    assert (settings.metrics, settings.target, settings.limit, settings.seed) == ((), 3, None, 0)
    assert (settings.store.map, settings.store.map_size) == (False, "input")
    assert given_settings({"sise__layers": ["a,b", "c"], "seed": None}) == {"sise.layers": ["a", "b", "c"]}


@pytest.mark.parametrize("command", ["explain", "bank"])
def test_help_loads_neither_torch_nor_ray_nor_arrow(command: str):
    script = (
        f"import sys; from heatlas.pipeline.cli.app import main; code = main(['{command}', '--help']);"
        "print('heavy:', [name for name in ('torch', 'ray', 'pyarrow', 'PIL') if name in sys.modules]); sys.exit(code)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.splitlines()[-1] == "heavy: []"


def test_as_a_process():
    command = [sys.executable, "-m", "heatlas", "explain", "--batch-size", "0"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 2
    assert "setting batch_size = '0' is not allowed: it must be 'auto' or a whole number of at least 1" in ran.stderr
    assert "Traceback" not in ran.stderr
