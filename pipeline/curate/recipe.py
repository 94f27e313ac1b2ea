"""A recipe: one SQL query under a head that names its purpose, the columns it needs and its parameters.

-- One line that says what is found.
-- needs: ebpg or border_share, confidence      (columns without which it cannot run; `or` between alternatives)
-- uses: insertion_auc                     (columns that are null where the store does not have them)
-- param border = 0.6 in [0, 1]   What it means.     (`$border` in the query)
SELECT id, target, ..., reason, priority FROM atlas ...
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...configs import packaged_recipes
from ...errors import UsageError, did_you_mean

_DIRECTIVE = re.compile(r"(needs|uses):\s*(.+)")
_PARAM = re.compile(r"param\s+([a-z_][a-z0-9_]*)\s*=\s*(\S+)(?:\s+in\s+\[([^,\s]+),\s*([^\]\s]+)\])?\s*(.*)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
FIRST = ("shortcut", "label_suspicion")
"""Recipes listed first; the others follow by name."""
LONGEST = 100_000
"""Most characters of a recipe file; a larger file is refused."""


@dataclass(frozen=True)
class Recipe:
    """A parsed recipe."""

    name: str
    query: str
    """The whole text; its head is comments to SQL."""
    purpose: str = ""
    """The first line of the head."""
    needs: tuple[tuple[str, ...], ...] = ()
    """Columns of which at least one of each group must be there."""
    uses: tuple[str, ...] = ()
    params: Mapping[str, float] = field(default_factory=dict)
    param_texts: Mapping[str, str] = field(default_factory=dict)
    param_ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Least and largest value of the parameters that have such."""

    @property
    def words(self) -> frozenset[str]:
        """Every word of the query that can name a column or a view."""
        code = "\n".join(line.partition("--")[0] for line in self.query.splitlines())
        return frozenset(re.findall(r"[A-Za-z_][A-Za-z0-9_]*", code)) | (
            {"*"} if re.search(r"\*", code) else frozenset()
        )

    @property
    def optional(self) -> tuple[str, ...]:
        """Columns that the query sees as null where the store does not have them."""
        return tuple(dict.fromkeys([*self.uses, *(name for group in self.needs for name in group)]))

    def missing(self, columns: Iterable[str]) -> list[tuple[str, ...]]:
        """Groups of needed columns of which `columns` holds none."""
        there = set(columns)
        return [group for group in self.needs if not there.intersection(group)]

    def with_params(self, values: Mapping[str, float]) -> Recipe:
        """The recipe with some parameters changed; names that it does not have are ignored."""
        own = {name: values.get(name, default) for name, default in self.params.items()}
        return replace(self, params=own)


def load_recipes(names: Iterable[str] | None = None) -> list[Recipe]:
    """Recipes by the names of packaged ones or by paths of .sql files; None for all packaged ones.

    Raises:
        UsageError: For an unknown name, a file that cannot be read, two recipes of one name, or a head that cannot be parsed.
    """
    wanted = (
        sorted(packaged_recipes(), key=lambda name: (name not in FIRST, name not in FIRST[:1], name))
        if names is None
        else list(names)
    )
    recipes = [_load(name) for name in wanted]
    twice = [recipe.name for recipe in recipes if sum(other.name == recipe.name for other in recipes) > 1]
    if twice:
        raise UsageError(f"two recipes are called {twice[0]!r}; name each once, and rename a copied file")
    return recipes


def parse_recipe(name: str, text: str) -> Recipe:
    """Read the head of a recipe.

    Raises:
        UsageError: Naming the line that cannot be parsed.
    """
    purpose, needs, uses, params, texts, ranges = "", [], [], {}, {}, {}
    for line in text.splitlines():
        if line.strip() and not line.startswith("--"):
            break
        said = line.removeprefix("--").strip()
        if directive := _DIRECTIVE.fullmatch(said):
            groups = [tuple(re.split(r"\s+or\s+", group.strip())) for group in directive[2].split(",")]
            if directive[1] == "needs":
                needs += groups
            else:
                uses += [name for group in groups for name in group]
        elif said.startswith("param "):
            key, value, limits, meaning = _param(name, said)
            params[key], texts[key] = value, meaning
            ranges |= {key: limits} if limits else {}
        elif said and not purpose:
            purpose = said
    return Recipe(name, text, purpose, tuple(needs), tuple(uses), params, texts, ranges)


def _param(recipe: str, said: str) -> tuple[str, float, tuple[float, float] | None, str]:
    match = _PARAM.fullmatch(said)
    value = number(match[2]) if match else None
    low, high = (number(match[3]), number(match[4])) if match and match[3] else (None, None)
    limits = None if low is None or high is None else (low, high)
    outside = value is not None and limits is not None and not limits[0] <= value <= limits[1]
    if match is None or value is None or outside or (match[3] and limits is None):
        raise UsageError(
            f"the recipe {recipe} has the line {said!r}; a parameter is written `-- param NAME = NUMBER [in [LOW, HIGH]]  meaning`"
        )
    return match[1], value, limits, match[5]


def number(text: str) -> float | None:
    """A finite number, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _load(name: str) -> Recipe:
    known = packaged_recipes()
    if name in known:
        return parse_recipe(name, known[name].read_text(encoding="utf-8"))
    path = Path(name)
    if path.suffix != ".sql":
        raise UsageError(f"unknown recipe {name!r}{did_you_mean(name, known)}; the recipes are {', '.join(known)}, "
                         "or give the path of a .sql file")  # fmt: skip
    if not _NAME.fullmatch(path.stem):
        raise UsageError(f"{name}: a recipe is called as its file, with letters, digits, _ and - only; rename the file")
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(LONGEST + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the recipe {name}: {error}; give a text file with one SELECT") from None
    if len(text) > LONGEST:
        raise UsageError(f"{name} has more than {LONGEST:,} characters; a recipe is a text file with one SELECT")
    return parse_recipe(path.stem, text)


def split_params(given: Iterable[str], recipes: Iterable[Recipe]) -> list[Recipe]:
    """The recipes with parameters set as `NAME=NUMBER` (in every recipe that has it) or `RECIPE.NAME=NUMBER`.

    Raises:
        UsageError: For a text of another form, or a parameter that none of the recipes has.
    """
    changed = list(recipes)
    for text in given:
        name, sign, value = text.partition("=")
        parsed = number(value) if sign else None
        if parsed is None:
            raise UsageError(f"--param {text!r} is not NAME=NUMBER or RECIPE.NAME=NUMBER, such as border=0.5")
        prefix, _, key = name.strip().rpartition(".")
        hit = [recipe for recipe in changed if key in recipe.params and prefix in ("", recipe.name)]
        if not hit:
            known = sorted({f"{recipe.name}.{param}" for recipe in changed for param in recipe.params})
            raise UsageError(f"no recipe has the parameter {name.strip()!r}{did_you_mean(name.strip(), known)}; "
                             f"there are {', '.join(known) or 'none'}")  # fmt: skip
        for recipe in hit:
            refuse_outside(recipe, key, parsed)
        changed = [recipe.with_params({key: parsed}) if recipe in hit else recipe for recipe in changed]
    return changed


def refuse_outside(recipe: Recipe, param: str, value: float) -> None:
    """Refuse a value that the recipe says makes no sense.

    Raises:
        UsageError: Naming the range.
    """
    low, high = recipe.param_ranges.get(param, (-math.inf, math.inf))
    if not low <= value <= high:
        raise UsageError(f"--param {recipe.name}.{param}={value:g} is not allowed: it must be in [{low:g}, {high:g}]; "
                         f"{recipe.param_texts[param]}")  # fmt: skip
