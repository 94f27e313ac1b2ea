"""docs/methods.md is what the registry says today."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from heatlas.engine.methods.registry import BUILT_IN, find_method

ROOT = Path(__file__).parent.parent.parent


def test_the_page_is_fresh_and_describes_every_method() -> None:
    spec = importlib.util.spec_from_file_location("methods_page", ROOT / "docs" / "generate" / "methods_page.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)

    text = (ROOT / "docs" / "methods.md").read_text()
    assert text == made.page(), "run `python -m docs.generate methods`"
    for name, *_ in BUILT_IN:
        assert f"\n## {name}\n" in text
        for setting in find_method(name).settings.__dataclass_fields__:
            assert setting == "seed" or f"--{name.replace('_', '-')}.{setting.replace('_', '-')}`" in text
