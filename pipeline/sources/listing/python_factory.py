"""`python:package.module:function`: the user's own code makes a map-style data set; see `map_style` for what it may say.

The function is called without arguments, in the driver and once in every worker, and must give the same items each time.
Importing and calling it is running code: give only names that you trust.
"""

from __future__ import annotations

import re
from typing import Any

from ....errors import DataError, ModelError
from ..reading.items import register_factory
from .map_style import list_items
from .options import Listed, SourceOptions

PREFIX = "python"
FORM = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def list_python(data: str, options: SourceOptions) -> Listed:
    """The listing of what the function returns.

    Raises:
        DataError: If there is no such function, it fails, or returns no map-style data set.
    """
    if options.rows == "annotation":
        raise DataError(f"{data} has no annotated objects; leave out --rows annotation")
    return list_items(make_data_set(data), f"{PREFIX}:{data}")


@register_factory(PREFIX)
def make_data_set(data: str) -> Any:
    """What the function returns.

    Raises:
        DataError: If there is no such function, or it fails.
    """
    if not FORM.fullmatch(data):
        raise DataError(f"python:{data} must be python:package.module:function")

    from ....workers.models.factory import import_user_module, module_attribute  # here, because it imports torch

    module_name, _, name = data.partition(":")
    try:
        factory = module_attribute(import_user_module(module_name), name, module_name)
    except ModelError as error:
        raise DataError(str(error)) from error
    if not callable(factory):
        raise DataError(
            f"{data} is {type(factory).__name__}, not a function to call; write one that returns the data set"
        )
    try:
        return factory()
    except Exception as error:
        raise DataError(f"{data}() failed: {type(error).__name__}: {error}") from error
