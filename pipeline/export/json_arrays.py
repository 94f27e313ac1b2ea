"""JSON files with long arrays, written element by element."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import TracebackType
from typing import Any


def plain(value: Any) -> Any:
    """The value as JSON has it: null for numbers that are not finite, text for what JSON does not know."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


class ArrayFile:
    """An array of JSON values in a file; whole when it is closed."""

    def __init__(self, path: Path, before: str = "[", after: str = "]"):
        self._file = open(path, "w", encoding="utf-8")  # noqa: SIM115  (closed by __exit__)
        self._after = after
        self._file.write(before)
        self.count = 0

    def add(self, value: Any) -> None:
        self._file.write(",\n" if self.count else "\n")
        self._file.write(json.dumps(value, allow_nan=False))
        self.count += 1

    def __enter__(self) -> ArrayFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._file.write(f"\n{self._after}")
        self._file.close()
