"""docs/story.ipynb runs, tells what it should, and stands there with outputs."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from ..support.checkout import ROOT

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")


NOTEBOOK = ROOT / "docs" / "story.ipynb"
LARGEST = 500_000


def said(notebook) -> str:
    """All texts that its cells printed or showed."""
    result = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            result += [output.get("text", ""), output.get("data", {}).get("text/plain", "")]
    return "\n".join(result)


def check(notebook) -> None:
    """What the story says, on any number of images."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs for cell in code)
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]
    [classes] = [entry.outputs[-1].data["text/plain"] for entry in code if "GROUP BY name" in entry.source]
    assert classes.splitlines()[1].split()[1] == "octagon"
    text = said(notebook)
    stickers, queued = map(
        int, re.search(r"shortcut: (\d+) of (\d+) images in the queue carry the sticker", text).groups()
    )
    assert stickers == queued >= 2
    assert "mean map of the first cluster, octagon" in text
    assert re.search(r"look-again.csv: \d+ rows", text)
    pictures = [output for cell in code for output in cell.outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 3


def test_it_runs_on_fewer_images_and_tells_the_same(tmp_path):
    """In a process of its own, because the client of the kernel leaves sockets to the garbage collector."""
    (tmp_path / "here").mkdir()
    arguments = ["--images", "32", "--to", str(tmp_path / "story.ipynb"), "--folder", str(tmp_path / "here")]
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate" / "story_notebook.py"), *arguments], capture_output=True, text=True, timeout=280,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    notebook = nbformat.read(tmp_path / "story.ipynb", as_version=4)
    check(notebook)
    assert (tmp_path / "here" / "story-out" / "store" / "report.html").stat().st_size > 100_000
    stored = nbformat.read(NOTEBOOK, as_version=4)
    assert [cell.source for cell in stored.cells] == [cell.source for cell in notebook.cells]


def test_it_stands_there_with_its_outputs_and_names_no_machine():
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text.encode()) < LARGEST
    assert not re.search(
        r"/tmp/|/home/|/root/|/work/|/Users/", re.sub(r'"image/\w+": "[^"]*"|base64,[^"\\]*', "", text)
    )
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    check(notebook)
