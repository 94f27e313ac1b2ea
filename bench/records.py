"""What measurements have found so far, one JSON object a line, so that an interrupted one goes on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path("bench-out")


class Records:
    """Records by key; the last one of a key counts.

    Args:
        name: Of the measurement; the file is `bench-out/NAME.jsonl`.
        fresh: Begin anew.
    """

    def __init__(self, name: str, *, fresh: bool = False):
        FOLDER.mkdir(exist_ok=True)
        self.path = FOLDER / f"{name}.jsonl"
        if fresh:
            self.path.unlink(missing_ok=True)
        self.found: dict[str, Any] = {}
        for line in self.path.read_text().splitlines() if self.path.exists() else ():
            try:
                key, value = json.loads(line)
            except ValueError:
                continue  # cut short when the measurement was killed
            self.found[key] = value

    def __contains__(self, key: str) -> bool:
        return key in self.found

    def add(self, key: str, value: Any) -> None:
        self.found[key] = value
        with self.path.open("a") as file:
            file.write(json.dumps([key, value]) + "\n")
        print(key, value, flush=True)
