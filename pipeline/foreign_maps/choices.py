"""How maps of other tools are to be read: what their files do not say themselves."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ...engine.methods.registry import entries
from ...errors import SettingsError, did_you_mean

Sign = Literal["positive", "negative", "absolute", "range"]
Channels = Literal["sum", "largest"]
Covers = Literal["input", "image"]
Match = Literal["id", "position"]
VALUES = {
    "sign": ("positive", "negative", "absolute", "range"),
    "channels": ("sum", "largest"),
    "covers": ("input", "image"),
    "by": ("id", "position"),
}
_NAME = re.compile(r"[A-Za-z][\w.+-]{0,63}")
_TAKEN = frozenset({"plan", "model", "classes", "preprocess", "method", "schema", "target", "metrics", "floors", "sanity", "budget", "precision",
                    "batch_size", "threads", "seed", "store", "data_root", "score", "fold_bn", "compile", "forward", "versions"})  # fmt: skip
"""Names of other facts in a run's fingerprint, where a method's settings stand under its name."""


@dataclass(frozen=True)
class MapChoices:
    """What the user says of the maps."""

    method: str = "imported"
    """Name of the method that made them, for the column `method`."""
    by: Match = "id"
    """`id`: by the names of files, keys or rows. `position`: by their place in the data set's listing."""
    sign: Sign = "positive"
    """What becomes of values below 0. `positive`: they count as 0. `negative`: only they count. `absolute`: their size counts.
    `range`: the smallest value becomes 0 and the largest 1."""
    channels: Channels = "sum"
    """How the channels of a map become one: their sum, or the value of largest size."""
    covers: Covers | None = None
    """What a map covers that does not have the network input's size: the network's input, or the whole upright image."""
    array: str | None = None
    """Which array of a file with several, by its name."""
    method_index: int | None = None
    """Which method along the second axis of arrays (image, method, channel, height, width)."""

    def __post_init__(self) -> None:
        for name, known in VALUES.items():
            value = getattr(self, name)
            if value not in known and not (name == "covers" and value is None):
                raise SettingsError(
                    f"{name} must be one of {', '.join(known)}, got {value!r}{did_you_mean(str(value), known)}"
                )
        if not _NAME.fullmatch(self.method) or self.method in _TAKEN:
            raise SettingsError(
                f"method = {self.method!r} cannot name the maps' method: letters, digits and . _ + - after a letter, at most 64, such as captum_ig"
            )
        if self.method in entries():
            raise SettingsError(
                f"method = {self.method!r} is heatlas's own, and would say that heatlas made the maps; call it otherwise, such as other_{self.method}"
            )
        if self.method_index is not None and (isinstance(self.method_index, bool) or self.method_index < 0):
            raise SettingsError(f"method_index must be at least 0, got {self.method_index!r}")

    def stored(self) -> dict[str, Any]:
        """Plain values, for the run's settings."""
        return asdict(self)
