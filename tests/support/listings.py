"""The listing of a data set alone, as many tests want it."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pytest
from heatlas.errors import UsageError
from heatlas.pipeline.sources import list_source
from heatlas.pipeline.sources.listing.options import SourceOptions


def list_samples(data: str, columns: Mapping[str, str] | None = None) -> pa.Table:
    """All samples at `data`, without the data set's own columns."""
    return list_source(data, SourceOptions(columns=dict(columns or {}))).listing


def refusal(data: object, options: SourceOptions | None = None) -> str:
    """What is said of a data set that is refused."""
    with pytest.raises(UsageError) as caught:
        list_source(str(data), options or SourceOptions())
    return str(caught.value)
