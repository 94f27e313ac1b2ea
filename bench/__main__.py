"""Lists the measurements, or runs one: `python -m bench NAME [ARGUMENTS]` is `python -m bench.NAME [ARGUMENTS]`."""

from __future__ import annotations

import ast
import runpy
import sys
from pathlib import Path


def measurements() -> dict[str, str]:
    """First line of the docstring of every module here that is a command, by name."""
    files = {path.stem: path.read_text() for path in sorted(Path(__file__).parent.glob("[a-z]*.py"))}
    commands = {name: text for name, text in files.items() if '\nif __name__ == "__main__":' in text}
    texts = {name: ast.get_docstring(ast.parse(text)) or "" for name, text in commands.items()}
    return {name: text.split("\n")[0] for name, text in texts.items()}


def main() -> None:
    known = measurements()
    if len(sys.argv) < 2:
        width = max(map(len, known))
        print("\n".join(f"python -m bench.{name:{width}}  {text}" for name, text in known.items()))
        return
    name = sys.argv[1]
    if name not in known:
        raise SystemExit(f"unknown measurement {name!r}; known: {', '.join(known)}")
    sys.argv = [f"bench.{name}", *sys.argv[2:]]
    runpy.run_module(f"bench.{name}", run_name="__main__")


if __name__ == "__main__":
    main()
