"""From chosen rows to cards: the image, its map, and what the network said, each read once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from PIL import Image

from ...errors import HeatlasError, SampleError
from ...workers.images.decode import decode_image
from ...workers.images.preprocess import Preprocess
from ..html.pictures import Pictures, Stored
from ..html.texts import clipped, figure
from ..pictures.stored_images import stored_map, stored_preprocess
from ..sources.listing.detection import item_source
from ..sources.reading.reader import FsspecReader
from ..store.object_rows import object_text
from ..text import harmless
from .plain_words import name_of
from .rows import ReportRows, RowKey, row_key

READERS = 8
GIVEN_UP = 12
"""Images that could not be read, with none that could, after which no more are tried."""


@dataclass(frozen=True)
class Card:
    """One row as a page shows it."""

    id: str
    says: str
    """The explained class, and prediction and label where they differ from it: `octagon` or `disc, labelled octagon`."""
    right: bool | None
    confidence: float | None
    image: Stored | None
    map: Stored | None
    second: Stored | None
    """The map for the label, where the first one is for the prediction."""
    missing: str
    """Why there is no image; empty where there is."""
    facts: list[tuple[str, str]]
    why: str
    alt: str


class CardMaker:
    """Makes cards; reads the store once for all of them, and each image once.

    Args:
        rows: The rows of the report.
        pictures: Where pictures are kept.
        code: Whether images of a source that is written in Python may be read, which runs its code.
        images: Whether images are read at all; without, maps stand alone.
    """

    def __init__(self, rows: ReportRows, pictures: Pictures, *, code: bool = False, images: bool = True):
        self._images = images
        self._rows = rows
        self._pictures = pictures
        self._shape = rows.atlas.metadata.get("map", {})
        self._details: dict[RowKey, dict[str, Any]] = {}
        self._views: dict[str, Image.Image | str] = {}
        self.preprocess = _preprocess(rows.atlas.run)
        self._reader = stored_reader(rows.atlas.run, code=code)
        self.unread = 0
        """Images that were wanted and cannot be read."""
        self.read = 0

    def fetch(self, wanted: Iterable[Mapping[str, Any]]) -> None:
        """Read the maps and images of these rows."""
        kind = next((name for name in ("map_png", "map") if name in self._rows.atlas.schema.names), None)
        keys = [key for key in dict.fromkeys(row_key(row) for row in wanted) if key not in self._details]
        columns = ["uri", "error", "n_forwards", *([kind] if kind else [])]
        details = self._rows.details(keys, columns)
        for row in details.values():
            row["map"] = stored_map(row.pop(kind), self._shape) if kind else None
        self._details |= details
        uris = {row["id"]: row["uri"] for row in details.values() if row["id"] not in self._views}
        self._views |= self._read_views(uris)

    def _read_views(self, uris: Mapping[str, str]) -> dict[str, Image.Image | str]:
        if not self._images:
            return dict.fromkeys(uris, "images are left out of this page")
        if self.preprocess is None:
            return dict.fromkeys(uris, "the run does not say how images were prepared")
        views: dict[str, Image.Image | str] = {}
        todo = list(uris.items())
        with ThreadPoolExecutor(READERS) as pool:
            for start in range(0, len(todo), READERS):
                some = todo[start : start + READERS]
                if self.unread >= GIVEN_UP and not self.read:  # the place is gone: asking on would only wait for it
                    views |= {identity: "not tried, because none before could be read" for identity, _ in some}
                    self.unread += len(some)
                    continue
                pictures = pool.map(lambda uri: view(uri, self._reader, self.preprocess), [uri for _, uri in some])
                for (identity, _), seen in zip(some, pictures, strict=True):
                    views[identity] = seen
                    self.read += isinstance(seen, Image.Image)
                    self.unread += isinstance(seen, str)
        return views

    def card(
        self,
        row: Mapping[str, Any],
        metrics: Sequence[str] = (),
        *,
        why: str = "",
        second: Mapping[str, Any] | None = None,
    ) -> Card:
        """The card of a row that was fetched."""
        detail = self._details.get(row_key(row), {})
        seen = self._views.get(row["id"], "not read")
        image = None if isinstance(seen, str) else self._pictures.image(("image", row["id"]), seen)
        says, right = self._says(row)
        missing = seen if isinstance(seen, str) else "" if image else "left out to keep this page small"
        return Card(
            id=row["id"], says=says, right=right, confidence=row["confidence"], image=image, map=self._map(row),
            second=None if second is None else self._map(second), missing=missing,
            facts=[(name_of(name), figure(row[name])) for name in metrics if row.get(name) is not None],
            why=why or _failure(row, detail), alt=self._alt(row, says, image is not None),
        )  # fmt: skip

    def view_of(self, identity: str) -> Image.Image | None:
        """The image as the network sees it; None where it cannot be read."""
        seen = self._views.get(identity)
        return seen if isinstance(seen, Image.Image) else None

    def detail(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """`uri`, `error`, `n_forwards` and the map `map` of a row that was fetched."""
        return self._details[row_key(row)]

    def _map(self, row: Mapping[str, Any]) -> Stored | None:
        map_ = self._details.get(row_key(row), {}).get("map")
        return None if map_ is None else self._pictures.map(("map", *row_key(row)), map_)

    def _says(self, row: Mapping[str, Any]) -> tuple[str, bool | None]:
        prediction, label = row["prediction"], row["label"]
        if prediction is None:
            return (f"labelled {self._rows.class_name(label)}" if label is not None else "no prediction"), None
        explained = prediction if row["target"] is None else row["target"]
        parts = [self._rows.class_name(explained) + object_text(row)]
        if prediction != explained:
            parts.append(f"predicted {self._rows.class_name(prediction)}")
        if label is not None and label not in (explained, prediction):
            parts.append(f"labelled {self._rows.class_name(label)}")
        elif label is not None and label == explained != prediction:
            parts[0] += " (the label)"
        return ", ".join(parts), None if label is None else label == prediction

    def _alt(self, row: Mapping[str, Any], says: str, with_image: bool) -> str:
        what = "Image, and the map over it" if with_image else "Map"
        plain = clipped(harmless(f"{what}: {row['id']}, {says}", lines=False), 240)
        return (
            plain
            if row["status"] == "ok"
            else clipped(harmless(f"Image {row['id']}, no map: {row['status']}", lines=False), 240)
        )


def view(uri: str, reader: FsspecReader, preprocess: Preprocess | None) -> Image.Image | str:
    """The image as the network sees it, or why it cannot be shown."""
    try:
        image = decode_image(reader.read(uri), preprocess)
        return image if preprocess is None else preprocess.view(image)
    except SampleError as error:
        return error.text


def stored_reader(run: Mapping[str, Any], *, code: bool = False) -> FsspecReader:
    """Reads what the run read: what confined the run confines its pictures."""
    data = run["settings"].get("data")
    return FsspecReader(run["fingerprint"].get("data_root"), code=item_source(str(data)) if code and data else None)


def _preprocess(run: Mapping[str, Any]) -> Preprocess | None:
    try:
        return stored_preprocess(run)
    except (KeyError, TypeError, HeatlasError):
        return None


def _failure(row: Mapping[str, Any], detail: Mapping[str, Any]) -> str:
    if row["status"] == "ok":
        return ""
    return f"{row['status']}: {detail.get('error') or 'no text'}"
