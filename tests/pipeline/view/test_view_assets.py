"""The packaged page of `heatlas view` is the one that its sources make."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
from heatlas.pipeline.view.app import ASSETS, FILES

from ...support.checkout import ROOT

PAGE = ROOT / "pipeline" / "view" / "page"
pytestmark = pytest.mark.skipif(not PAGE.is_dir(), reason="the sources of the page are only in the repository")


def digest_of(page: Path) -> str:
    """As `vite.config.ts` writes it into the page."""
    files = sorted(["index.html", "package-lock.json", *(f"src/{path.name}" for path in (page / "src").iterdir())])
    digest = hashlib.sha256()
    for name in files:
        digest.update(f"{name}\0".encode() + (page / name).read_bytes() + b"\0")
    return digest.hexdigest()


def test_the_page_is_built_from_its_sources() -> None:
    html = (ASSETS / "index.html").read_text()
    written = re.search(r'<meta name="sources" content="([0-9a-f]{64})">', html)
    assert written is not None
    assert written[1] == digest_of(PAGE), "the sources have changed: run `make view-page` and commit what it writes"


def test_the_server_knows_every_file_that_was_built_and_no_other() -> None:
    assert {path for path, _ in FILES.values()} == {path.name for path in ASSETS.iterdir()}


def test_the_lock_names_no_registry() -> None:
    packages = json.loads((PAGE / "package-lock.json").read_text())["packages"]
    assert len(packages) > 2
    assert all("resolved" not in facts for facts in packages.values())
    assert all("integrity" in facts for name, facts in packages.items() if name)
