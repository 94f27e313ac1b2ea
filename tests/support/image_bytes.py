"""Images as bytes, and readers that hold them."""

from __future__ import annotations

import io

import numpy as np
from heatlas.errors import SampleError
from heatlas.statuses import READ_ERROR
from heatlas.workers.images.preprocess import Preprocess
from PIL import Image


class Files(dict):
    """A reader over a dictionary."""

    def read(self, uri: str) -> bytes:
        if uri not in self:
            raise SampleError(READ_ERROR, f"cannot read {uri}: no such file")
        return self[uri]


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def colourful(width: int = 24, height: int = 16) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 255 // width, y * 255 // height, 0 * x + 90], -1).astype(np.uint8))


PLAIN = Preprocess(size=(16, 24), resize="squash", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
