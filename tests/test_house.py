"""Texts and definitions about the house itself: arrows point downward, every source folder is packaged, names say what files hold."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = ("engine", "workers", "pipeline", "configs")
MAY_IMPORT = {
    "engine": {"engine"},
    "configs": {"configs"},
    "workers": {"workers", "engine"},
    "pipeline": {"pipeline", "workers", "engine", "configs"},
}
ONLY_IN = {"ray": ("workers",), "pyarrow": ("pipeline",), "fsspec": ("pipeline",), "cyclopts": ("pipeline/cli",)}
SOURCES = sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))


def imports(path: Path) -> list[tuple[str, str]]:
    """(kind, dotted name) of every import: `inside` relative ones resolved from the root, `outside` absolute ones."""
    found: list[tuple[str, str]] = []
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            start = package[: len(package) - node.level + 1]
            base = [*start, *(node.module.split(".") if node.module else [])]
            found += [("inside", ".".join([*base, alias.name])) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(("outside", node.module or ""))
        elif isinstance(node, ast.Import):
            found += [("outside", alias.name) for alias in node.names]
    return found


def test_the_reader_of_imports_sees_both_kinds(tmp_path: Path) -> None:
    names = imports(ROOT / "engine" / "sise.py")
    assert ("inside", "engine.fusion.fuse") in names
    assert ("outside", "torch") in names


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downward(path: Path) -> None:
    floor = path.relative_to(ROOT).parts[0]
    for kind, name in imports(path):
        top = name.split(".")[0]
        if kind == "inside" and top in FLOORS:
            assert top in MAY_IMPORT[floor], f"{path.name} on floor {floor} imports {name}"
        if kind == "outside":
            assert top not in {*FLOORS, "heatlas"}, f"{path} imports {name} absolutely; write it relatively"
            for library, homes in ONLY_IN.items():
                inside = any(path.relative_to(ROOT).as_posix().startswith(home) for home in homes)
                assert top != library or inside, f"{library} belongs to {homes}, {path} imports it"


def test_every_source_folder_is_packaged() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {path.parent.relative_to(ROOT) for path in SOURCES}
    expected = {"heatlas", *(".".join(["heatlas", *folder.parts]) for folder in folders)}
    assert set(settings["packages"]) == expected
    assert all((ROOT / folder / "__init__.py").is_file() for folder in folders)


def test_files_are_named_after_their_idea_and_hold_one() -> None:
    nameless = {"utils", "util", "helpers", "helper", "common", "misc", "base"}
    assert not [path for path in SOURCES if path.stem in nameless]
    assert {str(path): lines for path in SOURCES if (lines := len(path.read_text().splitlines())) > 400} == {}


def test_public_names_exist_and_load_nothing_heavy_until_used() -> None:
    program = """
import sys, heatlas
heavy = {"torch", "ray", "pyarrow", "pandas"} & set(sys.modules)
assert not heavy, heavy
for name in heatlas.__all__:
    assert getattr(heatlas, name) is not None, name
assert "ray" not in sys.modules
try:
    heatlas.sise
except AttributeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, cwd="/")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "module 'heatlas' has no attribute 'sise'"


def test_nothing_names_a_registry_host() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, timeout=30)
    if listed.returncode:
        pytest.skip("not a git checkout")
    hosts = ("pypi" + ".org", "python" + "hosted.org", "registry.npm" + "js.org", "deb.deb" + "ian.org")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in {".py", ".toml", ".txt", ".md", ".yaml", ".yml", ""} and path.is_file():
            text = path.read_text(errors="replace")
            assert not [host for host in hosts if host in text], name
