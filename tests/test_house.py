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
ONLY_IN = {"ray": ("workers/ray/",), "pyarrow": ("pipeline",), "fsspec": ("pipeline",), "cyclopts": ("pipeline/cli/",)}
SOURCES = sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))
AT_ROOT = {"errors", "statuses", "_version"}
LOOSE_IN_PIPELINE = 12
"""Modules that lie in `pipeline/` itself, at most."""


def imports(path: Path) -> list[tuple[str, str]]:
    """(kind, dotted name) of every import: `inside` relative ones resolved from the root, `outside` absolute ones."""
    result: list[tuple[str, str]] = []
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            start = package[: len(package) - node.level + 1]
            base = [*start, *(node.module.split(".") if node.module else [])]
            result += [("inside", ".".join([*base, alias.name])) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            result.append(("outside", node.module or ""))
        elif isinstance(node, ast.Import):
            result += [("outside", alias.name) for alias in node.names]
    return result


def test_the_reader_of_imports_sees_both_kinds(tmp_path: Path) -> None:
    names = imports(ROOT / "engine" / "metrics" / "evaluate.py")
    assert ("inside", "engine.requests.Job") in names
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


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name from the root; a package by the name of its folder."""
    loose = [ROOT / f"{name}.py" for name in AT_ROOT]
    result = {path.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."): path for path in [*SOURCES, *loose]}
    return {name.removesuffix(".__init__"): path for name, path in result.items()}


def type_checking_only(tree: ast.AST) -> set[int]:
    """Nodes that exist for a type checker only."""
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    return {id(node) for block in blocks for statement in block.body for node in ast.walk(statement)}


def imported_modules(path: Path, known: dict[str, Path]) -> set[str]:
    """Modules of the package that a file imports, now or later in a function; names resolved to the module that holds them."""
    package, tree = path.relative_to(ROOT).parent.parts, ast.parse(path.read_text())
    skipped, result = type_checking_only(tree), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level and id(node) not in skipped:
            base = ".".join([*package[: len(package) - node.level + 1], *(node.module or "").split(".")]).strip(".")
            for alias in node.names:
                name = f"{base}.{alias.name}".strip(".")
                result |= {name} if name in known else {base} & known.keys()
    return result


def circle(graph: dict[str, set[str]]) -> list[str]:
    """One circle of a graph, as the nodes along it; empty where there is none."""
    state: dict[str, int] = {}

    def visit(node: str, way: list[str]) -> list[str]:
        state[node] = 1
        for other in sorted(graph.get(node, ())):
            if state.get(other) == 1:
                return [*way[way.index(other) :], other] if other in way else [node, other]
            if other not in state and (result := visit(other, [*way, other])):
                return result
        state[node] = 2
        return []

    for node in sorted(graph):
        if node not in state and (result := visit(node, [node])):
            return result
    return []


def import_graph() -> dict[str, set[str]]:
    known = modules()
    return {name: imported_modules(path, known) - {name} for name, path in known.items()}


def test_a_planted_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_file_is_in_a_circle_of_imports() -> None:
    assert circle(import_graph()) == []


def test_no_folder_is_in_a_circle_of_imports() -> None:
    """At every level of the tree: what lies in one folder, files and folders, has arrows in one direction only."""
    graph = import_graph()
    folders = {name.rpartition(".")[0] for name in graph if "." in name}
    for folder in sorted(folders):
        depth, rooms = folder.count(".") + 2, dict[str, set[str]]()
        inside = [name for name in graph if name.startswith(f"{folder}.")]
        for name in inside:
            room = ".".join(name.split(".")[:depth])
            others = {".".join(other.split(".")[:depth]) for other in graph[name] if other.startswith(f"{folder}.")}
            rooms.setdefault(room, set()).update(others - {room})
        assert circle(rooms) == [], folder


def test_only_the_command_line_prints() -> None:
    printing = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if "cli" not in path.parts
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert sorted(set(printing)) == [], "log with the logger `heatlas`"


def test_few_modules_lie_loose_in_the_pipeline() -> None:
    loose = [path.name for path in (ROOT / "pipeline").glob("*.py") if path.stem != "__init__"]
    assert len(loose) <= LOOSE_IN_PIPELINE, sorted(loose)


def definitions(path: Path) -> list[ast.stmt]:
    return [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef | ast.FunctionDef)]


def test_no_module_bears_the_name_of_what_it_defines() -> None:
    assert [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if path.stem in {node.name for node in definitions(path)}  # pyright: ignore[reportAttributeAccessIssue]
    ] == []


def test_public_class_names_are_unique() -> None:
    homes: dict[str, list[str]] = {}
    for path in SOURCES:
        for node in definitions(path):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert {name: files for name, files in homes.items() if len(files) > 1} == {}


def test_the_version_is_written_once() -> None:
    import heatlas

    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert heatlas.__version__ == stated


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
