"""What the numbers of boxes mean: pixels of the image, pixels of the picture on which they were drawn, or fractions of it."""

# pyarrow.compute makes its functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ....errors import DataError
from ...shards import DRAWN_ON, SCALED_FROM

PIXELS, SCALED, FRACTIONS = "pixels", "scaled", "fractions"
_SIZE = pa.list_(pa.int64())


def settle_boxes(listing: pa.Table, rule: str | None) -> tuple[pa.Table, tuple[str, ...]]:
    """The listing with what the user says of its boxes, and what to say to the user.

    Args:
        listing: With `boxes`, and `drawn_on` where its source knows the size of the annotated picture.
        rule: `pixels`, `scaled`, `fractions`, or None: pixels of the image, which must have that size.

    Raises:
        DataError: If nobody says, and all boxes lie within [0, 1]; or if they are to be scaled from a size that nobody knows.
    """
    corners = _corners(listing)
    if not len(corners):
        return listing, ()
    if rule is None and _are_fractions(corners):
        raise DataError(
            "all boxes lie within [0, 1], so they look like fractions of the image's width and height: say --labels.boxes fractions, or "
            "--labels.boxes pixels if they are pixels"
        )
    if rule == FRACTIONS:
        if corners.max() > 2:
            raise DataError(
                f"--labels.boxes fractions does not fit: a box reaches to {corners.max():g}; leave it out for boxes in pixels"
            )
        ones = pa.array([[1, 1]] * len(listing), _SIZE)
        listing = _without(listing).append_column(SCALED_FROM, ones)
    elif rule == SCALED:
        if DRAWN_ON not in listing.column_names or listing[DRAWN_ON].null_count == len(listing):
            raise DataError(
                "--labels.boxes scaled needs the size of the picture on which boxes were drawn, which only the <size> of VOC files and the "
                "width and height of COCO files give, and --data has neither; scale the boxes, or give them as --labels.boxes fractions"
            )
        listing = listing.rename_columns([SCALED_FROM if name == DRAWN_ON else name for name in listing.column_names])
    elif rule == PIXELS:
        listing = _without(listing)
    empty = int(((corners[:, 0] == corners[:, 2]) | (corners[:, 1] == corners[:, 3])).sum())
    notes = (f"{empty:,} of {len(corners):,} boxes have no width or no height and cover nothing",) if empty else ()
    return listing, notes


def _corners(listing: pa.Table) -> np.ndarray:
    """`(box, 4)`; boxes of other forms are told about where they are read."""
    numbers = pc.list_flatten(pc.list_flatten(listing["boxes"])).to_numpy()
    return numbers.reshape(-1, 4) if len(numbers) % 4 == 0 else np.empty((0, 4))


def _are_fractions(corners: np.ndarray) -> bool:
    finite = corners[np.isfinite(corners).all(axis=1)]
    return len(finite) > 0 and float(finite.min()) >= 0 and float(finite.max()) <= 1


def _without(listing: pa.Table) -> pa.Table:
    return listing.drop_columns([DRAWN_ON]) if DRAWN_ON in listing.column_names else listing
