"""Encode images and maps of rows for a page: read through the run's own reader, sizes limited."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ...errors import HeatlasError, SampleError
from ...workers.images.decode import decode_image
from ..html.pictures import smaller
from ..pictures.stored_images import stored_map, stored_preprocess
from ..report.cards import stored_reader
from ..store.reader import StoreReader
from .stored_columns import StoredColumns
from .view_rows import ViewRows

THUMBNAIL_PIXELS = 160
LARGEST_PIXELS = 1024
"""Longer side of an image that is sent."""
CACHE_BYTES = 96_000_000
MOST_MAPS = 600
"""Maps in one request."""


@dataclass(frozen=True)
class MapPixels:
    """Maps for the page, as bytes: 0 to 255 for 0 to 1, rows from the top, one map after the other."""

    data: bytes
    height: int
    width: int
    present: tuple[bool, ...]


class RowImages:
    """Images and maps by row number.

    Args:
        atlas: The store.
        table: Its rows.
        trust_code: Whether a source written in Python, which the store names, may be run to read its images.
    """

    def __init__(self, atlas: StoreReader, table: ViewRows, *, trust_code: bool = False):
        self._table = table
        self.columns = StoredColumns(atlas)
        self._shape = atlas.metadata.get("map")
        self._with_png = "map_png" in atlas.schema.names
        self.reader = stored_reader(atlas.run, code=trust_code)
        try:
            self.preprocess = stored_preprocess(atlas.run)
        except (KeyError, TypeError, HeatlasError):
            self.preprocess = None
        self._encoded: OrderedDict[tuple, bytes] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def thumbnail(self, n: int) -> bytes:
        """The image as the network sees it, at most 160 pixels a side, as WebP.

        Raises:
            SampleError: If it cannot be read any more.
        """
        return self._cached(("thumbnail", n), lambda: _webp(smaller(self._view(n), THUMBNAIL_PIXELS)))

    def view(self, n: int) -> bytes:
        """The image as the network sees it, at most 1024 pixels a side, as WebP."""
        return self._cached(("view", n), lambda: _webp(smaller(self._view(n), LARGEST_PIXELS)))

    def source(self, n: int) -> tuple[bytes, tuple[int, int]]:
        """The whole source image after EXIF rotation, at most 1024 pixels a side, as WebP, and its own width and height."""
        image = decode_image(self.reader.read(self.uri(n)), self.preprocess)
        return _webp(smaller(image.convert("RGB"), LARGEST_PIXELS)), image.size

    def source_size(self, n: int) -> tuple[int, int]:
        """Width and height of the source image after EXIF rotation."""
        return decode_image(self.reader.read(self.uri(n)), self.preprocess).size

    def uri(self, n: int) -> str:
        """Where the run read the image."""
        return str(self.columns.values("uri", self.places([n]))[0].as_py())

    def maps(self, numbers: Sequence[int]) -> MapPixels:
        """The stored low-resolution maps of some rows; zeros for rows without."""
        if self._shape is None:
            return MapPixels(b"", 0, 0, (False,) * len(numbers))
        height, width = self._shape["height"], self._shape["width"]
        values = self.columns.lists("map", self.places(numbers), height * width)
        present = [not np.isnan(row).any() for row in values]
        pixels = (np.nan_to_num(values).clip(0, 1) * 255).round().astype(np.uint8)
        return MapPixels(pixels.tobytes(), height, width, tuple(present))

    def map(self, n: int) -> MapPixels:
        """The best stored map of a row: the PNG at input resolution, else the low-resolution one."""
        if self._with_png:
            stored = self.columns.values("map_png", self.places([n]))[0].as_py()
            map_ = stored_map(stored, {}) if stored else None
            if map_ is not None:
                return MapPixels((map_ * 255).round().astype(np.uint8).tobytes(), map_.shape[0], map_.shape[1], (True,))
        return self.maps([n])

    def places(self, numbers: Sequence[int]) -> list[tuple[int, int]]:
        """File and row of some rows, in this order."""
        listed = ", ".join(str(int(n)) for n in numbers) or "NULL"
        places_by_number = {
            row["n"]: (row["file"], row["place"])
            for row in self._table.ask(f"SELECT n, file, place FROM items WHERE n IN ({listed})")
        }
        if missing := [n for n in numbers if n not in places_by_number]:
            raise SampleError("no_row", f"there is no row {missing[0]}")
        return [places_by_number[n] for n in numbers]

    def _view(self, n: int) -> Image.Image:
        if self.preprocess is None:
            raise SampleError("read_error", "the run does not say how images were prepared")
        return self.preprocess.view(decode_image(self.reader.read(self.uri(n)), self.preprocess)).convert("RGB")

    def _cached(self, key: tuple, make) -> bytes:
        with self._lock:
            if key in self._encoded:
                self._encoded.move_to_end(key)
                return self._encoded[key]
        data = make()
        with self._lock:
            if key not in self._encoded:
                self._encoded[key] = data
                self._size += len(data)
                while self._size > CACHE_BYTES:
                    _, oldest = self._encoded.popitem(last=False)
                    self._size -= len(oldest)
        return data


def _webp(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80, method=2)
    return buffer.getvalue()
