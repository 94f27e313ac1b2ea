"""Find an image's row in a second store, to show both explanations beside each other."""

from __future__ import annotations

from typing import Any

from ..report.rows import CONFIDENCE
from .detail import finite
from .images import RowImages
from .view_rows import ViewRows


class SecondStore:
    """The rows and maps of another run over the same images."""

    def __init__(self, table: ViewRows, images: RowImages):
        self.table, self.images = table, images

    @property
    def uri(self) -> str:
        return self.table.atlas.uri

    def row_of(self, identity: str, target_name: str) -> dict[str, Any] | None:
        """The other run's row of an image: that of the same explained class if there is one, else the one for its prediction.

        Args:
            identity: Id of the image.
            target_name: Name of the class that the first run explains; indices may differ between two models.
        """
        rows = self.table.ask(
            "SELECT * FROM items WHERE id = ? ORDER BY main DESC, target NULLS LAST, object_id NULLS FIRST", [identity]
        )
        if not rows:
            return None
        name = self.table.rows.class_name
        row = next((row for row in rows if name(row["target"]) == target_name), rows[0])
        return {
            "n": row["n"],
            "method": self.table.method,
            "explained": name(row["target"]),
            "prediction": name(row["prediction"]),
            "confidence": finite(row[CONFIDENCE]),
            "status": row["status"],
        }
