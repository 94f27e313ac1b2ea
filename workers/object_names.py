"""Models and data sets that a caller hands over as objects, under names by which settings and workers refer to them: `object:NAME`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import UsageError

PREFIX = "object"
_GIVEN: dict[str, Any] = {}
"""Of this process."""


@contextlib.contextmanager
def given_objects(objects: Mapping[str, Any]) -> Iterator[None]:
    """Keep objects under their names while the body runs.

    Raises:
        UsageError: If another object has one of the names just now, as in a second thread.
    """
    for name, value in objects.items():
        if _GIVEN.get(name, value) is not value:
            raise UsageError(f"another {name} is being explained in this process; run one after the other")
    added = objects.keys() - _GIVEN.keys()
    _GIVEN.update(objects)
    try:
        yield
    finally:
        for name in added:
            del _GIVEN[name]


def keep_objects(objects: Mapping[str, Any]) -> None:
    """Keep objects as long as this process lives: that of a worker."""
    _GIVEN.update(objects)


def given_object(name: str) -> Any:
    """The object of that name.

    Raises:
        UsageError: If there is none.
    """
    if name not in _GIVEN:
        raise UsageError(
            f"{PREFIX}:{name} is an object of the process that made the run; hand it to heatlas.explain_dataset again"
        )
    return _GIVEN[name]


def name_of(value: Any) -> str:
    """The name of an object: that of its class, the same in every process."""
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}".replace("<", "").replace(">", "")


def objects_named(*specs: str) -> dict[str, Any]:
    """The objects that these texts name as `object:NAME`, by name."""
    names = [spec.removeprefix(f"{PREFIX}:") for spec in specs if spec.startswith(f"{PREFIX}:")]
    return {name: given_object(name) for name in names}
