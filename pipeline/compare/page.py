"""Write a comparison as one HTML file, with the report's style sheet."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image

from ..._version import __version__
from ...errors import HeatlasError
from ..html.document import render
from ..html.pictures import Pictures
from ..html.texts import figure, percent
from ..pictures.stored_images import stored_map, stored_preprocess
from ..report import build as report_build
from ..report import plain_words
from ..report.cards import Card, stored_reader, view
from ..storage.atomic_write import put
from ..store.object_rows import OBJECT
from ..store.sql import literal
from ..text import harmless
from .compare import BINS, Comparison
from .pairs import Side
from .text import change_rows, name_of, p_text
from .verdict import verdict_text

PICTURE_BYTES = 5_000_000
WIDTH, HEIGHT = 420, 110


def write_page(comparison: Comparison, to: str) -> int:
    """Write the page to a file or URI, atomically.

    Returns:
        Bytes.

    Raises:
        UsageError: If `to` is no place for a file.
        StorageError: If it cannot be written.
    """
    place = report_build.file_place(to)
    pictures = Pictures(PICTURE_BYTES)
    cards = moved_cards(comparison, pictures)
    page = render(
        Path(report_build.__file__).parent, "compare.html", comparison=comparison, cards=cards, pictures=pictures, bars=bars(comparison.histogram()),
        width=WIDTH, height=HEIGHT, changes=change_rows(comparison), p_text=p_text, words=plain_words, verdict=verdict_text(comparison), version=__version__, far=comparison.distances,
        unread=sum(1 for card in cards if card.missing), made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        sides=list(zip(("first", "second"), comparison.pairs.sides, comparison.pairs.alone, comparison.pairs.examples, strict=True)),
    )  # fmt: skip
    put(place, page)
    return len(page)


def bars(counts: list[int]) -> list[tuple[float, float, float, float, int]]:
    """x, y, width, height and count of every bin."""
    most, wide = max(1, *counts), WIDTH / BINS
    tall = [round((HEIGHT - 6) * count / most, 1) for count in counts]
    return [(round(place * wide, 1), round(HEIGHT - height, 1), round(wide - 1.5, 1), height, count) for place, (height, count) in enumerate(zip(tall, counts, strict=True))]  # fmt: skip


def moved_cards(comparison: Comparison, pictures: Pictures) -> list[Card]:
    """The image, the first run's map over it and the second's, for every pair that is listed."""
    if not comparison.most:  # stores without maps, or nothing that moved
        return []
    maps = [
        side_maps(side, comparison.most, which)
        for which, side in zip(("first", "second"), comparison.pairs.sides, strict=True)
    ]
    views = Views(comparison.pairs.sides[0])
    cards = []
    for pair in comparison.most:
        seen = views.of(maps[0].get(pair["id"], {}).get("uri"))
        image = None if isinstance(seen, str) else pictures.image(("image", pair["id"]), seen)
        pair_maps = [
            pictures.map((which, pair["id"]), held[pair["id"]]["map"])
            if held.get(pair["id"], {}).get("map") is not None
            else None
            for which, held in zip(("first", "second"), maps, strict=True)
        ]
        says = says_of(comparison, pair)
        facts = [("first", percent(pair["first_confidence"])), ("second", percent(pair["second_confidence"])), ("elsewhere", percent(pair["distance"])),
                 *([("centre moved", percent(pair["shift"]))] if pair["shift"] is not None else [])]  # fmt: skip
        wrong = pair["label"] is not None and pair["label"] != pair["prediction"]
        cards.append(Card(
            id=pair["id"], says=says,
            right=None if pair["label"] is None else not wrong, confidence=None, image=image, map=pair_maps[0], second=pair_maps[1],
            missing=seen if isinstance(seen, str) else "" if image else "left out to keep this page small", facts=facts, why="",
            alt=harmless(f"{pair['id']}: the image, the first run's map and the second's; {figure(pair['distance'])} of the mass lies elsewhere",
                         lines=False)[:240],
        ))  # fmt: skip
    return cards


def says_of(comparison: Comparison, pair: Mapping[str, Any]) -> str:
    """The explained class first: `crescent; prediction disc, label crescent`, with two names where the runs explain different ones."""
    explained = [name_of(comparison, target) for target in dict.fromkeys((pair["first_target"], pair["second_target"]))]
    others = [
        f"{name} {name_of(comparison, pair[name])}"
        for name in ("prediction", "label")
        if pair[name] is not None and {pair[name]} != {pair["first_target"], pair["second_target"]}
    ]
    return "; ".join([" / ".join(explained), *([", ".join(others)] if others else [])])


def side_maps(side: Side, wanted: list[dict[str, Any]], which: str) -> Mapping[str, dict[str, Any]]:
    """`uri` and map of the listed rows of one run, by id."""
    targets = {pair["id"]: (pair[f"{which}_target"], pair.get(f"{which}_object_id")) for pair in wanted}
    kind = "map_png" if "map_png" in side.atlas.schema.names else "map"
    own = [OBJECT] if OBJECT in side.atlas.schema.names else []
    by_id = {}
    for table in side.atlas.batches(
        ["id", "uri", "target", *own, kind], f"method = {literal(side.method)}", list(targets)
    ):
        for row in table.to_pylist():
            if (row["target"], row.get(OBJECT)) == targets[row["id"]]:
                by_id[row["id"]] = {"uri": row["uri"], "map": stored_map(row[kind], side.atlas.metadata.get("map", {}))}
    return by_id


class Views:
    """Images as the first run's network sees them."""

    def __init__(self, side: Side):
        self._reader = stored_reader(side.atlas.run)
        try:
            self._preprocess = stored_preprocess(side.atlas.run)
        except (KeyError, TypeError, HeatlasError):
            self._preprocess = None

    def of(self, uri: str | None) -> Image.Image | str:
        """The image, or why there is none."""
        if uri is None or self._preprocess is None:
            return "the run does not say how images were prepared"
        return view(uri, self._reader, self._preprocess)
