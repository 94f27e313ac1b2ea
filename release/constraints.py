"""Writes constraints/*.txt: the versions that this environment has of everything that heatlas and its extras ask for.

    python release/constraints.py            # in the environment with which the suite just passed

`run.txt`: what `pip install heatlas` brings. `gpu.txt`: what torch brings besides on Linux, for NVIDIA GPUs; left out where torch's CPU
build is used. `test.txt`: all extras. A package stands in one file only.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
GPU = re.compile(r"^(nvidia|cuda)-|^triton$")
NO_DEPENDENCIES = ("quantus", "cachetools")
"""Installed by the Makefile without what they ask for: quantus wants another build of OpenCV than grad-cam, with the same files."""
HEADS = {
    "run": "Versions with which the suite was run: pip install --constraint constraints/run.txt heatlas",
    "gpu": "Those of the packages for NVIDIA GPUs that torch brings on Linux: pip install -c constraints/run.txt -c constraints/gpu.txt heatlas",
    "test": "Those of all extras: pip install -c constraints/run.txt -c constraints/gpu.txt -c constraints/test.txt 'heatlas[test,lint]'",
}


def closure(requirements: Iterable[str], installed: dict[str, metadata.Distribution]) -> set[str]:
    """Names of everything that these requirements bring here; what is not installed is left out."""
    todo = [Requirement(text) for text in requirements]
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        requirement = todo.pop()
        key = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if key in seen or key[0] not in installed:
            continue
        seen.add(key)
        for text in installed[key[0]].requires or ():
            needed = Requirement(text)
            extras = ("", *requirement.extras)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(needed)
    return {name for name, _ in seen}


def pins() -> dict[str, list[str]]:
    """Lines of each file, by its name."""
    installed = {
        str(canonicalize_name(distribution.metadata["Name"])): distribution for distribution in metadata.distributions()
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    run = closure(project["dependencies"], installed)
    extras = [text for texts in project["optional-dependencies"].values() for text in texts]
    test = (closure(extras, installed) | {*NO_DEPENDENCIES} & installed.keys()) - run
    names = {"run": {n for n in run if not GPU.search(n)}, "gpu": {n for n in run if GPU.search(n)}, "test": test}
    return {
        file: [f"{name}=={installed[name].version.split('+')[0]}" for name in sorted(names[file])] for file in names
    }


def main() -> None:
    for file, lines in pins().items():
        path = ROOT / "constraints" / f"{file}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join([f"# {HEADS[file]}", *lines]) + "\n")
        print(f"{path.relative_to(ROOT)}: {len(lines)} packages", file=sys.stderr)


if __name__ == "__main__":
    main()
