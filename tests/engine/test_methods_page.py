"""docs/methods.md and the page of every method are what the registry says today."""

from __future__ import annotations

import re

from heatlas.engine.methods.registry import built_in, find_method

from ..support.checkout import ROOT, checkout_module


def test_the_page_is_fresh_and_describes_every_method() -> None:
    made = checkout_module("docs.generate.methods_page")

    text = (ROOT / "docs" / "methods.md").read_text()
    assert text == made.page(), "run `python -m docs.generate methods`"
    assert {path.stem for path in (ROOT / "docs" / "methods").glob("*.md")} == set(built_in())
    for name in built_in():
        assert f"(methods/{name}.md)" in text
        page = (ROOT / "docs" / "methods" / f"{name}.md").read_text()
        assert page == made.method_page(find_method(name)), "run `python -m docs.generate methods`"
        assert find_method(name).source in page
        for setting in find_method(name).settings.__dataclass_fields__:
            assert setting == "seed" or f"--{name.replace('_', '-')}.{setting.replace('_', '-')}`" in page


def test_links_of_a_method_s_page_lead_somewhere() -> None:
    for path in (ROOT / "docs" / "methods").glob("*.md"):
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
            assert link.startswith("http") or (path.parent / link).exists(), f"{path.name} links to {link}"


def test_what_is_written_by_hand_of_a_method_is_on_its_page() -> None:
    page = (ROOT / "docs" / "methods" / "bee_select.md").read_text()
    assert "**A metric that chose a map cannot evaluate it**" in page
    assert "<!-- mirror" not in (ROOT / "docs" / "methods" / "ucag.md").read_text()
