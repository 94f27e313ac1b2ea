"""A method of another package: found by its entry points, shown, run, refused; the package is the one that docs/methods.md shows."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import tomllib

import heatlas
import pytest

from ..support.checkout import ROOT
from ..support.tiny_run import FACTORY, command, draw_all, environment, program

EXAMPLE = ROOT / "docs" / "example_method"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Where the package lies as an installer leaves it, beside images and a model, and with one that is broken and one that has a taken name."""
    folder = tmp_path_factory.mktemp("third_party")
    (folder / "tiny_net.py").write_text(FACTORY)
    draw_all(folder / "images", 3)
    shutil.copytree(EXAMPLE / "plain_gradient", folder / "plain_gradient")
    groups = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]["entry-points"]
    install(folder, "heatlas-plain-gradient", groups)
    install(
        folder, "brokencam", {"heatlas.methods": {"broken_cam": "no_such_module", "sise": "plain_gradient.saliency"}}
    )
    return folder


def install(folder: pathlib.Path, name: str, groups: dict[str, dict[str, str]]) -> None:
    facts = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [
        line
        for group, points in groups.items()
        for line in (f"[{group}]", *(f"{key} = {value}" for key, value in points.items()))
    ]
    (facts / "entry_points.txt").write_text("\n".join(lines) + "\n")


def run(place: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, cwd=place, env=environment(place, COLUMNS="200"), capture_output=True, text=True, timeout=240
    )


def test_it_is_listed_and_has_flags_without_torch(place: pathlib.Path) -> None:
    names = run(place, *program("methods", "--names")).stdout.split()
    assert names[0] == "sise"
    assert names[-2:] == ["broken_cam", "plain_gradient"]
    code = "import sys\nfrom heatlas.pipeline.cli.app import main\nmain(['methods', 'plain_gradient'])\nassert 'torch' not in sys.modules, 'slow help'"
    helped = run(place, program()[0], "-c", code)
    assert helped.returncode == 0, helped.stderr
    assert "--plain-gradient.power" in helped.stdout
    assert "Exponent of the gradient's size, above 0." in helped.stdout


def test_it_runs_like_any_other(place: pathlib.Path) -> None:
    done = run(
        place, *program(*command("images", "out", "--method", "plain_gradient", "--plain-gradient.power", "0.5"))
    )
    assert done.returncode == 0, done.stderr
    atlas = heatlas.open(str(place / "out"))
    table = atlas.table()
    assert table["method"].to_pylist() == ["plain_gradient"] * 3
    assert all(norm > 0 for norm in table["gradient_norm"].to_pylist())
    assert table["n_backwards"].to_pylist() == [1] * 3
    assert atlas.run["fingerprint"]["plain_gradient"] == {"power": 0.5}
    refused = run(
        place, *program(*command("images", "other", "--method", "plain_gradient", "--plain-gradient.power", "0"))
    )
    assert refused.returncode == 2
    assert "setting plain_gradient.power must be above 0, got 0.0" in refused.stderr


def test_what_cannot_be_imported_is_said_where_it_matters(place: pathlib.Path) -> None:
    listed = run(place, *program("methods"))
    assert listed.returncode == 0, listed.stderr
    assert "method 'broken_cam' of package brokencam cannot be imported" in " ".join(listed.stdout.split())
    assert "size of the logit's gradient at every pixel" in listed.stdout
    refused = run(place, *program(*command("images", "broken", "--method", "broken_cam")))
    assert refused.returncode == 2
    assert "method 'broken_cam' of package brokencam cannot be imported: ModuleNotFoundError" in refused.stderr
    assert "Traceback" not in refused.stderr
