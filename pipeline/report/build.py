"""The report from a store to a file: asks, draws, renders."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..._version import __version__
from ...errors import UsageError
from ...statuses import OK
from ..html.document import render
from ..html.pictures import Pictures
from ..statistics.summary_text import verdicts
from ..storage.atomic_write import put
from ..storage.location import child, is_local, locate
from ..store.reader import StoreReader, open_store
from ..text import harmless
from . import plain_words
from .arrival import arrivals, wanted_rows
from .cards import Card, CardMaker
from .class_sections import choose_class_sections, with_class_cards
from .classes import SHOWN, class_columns, class_facts, cue_verdict, most_suspicious, suspicion_rule
from .derived import read_derived, with_cards
from .distributions import metric_distributions
from .galleries import Cause, Gallery, choose_galleries, error_causes
from .intervention_texts import read_interventions
from .mean_maps import PER_CLASS, class_mean_maps
from .provenance import read_provenance
from .rows import ReportRows
from .scores import run_scores, wilson
from .stored_shift import shift_fact
from .tables import row_table

REPORT_FILE = "report.html"
GALLERY = 8
MOST_GALLERY = 200
PICTURE_BYTES = 5_500_000
"""What pictures may take; with galleries of the usual length the rest of a page comes to less than 2.5 MB."""
CLASSES_WITH_MAP = 60
CAUSES = 20
FAILED_CARDS = 12
ARRIVALS = 3


@dataclass(frozen=True)
class Report:
    """What was written."""

    uri: str
    size: int
    """Bytes."""
    pictures: int
    unread: int
    """Images that could not be read any more."""
    notes: list[str] = field(default_factory=list)


def write_report(
    out: str | os.PathLike[str] | StoreReader,
    to: str | os.PathLike[str] | None = None,
    *,
    gallery: int = GALLERY,
    method: str | None = None,
    blocks: bool | None = None,
    images: bool = True,
) -> Report:
    """Write the report of a run as one HTML file.

    Args:
        out: Directory or URI of a run's store, or the store opened.
        to: File or URI of the page; by default `report.html` in the store.
        gallery: Pictures per gallery, 1 to 200; with the usual 8 the page stays below 8 MB.
        method: Whose rows, where the store has several; by default the method with the most.
        blocks: Load the run's model and recompute three images, to show how SISE arrived at their maps. None: if no code has to be
            run for it that the store names, because it may be a stranger's.
        images: Show the images beside their maps. Without, none is read and the page holds no pixel of them, for private data; ids,
            class names and maps stay.

    Raises:
        UsageError: For a gallery out of range, a method that the store does not have, or a `to` that is no place for a file.
        StorageError: If the store cannot be read or the page cannot be written.
    """
    if not 1 <= gallery <= MOST_GALLERY:
        raise UsageError(
            f"gallery must be from 1 to {MOST_GALLERY} pictures, got {gallery}; leave it out for {GALLERY}"
        )
    atlas = out if isinstance(out, StoreReader) else open_store(out)
    uri = child(atlas.uri, REPORT_FILE) if to is None else file_place(to)
    rows = ReportRows.of(atlas, method)
    pictures = Pictures(PICTURE_BYTES)
    cards = CardMaker(rows, pictures, code=blocks is True, images=images)
    page = render(
        Path(__file__).parent,
        "report.html",
        **content(rows, cards, pictures, gallery, blocks=blocks if images else False),
    )
    put(uri, page)
    return Report(uri, len(page), len(pictures.stored), cards.unread)


def file_place(to: str | os.PathLike[str]) -> str:
    """The place for the page.

    Raises:
        UsageError: If it is no place, or a folder.
    """
    uri = os.fspath(to)
    fs, path = locate(uri)
    if uri.endswith("/") or (is_local(fs) and os.path.isdir(path)):
        raise UsageError(
            f"--out {uri} is a folder; give the page a file name in it, such as {uri.rstrip('/')}/{REPORT_FILE}"
        )
    return uri


def content(
    rows: ReportRows, cards: CardMaker, pictures: Pictures, gallery: int, *, blocks: bool | None
) -> dict[str, Any]:
    """Everything that the template shows."""
    scores = run_scores(rows)
    rule = suspicion_rule(rows, scores)
    classes = class_facts(rows, rule)
    cues = cue_verdict(rows)
    if cues is None:
        suspect = most_suspicious(classes)
    else:
        suspect = next((facts for facts in classes if facts.index == cues.guilty), None)
    galleries = choose_galleries(rows, rule, gallery)
    causes, cause_count = error_causes(rows, CAUSES)
    shown = [row for group in galleries for row in group.rows]
    failed = [row for cause in causes for row in cause.examples][:FAILED_CARDS]
    beside = read_derived(rows, pictures, gallery)
    sections = choose_class_sections(rows, classes, rule, beside)
    shown += [row for section in sections for row in section.rows]
    cards.fetch([*shown, *failed, *(row for group in galleries for row in group.pairs.values()), *beside.wanted])
    with_map = classes[:CLASSES_WITH_MAP]
    means = class_mean_maps(rows, [facts.index for facts in with_map])
    maps = {label: (pictures.map(("mean", label), scaled(map_), 112), count) for label, (map_, count) in means.items()}
    provenance_ = read_provenance(rows)
    wanted = wanted_rows({group.key: group.rows for group in galleries}, ARRIVALS)
    arrived = arrivals(rows, cards, pictures, wanted, load=blocks)
    provenance_.facts.append(("Map shift", shift_fact(rows, load=blocks)))
    return {
        "beside": with_cards(beside, cards), "arrived": arrived, "rows": rows, "pictures": pictures, "run": provenance_, "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "version": __version__, "scores": scores, "groups": plain_words.grouped(rows.metrics), "words": plain_words,
        "plots": metric_distributions(rows), "rule": rule, "classes": classes[:SHOWN], "class_count": len(classes),
        "class_columns": class_columns(rows), "class_maps": maps, "per_class": PER_CLASS, "suspect": suspect, "cues": cues,
        "interventions": read_interventions(rows.atlas.uri),
        "class_sections": with_class_cards(sections, cards, rule),
        "galleries": [(group, gallery_cards(group, cards)) for group in galleries], "gallery": gallery,
        "causes": [(cause, failed_cards(cause, failed, cards)) for cause in causes], "cause_count": cause_count,
        "table": row_table(rows, [*shown, *failed, *beside.wanted]), "totals": totals(rows), "cards": cards, "sentences": sentences(scores),
        "chance_any": any(record["chance_n"] for record in scores.values()), "settings_text": harmless(provenance_.settings),
        "ok_rows": rows.single(f"SELECT count(*) AS n FROM rows WHERE status = '{OK}'")["n"],
    }  # fmt: skip


def scaled(map_: Any) -> Any:
    """The map to its own peak, as it is shown."""
    peak = map_.max()
    return map_ / peak if peak > 0 else map_


def gallery_cards(gallery: Gallery, cards: CardMaker) -> list[Card]:
    return [cards.card(row, gallery.shown, second=gallery.pairs.get(row["id"])) for row in gallery.rows]


def failed_cards(cause: Cause, failed: Sequence[dict[str, Any]], cards: CardMaker) -> list[Card]:
    """Cards of the examples that still can be seen."""
    made = [cards.card(row, why=" ") for row in cause.examples if row in failed]
    return [card for card in made if card.image is not None]


def totals(rows: ReportRows) -> dict[str, Any]:
    """Counts over the images."""
    counts = rows.single(
        f"SELECT count(*) AS images, count(*) FILTER (status = '{OK}') AS ok, count(*) FILTER (label IS NOT NULL) AS labelled, "
        "count(*) FILTER (prediction IS NOT NULL AND label IS NOT NULL) AS answered, "
        'count(*) FILTER (prediction = label) AS "right", count(DISTINCT label) AS classes FROM rows WHERE main'
    )
    answered = counts["answered"]
    counts["accuracy"] = counts["right"] / answered if answered else None
    counts["interval"] = wilson(counts["right"], answered)
    return counts


def sentences(scores: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What the chance baselines and the sanity check say, in the words of `heatlas summary`."""
    return verdicts(scores.values())
