"""Every command of `docs/data.md` lists the samples that it says, over data of the names that the page uses."""

from __future__ import annotations

import pathlib
import shlex
import sys
from collections.abc import Iterator

import pytest
from heatlas.pipeline.cli.app import build_app
from heatlas.pipeline.cli.settings_flags import given_settings
from heatlas.pipeline.run_samples import chosen_samples, shards_of, stored_extra
from heatlas.pipeline.settings.load import load_settings
from heatlas.pipeline.settings.run import Settings
from heatlas.pipeline.sources.listing.registry import SOURCES

from ..support import data_sets
from ..support.checkout import ROOT
from ..support.tiny_run import draw_all, importable_factory

PAGE = (ROOT / "docs" / "data.md").read_text()
COMMANDS = [line.strip() for line in PAGE.splitlines() if line.startswith("    heatlas explain ")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    pytest.importorskip("datasets")
    with importable_factory(tmp_path_factory.mktemp("page"), "") as folder:
        (folder / "mydata.py").write_text(data_sets.FACTORY)
        draw_all(folder / "photos", 4)
        rows = [
            f"photos/ant/{number:03d}.png,{number},{site},{2020 + number}"
            for number, site in ((0, "south"), (3, "north"))
        ]
        (folder / "labels.csv").write_text("\n".join(["uri,label,site,year", *rows]) + "\n")
        (folder / "other.jsonl").write_text('{"path": "photos/ant/000.png", "class": "ant"}\n')
        (folder / "wanted.txt").write_text("photos/ant/003.png\n")
        data_sets.write_tars(folder / "tars", [2, 1])
        data_sets.write_parquet(folder / "hub" / "data" / "train-0.parquet", range(3))
        (folder / "hub" / "README.md").write_text("a hub's folder")
        data_sets.write_hf(folder / "saved", 3)
        data_sets.write_coco(folder / "coco", 3)
        data_sets.write_voc(folder / "voc", 3)
        yield folder
        sys.modules.pop("mydata", None)


def settings_of(command: str) -> Settings:
    """As the command line makes them."""
    words = shlex.split(command)[1:]
    _, bound, _ = build_app().parse_args(words, exit_on_error=False, print_error=False)
    return load_settings(given_settings(dict(bound.arguments)))


def test_there_is_a_block_for_every_source():
    kinds = {command.split("--data ")[1].split()[0].strip("'").partition(":")[0] for command in COMMANDS}
    assert len(COMMANDS) >= 15
    assert set(SOURCES) - kinds <= {"folder", "manifest", "object"}, "which need no prefix"
    for name in SOURCES.keys() - {"object"}:  # which only Python callers have
        assert f"| `{name}:` |" in PAGE


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_finds_its_samples(command: str, place: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(place)
    settings = settings_of(command)
    result = chosen_samples(settings, None)
    assert len(result.listing) > 0
    assert sum(map(len, shards_of(result, settings.shard_size))) == len(result.listing)
    names = [name for name, _ in stored_extra(result)]
    if settings.columns.extra == ("all", "year=taken"):
        assert names == ["site", "taken"]
    if settings.where or settings.ids:
        assert len(result.listing) < 3
