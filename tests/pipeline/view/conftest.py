"""A store and a client of its server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from heatlas.pipeline.view.serve import start_view

from ...support.reported_store import write_reported
from ...support.view_client import Client


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("view")
    return write_reported(folder / "out", folder / "images", 60, both=True)


@pytest.fixture(scope="module")
def client(store: Path) -> Iterator[Client]:
    server = start_view(str(store))
    yield Client(server)
    server.stop()
