"""One HTML file that fetches nothing and runs nothing but what is in it.

Templates escape every value. The policy in the page's head names the digests of its one style sheet and its one script, so that a
text that slipped through the escaping could still not run, load or send anything; there are no `style` attributes for the same reason.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..pictures.overlay import INFERNO
from .texts import amount, between, figure, named, percent, percent_between, plain

HERE = Path(__file__).parent
COLOURS = tuple(f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in INFERNO)
"""Of maps, from 0 to 1, for the colour bar."""


def render(folder: Path, template: str, **values: Any) -> bytes:
    """The page as UTF-8.

    Args:
        folder: Where the template lies; it extends `shell.html`, which lies here.
        template: Its file name.
        **values: What it shows; plain texts are escaped.
    """
    style, script = (HERE / "style.css").read_text("utf-8"), (HERE / "page.js").read_text("utf-8")
    page = environment(folder).get_template(template).render(
        style=Markup(style), script=Markup(script), policy=policy(style, script), colours=COLOURS, **values
    )  # fmt: skip
    return page.encode("utf-8", "replace")


@functools.lru_cache(maxsize=8)
def environment(folder: Path) -> Environment:
    """Jinja with escaping on, and an error for whatever a template names that is not there."""
    jinja = Environment(
        loader=FileSystemLoader([folder, HERE]), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )  # fmt: skip
    filters = (named, plain, figure, percent, amount, between, percent_between)
    jinja.filters |= {function.__name__: function for function in filters}
    return jinja


def policy(style: str, script: str) -> str:
    """The Content-Security-Policy: pictures from the page itself, this style, this script, and nothing else."""
    return (
        f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
