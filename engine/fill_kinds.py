"""What may replace hidden pixels, by name. No torch here: a command line reads them, too."""

from __future__ import annotations

from typing import Literal

Baseline = Literal["zero", "mean", "blur"]


BASELINES = ("zero", "mean", "blur")
