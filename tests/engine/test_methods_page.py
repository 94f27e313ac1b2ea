"""docs/methods.md is what the registry says today."""

from __future__ import annotations

from heatlas.engine.methods.registry import built_in, find_method

from ..support.checkout import ROOT, checkout_module


def test_the_page_is_fresh_and_describes_every_method() -> None:
    made = checkout_module("docs.generate.methods_page")

    text = (ROOT / "docs" / "methods.md").read_text()
    assert text == made.page(), "run `python -m docs.generate methods`"
    for name in built_in():
        assert f"\n## {name}\n" in text
        for setting in find_method(name).settings.__dataclass_fields__:
            assert setting == "seed" or f"--{name.replace('_', '-')}.{setting.replace('_', '-')}`" in text
