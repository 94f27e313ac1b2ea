"""One folder is one data set however it is written: with `..`, through a link, as a pattern; and a store is never among its images."""

from __future__ import annotations

import os

import pyarrow as pa
import pytest
from heatlas.errors import DataError
from heatlas.pipeline.explain.places import refuse_out_among_images, refuse_out_behind_links
from heatlas.pipeline.settings.load import load_settings
from heatlas.pipeline.sources.listing.check import listing_digest
from heatlas.pipeline.sources.listing.folder import list_folder
from heatlas.pipeline.sources.listing.manifest import list_manifest
from heatlas.pipeline.sources.listing.options import SourceOptions
from heatlas.pipeline.sources.listing.table import make_listing
from heatlas.pipeline.store.compare_listings import as_spelt, listing_changes
from PIL import Image


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with images in `d/cat`, a link `link` to `d`, and one beside the folder to where all of that lies."""
    (tmp_path / "work" / "d" / "cat").mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / "work" / "d" / "cat" / f"{number}.png")
    (tmp_path / "work" / "link").symlink_to("d")
    (tmp_path / "way").symlink_to(tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


SPELLINGS = ["./d", "d/", "../work/d", "d/../d", "link", "link/", "../way/d", "../way/link", "{}/d", "file://{}/link"]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_folder_is_the_same_data_however_it_is_written(here, spelling):
    plain = list_folder("d", SourceOptions()).listing
    again = list_folder(spelling.format(here), SourceOptions()).listing
    assert listing_digest(again) == listing_digest(plain)
    assert again["uri"][0].as_py() == f"{os.path.realpath(here)}/d/cat/0.png"


@pytest.mark.parametrize(
    "spelling", ["../work/d/*/*.png", "link/*/*.png", "{}/link/cat/[0-9].png", "../way/d/cat/{{0,1,2}}.png"]
)
def test_so_is_a_pattern(here, spelling):
    plain = list_folder(
        spelling.format(here).replace("../work/", "").replace("link/", "d/").replace("../way/", ""), SourceOptions()
    )
    assert listing_digest(list_folder(spelling.format(here), SourceOptions()).listing) == listing_digest(plain.listing)


def test_a_manifest_that_is_a_link_speaks_of_the_folder_in_which_the_link_lies(here):
    (here / "elsewhere").mkdir()
    (here / "elsewhere" / "list.csv").write_text("uri\ncat/0.png\n")
    (here / "d" / "list.csv").symlink_to(here / "elsewhere" / "list.csv")
    listing = list_manifest("link/list.csv", SourceOptions()).listing
    assert listing["uri"].to_pylist() == [f"{os.path.realpath(here)}/d/cat/0.png"]


def listing_of(*uris: str) -> pa.Table:
    return make_listing({"id": pa.array([str(n) for n in range(len(uris))]), "uri": pa.array(uris)}, "test")


def test_a_stored_run_keeps_its_own_spelling_and_notices_other_files(here):
    stored = listing_of(f"{here}/link/cat/0.png", f"{here}/../work/d/cat/1.png", "s3://bucket/x.png")
    same = listing_of(f"{here}/d/cat/0.png", f"{here}/d/cat/1.png", "s3://bucket/x.png")
    assert not listing_changes(stored, as_spelt(stored, same)).any
    other = listing_of(f"{here}/d/cat/2.png", f"{here}/d/cat/1.png", "s3://bucket/y.png")
    changed = listing_changes(stored, as_spelt(stored, other)).changed
    assert [entry[0] for entry in changed] == ["0", "2"]


@pytest.mark.parametrize("data", ["d", "link", "../way/link", "link/**/*.png", "../way/link/*/*/*/*.png"])
@pytest.mark.parametrize("out", ["d/cat/o", "link/cat/o", "d/../link/cat/o", "../way/d/cat/o"])
def test_a_store_among_the_images_is_refused(here, data, out):
    settings = load_settings({"model": "resnet18", "data": data, "out": out})
    with pytest.raises(DataError, match="lies in the image folder"):
        refuse_out_among_images(settings)


def test_so_is_one_to_which_a_link_in_the_image_folder_leads(here):
    (here / "more").mkdir()
    Image.new("RGB", (4, 4)).save(here / "more" / "x.png")
    (here / "d" / "dog").symlink_to(here / "more")
    uris = list_folder("d", SourceOptions()).listing["uri"].to_pylist()
    settings = load_settings({"model": "resnet18", "data": "d", "out": "more/o"})
    refuse_out_among_images(settings)
    with pytest.raises(DataError, match=r"more/o lies in .*/d/dog, a folder of --data d; choose a place outside"):
        refuse_out_behind_links(settings, uris)
    refuse_out_behind_links(load_settings({"model": "resnet18", "data": "d", "out": "o"}), uris)
