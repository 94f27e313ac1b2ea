"""Say where a comparison favours a method by the very columns by which `heatlas choose` chose it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import StorageError, UsageError
from ..choose.choice import Choice, choice_place, read_choice
from ..text import counted
from .pairs import Pairs


def choice_warnings(pairs: Pairs, metrics: Sequence[Mapping[str, Any]], file: str | None = None) -> list[str]:
    """A sentence for each choice whose method is favoured here by a metric that it was chosen by, on images that chose it.

    Args:
        pairs: The rows that were compared.
        metrics: The tested metrics, each with `favours`.
        file: A choice that lies elsewhere than in the two stores; None for none.

    Raises:
        UsageError: If `file` is not there, or no choice.
        StorageError: If a file in a store is no choice.
    """
    if file is not None and read_given_choice(file) is None:
        raise UsageError(f"there is no --choice {file}; `heatlas choose --out DIR` writes DIR/choice.parquet")
    places: list[str] = list(
        dict.fromkeys([*([file] if file else []), *(choice_place(side.atlas.uri) for side in pairs.sides)])
    )
    choices = {(choice.reason, choice.seed): choice for place in places if (choice := read_choice(place)) is not None}
    return [warning for choice in choices.values() if (warning := _warning(choice, pairs, metrics))]


def read_given_choice(file: str) -> Choice | None:
    """The choice that the user names; None where nothing is there.

    Raises:
        UsageError: If it is no choice.
    """
    try:
        return read_choice(file)
    except StorageError as error:
        raise UsageError(f"--choice {file} is not a choice.parquet of `heatlas choose` ({error.__cause__})") from error


def _warning(choice: Choice, pairs: Pairs, metrics: Sequence[Mapping[str, Any]]) -> str:
    sides = [
        which for which, side in zip(("first", "second"), pairs.sides, strict=True) if side.method == choice.method
    ]
    if len(sides) != 1:
        return ""
    favoured = [
        metric["metric"] for metric in metrics if metric["metric"] in choice.metrics and metric["favours"] == sides[0]
    ]
    shared = choice.images if choice.ids is None else len(set(choice.ids) & set(pairs.table["id"].to_pylist()))
    if not favoured or not shared:
        return ""
    return (
        f"{choice.method} was chosen by {', '.join(choice.columns)} (`heatlas choose`, {counted(choice.images, 'image')}), of which {shared:,} are compared here; "
        f"{', '.join(favoured)} favour it partly because they chose it: compare on other images, or by other metrics"
    )
