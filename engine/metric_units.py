"""Units of metrics that whoever adds metrics up must know, for code that does not wait for torch."""

from __future__ import annotations

CLASS_INDEX = "class index"
"""Of a metric whose values name classes, so that a mean over images says nothing."""
