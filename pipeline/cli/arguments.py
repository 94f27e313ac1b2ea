"""Arguments that several commands have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter

Store = Annotated[str, Parameter(help="heatlas store: directory or URI.")]
Json = Annotated[bool, Parameter(name="--json", help="Print JSON instead of text.")]
Resamples = Annotated[int, Parameter(help="Resamples of the bootstrap intervals, at least 1.")]
ResampleSeed = Annotated[int, Parameter(name="--seed", help="Seed of the resamples, at least 0.")]


def names_of(given: Sequence[str] | None) -> list[str] | None:
    """The names in a list of flags, which commas separate too."""
    return None if given is None else [name for text in given for name in text.split(",") if name]
