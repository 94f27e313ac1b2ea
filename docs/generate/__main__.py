"""Make documentation pages from the code: `python -m docs.generate [NAME ...]`; without names, all of them."""

from __future__ import annotations

import argparse

from . import (
    api_page,
    bad_images_page,
    bad_inputs_page,
    checks_page,
    layers_page,
    methods_page,
    metrics_page,
    story_notebook,
)

PAGES = {
    "api": api_page.main, "layers": layers_page.main, "methods": methods_page.main, "metrics": metrics_page.main, "bad_images": bad_images_page.main,
    "bad_inputs": bad_inputs_page.main, "checks": checks_page.main,
    "story": story_notebook.main,
}  # fmt: skip
"""The cheap ones first; `story` runs a notebook, which takes minutes."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m docs.generate", description=(__doc__ or "").split(":")[0])
    parser.add_argument("names", nargs="*", choices=[*PAGES, []], metavar="NAME", help=f"of {', '.join(PAGES)}")
    for name in parser.parse_args().names or PAGES:
        PAGES[name]()


if __name__ == "__main__":
    main()
