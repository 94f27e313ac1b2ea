"""`object:NAME`: a map-style data set that the caller hands over as an object; see `map_style` for what it may say."""

from __future__ import annotations

from ....errors import DataError
from ....workers.object_names import PREFIX, given_object
from .map_style import list_items
from .options import Listed, SourceOptions


def list_given(data: str, options: SourceOptions) -> Listed:
    """The listing of the data set of that name.

    Raises:
        DataError: If it is no map-style data set.
    """
    if options.rows == "annotation":
        raise DataError(f"{PREFIX}:{data} has no annotated objects; leave out --rows annotation")
    return list_items(given_object(data), f"{PREFIX}:{data}")
