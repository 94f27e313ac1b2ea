"""What is released: sdist and wheel hold the source tree and nothing else, and the wheel works where no checkout is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from ..support.checkout import ROOT

pytest.importorskip("build", reason="needs build, in the extra `release`")
NOT_PACKAGED = {"tests", "bench", "docs", "release", "constraints", "site", "build", "dist"}
PAGE_SOURCES = ("pipeline", "view", "page")
"""What `make view-page` makes the packaged page of."""
SUFFIXES = {".py", ".yaml", ".sql", ".safetensors", ".html", ".css", ".js", ".toml", ".typed"}


def sources() -> dict[str, bytes]:
    """Content of every file of the package, by its name in the wheel."""
    paths = [path for path in ROOT.rglob("*") if path.is_file() and path.suffix in SUFFIXES]
    parts = {path: path.relative_to(ROOT).parts for path in paths}
    kept = {p: names for p, names in parts.items() if names[0] not in NOT_PACKAGED and not names[0].startswith(".")}
    kept = {
        path: names for path, names in kept.items() if not {"__pycache__", "mkdocs.yml", "pyproject.toml"} & {*names}
    }
    kept = {path: names for path, names in kept.items() if names[:3] != PAGE_SOURCES}
    return {"/".join(("heatlas", *names)): path.read_bytes() for path, names in kept.items()}


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was made of it."""
    folder = tmp_path_factory.mktemp("release")
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "tests", "bench", "site", "build", "dist")
    shutil.copytree(ROOT, folder / "tree", ignore=ignored)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "dist"), str(folder / "tree")],
        capture_output=True, text=True, timeout=240, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "dist"


@pytest.fixture(scope="module")
def installed(released: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of a bare environment with the wheel; what it depends on comes from the environment of the suite."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, *map(str, released.glob("*.whl"))], check=True, timeout=120)
    [site] = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def run(python: Path, *command: str) -> str:
    """What a command prints outside of the checkout."""
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(python), *command], capture_output=True, text=True, timeout=120, cwd=python.parent, env=alone
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_the_package_and_nothing_else(released: Path) -> None:
    [wheel] = released.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
    expected = sources()
    assert sorted(packed) == sorted(expected)
    assert [name for name in packed if packed[name] != expected[name]] == []


def test_the_metadata_is_complete(released: Path) -> None:
    [wheel] = released.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [metadata] = [archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA")]
    for field in (
        "Author: heatlas contributors",
        "License-Expression: Apache-2.0",
        "Requires-Python: >=3.11",
        "Keywords: ",
    ):
        assert f"\n{field}" in metadata
    assert metadata.count("\nClassifier: ") >= 10
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "# heatlas" in metadata, "the README is the description"


def test_the_sdist_holds_what_builds_the_wheel(released: Path) -> None:
    [sdist] = released.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"pyproject.toml", "README.md", "LICENSE"} <= names
    assert {name.removeprefix("heatlas/") for name in sources()} <= names


def test_the_wheel_works_outside_of_the_checkout(installed: Path) -> None:
    place = Path(run(installed, "-c", "import heatlas; print(heatlas.__file__)").strip())
    assert place.is_relative_to(installed.parents[1])
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert run(installed.with_name("heatlas"), "--version").strip() == stated
    assert "sise" in run(installed.with_name("heatlas"), "methods")
