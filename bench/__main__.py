"""List the measurements, or run one: `python -m bench NAME [ARGUMENTS]`."""

from __future__ import annotations

import ast
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path

ROOMS = ("speed", "accuracy", "faults", "gpu")


@dataclass(frozen=True)
class Measurement:
    """A module that is a command."""

    room: str
    name: str
    text: str
    """First line of its docstring."""

    @property
    def module(self) -> str:
        return f"bench.{self.room}.{self.name}"


def measurements() -> dict[str, Measurement]:
    """Every command of the rooms, by its name."""
    commands: dict[str, Measurement] = {}
    for room in ROOMS:
        for path in sorted((Path(__file__).parent / room).glob("[a-z]*.py")):
            source = path.read_text(encoding="utf-8")
            if '\nif __name__ == "__main__":' not in source:
                continue
            if path.stem in commands:
                raise SystemExit(f"two measurements are named {path.stem!r}: rename one of them")
            docstring = ast.get_docstring(ast.parse(source)) or ""
            commands[path.stem] = Measurement(room, path.stem, docstring.split("\n")[0])
    return commands


def listing(known: dict[str, Measurement]) -> str:
    """A line for every measurement, by rooms."""
    width = max(map(len, known))
    lines: list[str] = []
    for room in ROOMS:
        inside = [command for command in known.values() if command.room == room]
        lines += [f"\n{room}:", *(f"  python -m bench {command.name:{width}}  {command.text}" for command in inside)]
    return "\n".join(lines).strip()


def main() -> None:
    known = measurements()
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(listing(known))
        return
    name = sys.argv[1]
    if name not in known:
        raise SystemExit(f"unknown measurement {name!r}; known: {', '.join(known)}")
    sys.argv = [f"python -m bench {name}", *sys.argv[2:]]
    runpy.run_module(known[name].module, run_name="__main__")


if __name__ == "__main__":
    main()
