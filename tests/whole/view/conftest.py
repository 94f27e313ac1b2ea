"""A store of 120 images, its server, and a browser's tab."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from heatlas.pipeline.view.serve import ViewServer, start_view

from ...support.browser import Page, browser_page
from ...support.reported_store import write_reported
from ...support.view_page import opened


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("view")
    return write_reported(folder / "out", folder / "images", 120, both=True)


@pytest.fixture(scope="module")
def server(store: Path) -> Iterator[ViewServer]:
    server = start_view(str(store))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser_page(tmp_path_factory.mktemp("browser")) as page:
        page.resize(1280, 800)
        yield page


@pytest.fixture
def page(tab: Page, server: ViewServer) -> Page:
    tab.resize(1280, 800)
    return opened(tab, server)


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    return write_reported(tmp_path / "out", tmp_path / "images", 60)
