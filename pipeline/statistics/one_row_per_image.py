"""Which row stands for an image that has several: one rule for every mean that is printed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..store.object_rows import object_order

if TYPE_CHECKING:
    from ..store.reader import StoreReader

ORDER = "coalesce(target = prediction, false) DESC, target NULLS LAST"
"""SQL order of an image's rows of one method: the one that explains the prediction first, else the lowest target."""
RULE = "of an image with several targets its predicted class's row counts, or where there is none its lowest target's; of several objects the largest"


def image_rows(atlas: StoreReader) -> str:
    """A table expression of SQL for `atlas.sql`: the rows that stand for their images, one per image and method."""
    [(several,)] = atlas.query_rows("SELECT count(*) > count(DISTINCT (id, method)) FROM atlas")
    if not several:
        return "atlas"
    return f"(SELECT * FROM atlas QUALIFY row_number() OVER (PARTITION BY id, method ORDER BY {ORDER}{object_order(atlas.schema)}) = 1)"
