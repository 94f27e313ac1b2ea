"""A stored map with the image's edges, for the eye: fine outlines on a coarse map. The edges are the image's, not the model's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from .overlay import GAP, fit

Edges = Callable[[Image.Image], np.ndarray]
"""Of an image the edge strength `(height, width)` in [0, 1]."""


def edges_from(named: str) -> Edges:
    """Edges by `sobel` or `canny`, or by HED with the weights of the file that is named.

    Raises:
        ModelError: If there are no such weights.
    """
    import torch  # here, because most pictures need none

    from ...engine.edges.edge_map import NAMED, hed_edges

    source: Any = NAMED[named] if named in NAMED else hed_edges(named)

    def strength(image: Image.Image) -> np.ndarray:
        values = torch.from_numpy(np.asarray(image.convert("RGB"), dtype=np.float32) / 255)
        return source(values.permute(2, 0, 1)[None])[0].numpy()

    return strength


def edged(image: Image.Image, map_: np.ndarray, edges: Edges) -> np.ndarray:
    """The map times the image's edges, over its largest value, at the image's size."""
    product = fit(map_, image.size).clip(0, 1) * edges(image)
    return product / max(float(product.max()), 1e-8)


def shown_through(image: Image.Image, map_: np.ndarray) -> Image.Image:
    """The image where the map is 1, black where it is 0."""
    values = np.asarray(image.convert("RGB"), dtype=np.float32) * fit(map_, image.size).clip(0, 1)[..., None]
    return Image.fromarray(values.round().astype(np.uint8))


def appended(picture: Image.Image, panel: Image.Image) -> Image.Image:
    """The panel to the right of a picture of two, at the size of one of them."""
    width = (picture.width - GAP) // 2
    height = round(panel.height * width / panel.width)
    whole = Image.new("RGB", (picture.width + GAP + width, max(picture.height, height)), "white")
    whole.paste(picture, (0, 0))
    whole.paste(panel.resize((width, height), Image.Resampling.BILINEAR), (picture.width + GAP, 0))
    return whole
