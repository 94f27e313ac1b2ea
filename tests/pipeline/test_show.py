"""`heatlas show` and `heatlas status` on a small store whose images exist."""

from __future__ import annotations

import json
import pathlib
import shutil
from dataclasses import asdict, replace

import heatlas
import numpy as np
import pytest
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.pictures.captioned import draw_captioned
from heatlas.pipeline.pictures.overlay import GAP, beside, colour, draw_overlay, file_name
from heatlas.pipeline.pictures.show import show_overlays
from heatlas.pipeline.pictures.stored_images import stored_preprocess
from heatlas.pipeline.shards import plan_shards
from heatlas.pipeline.store.committed_shards import row_totals
from heatlas.pipeline.store.parquet_sink import ParquetSink
from heatlas.pipeline.store.run_file import claim_run
from heatlas.pipeline.store.schema import StoreLayout
from heatlas.pipeline.store.status import run_status
from heatlas.pipeline.store.success_file import write_success
from heatlas.workers.images.preprocess import Preprocess
from heatlas.workers.samples import Row, Sample
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

PREPROCESS = Preprocess(size=(16, 24), resize="squash")
LAYOUT = StoreLayout((16, 24), metrics=("ebpg",), map_size=8, metadata={"class_names": ["ant", "bee"]})
IDS = ["a", "b", "c/d e.png", "../../evil", "gone", "text\n\x1b[2J"]


def row(folder: pathlib.Path, number: int, identity: str) -> Row:
    path = folder / f"{number}.png"
    Image.new("RGB", (30, 20), (200, 10, number)).save(path)
    map_ = np.zeros((16, 24), np.float32)
    map_[:, 12:] = 1.0
    sample = Sample(identity, str(path), label=1)
    if identity.startswith("text"):
        return Row(sample, "decode_error", "not an image")
    return Row(sample, "ok", None, 20, 30, 0, 0, 0.75, 2.0, map_, {"ebpg": 0.5}, (3,), 5, 0.1, "cpu")


@pytest.fixture
def store(tmp_path: pathlib.Path) -> pathlib.Path:
    """Three shards of two rows; the image of `gone` has vanished since."""
    out = tmp_path / "out"
    plan = {"samples": len(IDS), "shards": 3, "digest": "d"}
    claim_run(str(out), {"plan": plan, "preprocess": asdict(PREPROCESS)}, {"seed": 0})
    rows = [row(tmp_path, number, identity) for number, identity in enumerate(IDS)]
    for shard in plan_shards(len(IDS), 2):
        assert ParquetSink(str(out), LAYOUT).commit(shard, rows[shard.start : shard.stop])
    (tmp_path / "4.png").unlink()
    return out


