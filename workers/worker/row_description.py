"""What a row says of its image and of what it explains, whatever became of the explanation."""

from __future__ import annotations

from ...engine.scoring.object_scenes import ObjectTarget
from ...engine.scoring.whole_image import ClassOverview
from ..images.decode import Prepared
from ..object_targets import box_of
from ..samples import Row


def describe_image(row: Row, prepared: Prepared, overview: ClassOverview | None) -> Row:
    """The row with what is known of its image."""
    row.height, row.width = prepared.height, prepared.width
    row.source_size, row.source_hash = prepared.source_size, prepared.source_hash
    if overview is not None:
        row.top, row.label_confidence = overview.top, overview.label_confidence
        row.features = None if overview.features is None else overview.features.numpy()
    return row


def name_target(row: Row, target: int | None, prepared: Prepared) -> None:
    """Say what the row explains: a class, or one object of it and where that is."""
    row.target = None if target is None else int(target)
    if isinstance(target, ObjectTarget):
        row.object_id = target.object_id
        row.box = None if prepared.geometry is None else box_of(target, prepared.geometry)
