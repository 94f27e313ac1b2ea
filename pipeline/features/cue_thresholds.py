"""From where on a cue counts; apart from the search for cues, which waits for torch."""

from __future__ import annotations

from collections.abc import Mapping

LEAST_TRANSFER: Mapping[str, float] = {"pixels": 0.25, "colour": 0.25, "spectrum": 0.15, "patch": 0.15}
"""Rise of the class's confidence in other classes' images from which on a cue of each kind counts. Set on two marks, clean data and one network, see
bench/accuracy/planted.py: of what was not planted there, pixels and colours gave at most 0.21, the others 0.07."""
