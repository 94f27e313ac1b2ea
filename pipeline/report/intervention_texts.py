"""What `heatlas intervene` said of a store's classes, as the report shows it."""

from __future__ import annotations

from dataclasses import dataclass

from ..intervene.intervention_table import interventions_of

SHOWN = 12
"""Sentences in the page."""


@dataclass(frozen=True)
class InterventionTexts:
    """Sentences, those of confirmed classes first."""

    texts: list[str]
    count: int
    """Of all groups, shown or not."""


def read_interventions(out: str) -> InterventionTexts | None:
    """What was said; None where nobody intervened.

    Raises:
        StorageError: If the table cannot be read.
    """
    table = interventions_of(out)
    return None if table is None or not len(table) else InterventionTexts(table["text"].to_pylist()[:SHOWN], len(table))
