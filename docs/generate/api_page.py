"""Writes docs/reference/api.md: the public names of the package, whose docstrings the site's builder fills in.

python -m docs.generate api
"""

from __future__ import annotations

import inspect
from pathlib import Path

import heatlas

PAGE = Path(__file__).parents[1] / "reference" / "api.md"
HEADER = """<!-- Made by `python -m docs.generate api`; do not edit, run it again. -->
# Python interface

What `import heatlas` offers. Everything below `heatlas.engine`, `heatlas.workers` and `heatlas.pipeline` may move, see [the policy](../releases/policy.md).
"""


def entry(name: str) -> str:
    """The heading of a public name and where its docstring is found."""
    value = getattr(heatlas, name)
    shown = f"`heatlas.{name}`" + ("" if inspect.isclass(value) else "()")
    return f"## {shown}\n\n::: {value.__module__}.{value.__qualname__}\n"


def page() -> str:
    names = sorted((name for name in heatlas.__all__ if not name.startswith("__")), key=str.lower)
    return "\n".join([HEADER, *map(entry, names)])


def main() -> None:
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page())
    print(f"wrote {PAGE}: {page().count(':::')} names")


if __name__ == "__main__":
    main()
