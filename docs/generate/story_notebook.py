"""Runs docs/story.ipynb anew and stores its outputs in it: python docs/generate/story_notebook.py [--images 160]

The notebook's code is what stands in it; this only executes it, in a folder of its own, and checks what it may not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

NOTEBOOK = Path(__file__).parents[1] / "story.ipynb"
IMAGES = "HEATLAS_STORY_IMAGES"
LARGEST = 500_000
"""Bytes of the notebook with its outputs."""


def executed(images: int, folder: str | Path, timeout: int = 1800) -> nbformat.NotebookNode:
    """The notebook with the outputs of a run on so many images; the data and the store are left in `folder`."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with tempfile.TemporaryDirectory() as sockets:  # no port that others on the machine could reach
        how = Config({"ConnectionFileMixin": {"transport": "ipc", "ip": f"{sockets}/kernel"}})
        resources = {"metadata": {"path": str(folder)}}
        client = NotebookClient(notebook, timeout=timeout, kernel_name="python3", config=how, resources=resources)
        client.execute(env={**os.environ, IMAGES: str(images)})
    for cell in notebook.cells:  # times and machines are nobody's business, and would make every run a change
        cell.metadata.pop("execution", None)
    notebook.metadata.pop("widgets", None)
    return notebook


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=160)
    parser.add_argument("--to", type=Path, default=NOTEBOOK, help="where the notebook with its outputs goes")
    parser.add_argument("--folder", help="where data and store are left; by default nowhere")
    arguments = parser.parse_args()
    with contextlib.nullcontext(arguments.folder) if arguments.folder else tempfile.TemporaryDirectory() as folder:
        notebook = executed(arguments.images, folder)
    text = nbformat.writes(notebook) + "\n"
    if len(text.encode()) > LARGEST:
        raise SystemExit(
            f"the notebook would have {len(text.encode()):,} bytes, more than {LARGEST:,}; show less in it"
        )
    arguments.to.write_text(text, encoding="utf-8")
    print(f"{arguments.to}: {len(text.encode()):,} bytes")


if __name__ == "__main__":
    main()
