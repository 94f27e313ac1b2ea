"""A folder of images, its store without added metrics, and one with all cheap ones."""

from __future__ import annotations

import json
import pathlib
import shutil

import pytest

from ...support.evaluate_run import BAD, CHEAP, COUNT, DEAR, explain
from ...support.tiny_run import draw_all, importable_factory


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    """Images, one of them broken, with boxes for half of them; a run without metrics and one with all of them."""
    with importable_factory(tmp_path_factory.mktemp("evaluate")) as folder:
        draw_all(folder / "images", COUNT)
        (folder / "images" / BAD).write_text("not yet uploaded")
        names = sorted(path.relative_to(folder) for path in (folder / "images").rglob("*.png"))
        lines = [{"id": str(name.relative_to("images")), "uri": str(folder / name), "label": number % 3,
                  **({"boxes": [[4 + number, 6, 16 + number, 18]]} if number % 2 else {})} for number, name in enumerate(names)]  # fmt: skip
        (folder / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert explain(folder, folder / "bare", "--metrics", "none") == 0
        assert explain(folder, folder / "whole", "--metrics", *CHEAP, *DEAR) == 0
        yield folder


@pytest.fixture
def bare(folder: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A store of one's own to add metrics to."""
    shutil.copytree(folder / "bare", tmp_path / "out")
    return tmp_path / "out"