def pictures(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(folder.iterdir())


def pixels(path: pathlib.Path | str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def test_colours_run_from_dark_to_bright():
    steps = colour(np.linspace(0, 1, 256)[None]).astype(float) @ [0.2126, 0.7152, 0.0722]
    assert steps[0, 0] < 2
    assert steps[0, -1] > 240
    assert (np.diff(steps[0]) > -0.5).all(), "perceptually uniform: brightness rises with the value"


def test_overlay_is_bright_where_the_map_is():
    map_ = np.zeros((4, 6), np.float32)
    map_[:, 3:] = 1
    shown = np.asarray(draw_overlay(Image.new("RGB", (60, 40), (0, 0, 255)), map_)).astype(int)
    assert shown.shape == (40, 60, 3)
    assert shown[:, 50:].sum() > 3 * shown[:, :10].sum()


def test_picture_has_the_plain_image_beside_the_overlay():
    image = Image.new("RGB", (24, 16), (1, 2, 3))
    picture = beside(image, np.ones((8, 12), np.float32))
    assert picture.size == (2 * 24 + GAP, 16)
    assert picture.getpixel((23, 15)) == (1, 2, 3)
    assert picture.getpixel((24 + GAP, 0)) != (1, 2, 3)


@given(st.text())
def test_file_names_stay_in_their_directory(identity: str):
    name = file_name(identity)
    assert pathlib.PurePosixPath(name).name == pathlib.PureWindowsPath(name).name == name
    assert not name.startswith(".")
    assert name.isascii()
    assert len(name) < 120


def test_file_names_differ_where_ids_do():
    assert len({file_name(identity) for identity in ("a/b", "a_b", "a b", "A/B", "a.b", "a/b.png")}) == 6
    assert file_name("n01/cat 1.JPEG").startswith("n01_cat_1-")


def test_show_draws_every_row_with_a_map(store: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    assert main(["show", str(store)]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert len(lines) == 5
    assert f"{store}/_show/a-" in lines[1]
    assert lines[1].endswith("ant (0.75), label bee")
    assert "gone: no picture, read_error: cannot read" in out
    result = pictures(store / "_show")
    assert len(result) == 4
    for path in result:
        height, width, _ = pixels(path).shape
        assert width == 2 * 224 + GAP
        assert height > round(224 * 16 / 24) + 30, "caption and scale have room below"
    assert sorted(path.name for path in store.parent.glob("*evil*")) == []


def test_show_by_id_says_what_is_missing_and_goes_on(
    store: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
):
    target = tmp_path / "pictures"
    assert main(["show", str(store), "--id", "nope", "text\n\x1b[2J", "b", "--out", str(target)]) == 0
    nope, text, b = capsys.readouterr().out.splitlines()
    assert nope == f"nope: not in {store}"
    assert text == r"'text\n\x1b[2J': no picture, decode_error: not an image"
    assert b.startswith(f"{target}/b-")
    assert len(pictures(target)) == 1
    assert not (store / "_show").exists()


def test_show_without_anything_to_draw_fails(store: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    assert main(["show", str(store), "--id", "nope"]) == 1
    assert main(["show", str(store), "--limit", "0"]) == 2
    assert main(["show", str(store.parent / "nowhere")]) == 2
    assert main(["show", ""]) == main(["status", ""]) == 2
    err = capsys.readouterr().err
    assert "is not a heatlas store" in err
    assert err.count("an empty path names no place") == 2


@pytest.mark.parametrize(
    ("more", "code", "text"),
    [
        (["--id"], 2, "--id names no sample; give at least one id"),
        (["--out", ""], 2, "an empty path names no place"),
        (["--out", "nosuch://x"], 2, "Protocol not known: nosuch; give a local path"),
        (["--limit", "-1"], 2, "--limit must be at least 1 picture, got -1"),
        (["extra"], 2, "extra"),
        (["--out", __file__, "--id", "a"], 1, f"cannot write {__file__}/a-"),
    ],
)
def test_show_refuses_what_cannot_work(
    more: list[str], code: int, text: str, store: pathlib.Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["show", str(store), *more]) == code
    out, err = capsys.readouterr()
    assert err.startswith("heatlas: error: ")
    assert text in err
    assert out == ""
    assert not (store / "_show").exists()


def test_an_id_is_no_sql(store: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    assert main(["show", str(store), "--id", "x' OR 'a' = 'a", ""]) == 1
    assert capsys.readouterr().out.splitlines() == [f"x' OR 'a' = 'a: not in {store}", f"'': not in {store}"]


@pytest.mark.parametrize(
    ("limit", "expected"), [(1, ["../../evil"]), (2, ["../../evil", "c/d e.png"]), (5, sorted(IDS[:-1]))]
)
def test_limit_spreads_over_the_ids(store: pathlib.Path, limit: int, expected: list[str]):
    lines = [line for _, line in show_overlays(str(store), limit=limit)]
    assert len(lines) == limit
    names = [file_name(identity) for identity in expected if identity != "gone"]
    assert all(any(name in line for line in lines) for name in names)


def test_maps_are_drawn_from_numbers_where_there_are_no_pngs(store: pathlib.Path, tmp_path: pathlib.Path):
    [(_, from_png)] = show_overlays(str(store), ids=["a"])
    for part in (store / "maps").iterdir():
        part.unlink()
    layout = replace(LAYOUT, with_png=False, map_size="input")
    rows = [row(tmp_path, number, identity) for number, identity in enumerate(IDS[:2])]
    assert ParquetSink(str(store), layout).commit(plan_shards(2, 2)[0], rows)
    [(_, from_numbers)] = show_overlays(str(store), ids=["a"], to=str(tmp_path / "again"))
    before, after = (pixels(line.split("  ")[0]) for line in (from_png, from_numbers))
    assert np.abs(before - after).max() <= 1


def test_preprocess_survives_the_run_file(store: pathlib.Path):
    run = json.loads((store / "_run.json").read_text())
    assert stored_preprocess(run) == PREPROCESS


def test_status_of_a_complete_run(store: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    write_success(str(store), row_totals(str(store)))
    assert main(["status", str(store)]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{store}: complete (3 of 3 shards)\n")
    assert "  rows      6 of 6 samples\n" in text
    assert "  status    ok 5, decode_error 1\n" in text
    assert r"1 x decode_error: not an image (such as 'text\n\x1b[2J')" in text
    assert "  ebpg      0.5  (mean of 5)\n" in text
    assert "resume" not in text


def test_status_of_an_unfinished_run(store: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    (store / "maps" / "part-000001.parquet").unlink()
    assert main(["status", str(store)]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{store}: 1 shard undone (2 of 3 shards)\n")
    assert "  undone    1\n" in text
    assert "run the same `heatlas explain` command again" in text
    assert main(["status", str(store), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == run_status(str(store)).as_json() == heatlas.open(store).status().as_json()
    assert (result["complete"], result["undone"], result["rows"], result["success"]) == (False, [1], 4, False)


def test_status_before_the_first_shard(store: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    shutil.rmtree(store / "maps")
    assert main(["status", str(store)]) == 0
    assert "  rows      0 of 6 samples\n" in capsys.readouterr().out


def test_a_picture_explains_itself() -> None:
    """Outline on the border of the strongest region, scale from dark to bright, and a caption that changes the picture."""
    map_ = np.zeros((10, 10), np.float32)
    map_[:, 8:] = 1.0
    image = Image.new("RGB", (300, 300), (90, 90, 90))
    picture = np.asarray(draw_captioned(image, map_, "ant (0.75), label bee")).astype(int)
    overlay = picture[:300, 300 + GAP :]
    white = (overlay == 255).all(axis=2)
    columns = np.flatnonzero(white[150])
    assert columns.size, "an outline is drawn"
    assert abs(columns.min() - 240) < 20, "where the strongest fifth begins"
    assert not white[:, :200].any()
    bar = picture[300 + 6 + 17 + 4 + 3, 18 : 18 + 90]
    assert bar[:3].sum() < bar[-3:].sum()
    other = np.asarray(draw_captioned(image, map_, "bee (0.75), label ant")).astype(int)
    assert (picture[:300] == other[:300]).all()
    assert (picture[300:] != other[300:]).any()


def test_a_long_caption_is_wrapped_and_a_small_image_enlarged() -> None:
    picture = draw_captioned(Image.new("RGB", (24, 16)), np.ones((8, 12), np.float32), "word " * 200)
    assert picture.width == 2 * 224 + GAP
    assert picture.height < 149 + 12 + 17 * 5 + 2
