"""Data sets that grow, shrink and change under a store: appended exactly once, refused with numbers and an example, told apart by content."""

from __future__ import annotations

import itertools
import os
import pathlib

import heatlas
import pytest
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.storage import atomic_write
from heatlas.pipeline.store.content_digest import logical_digest
from heatlas.pipeline.store.plan_files import read_listing, read_plan
from heatlas.pipeline.store.run_file import read_run

import tests.support.tiny_run as tiny

PLAIN = ("--chance-maps", "0", "--metrics", "none")


@pytest.fixture
def place(tmp_path: pathlib.Path):
    for number in (0, 2, 4, 6):
        draw(tmp_path, number)
    with tiny.importable_factory(tmp_path):
        yield tmp_path


def draw(place: pathlib.Path, number: int, seed: int | None = None) -> pathlib.Path:
    path = place / "images" / tiny.CLASSES[number % 3] / f"{number:03d}.png"
    tiny.draw(path, number if seed is None else seed)
    return path


def explain(place: pathlib.Path, *more: str, out: str = "out") -> int:
    size = () if "--shard-size" in more else ("--shard-size", "2")
    return main(tiny.command(place / "images", place / out, *PLAIN, *size, *more))


def refused(place: pathlib.Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    capsys.readouterr()
    assert explain(place, *more) == 2
    return capsys.readouterr().err


def whole(place: pathlib.Path, out: str = "out") -> bool:
    return main(["verify", str(place / out)]) == 0


def test_new_images_are_appended_once(place: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    assert explain(place) == 0
    before = {path.name: path.read_bytes() for path in (place / "out/maps").iterdir()}
    for number in (1, 3, 5):
        draw(place, number)
    said = refused(place, capsys)
    assert "  listing: 3 samples new, such as 'ant/003.png'" in said
    assert "(--append explains new ones beside those of the run)" in said
    assert explain(place, "--append") == 0
    assert "note: 3 new samples in 2 shards appended" in capsys.readouterr().err
    assert {path.name for path in (place / "out/maps").iterdir()} == {f"part-{index:06d}.parquet" for index in range(4)}
    assert all((place / "out/maps" / name).read_bytes() == data for name, data in before.items())
    assert whole(place)
    assert explain(place) == 0  # the same command again, with and without the flag
    assert explain(place, "--append") == 0
    draw(place, 7)
    assert explain(place, "--append") == 0
    assert explain(place, out="fresh") == 0
    assert logical_digest(str(place / "out")) == logical_digest(str(place / "fresh"))
    plan = read_plan(str(place / "out"), read_run(str(place / "out")))
    listing = read_listing(str(place / "out"), plan)
    assert [part["samples"] for part in plan.parts] == [4, 3, 1]
    assert listing is not None
    stored = heatlas.open(place / "out").to_pandas(["id"])["id"].tolist()
    assert stored == listing["id"].to_pylist()
    assert main(["compact", str(place / "out")]) == 0
    draw(place, 8)
    assert explain(place, "--append") == 0
    assert main(["compact", str(place / "out")]) == 0
    assert whole(place)
    assert main(["status", str(place / "out")]) == 0
    assert "9 of 9 samples" in capsys.readouterr().out


class KilledError(BaseException):
    """What a SIGKILL is to the code that it meets."""


@pytest.mark.parametrize("after", [False, True], ids=["before the write", "behind the write"])
def test_an_append_killed_at_any_write_is_done_by_the_same_command(place: pathlib.Path, monkeypatch, after: bool):
    """Also with further images in between: the section that was committed stays, the new ones get one of their own."""
    assert explain(place) == 0
    draw(place, 1)
    draw(place, 3)
    real = atomic_write._link_if_absent
    for kill in itertools.count():
        calls = itertools.count()

        def write(path, data, calls=calls, kill=kill):
            mine = next(calls)
            if mine == kill and not after:
                raise KilledError
            first = real(path, data)
            if mine == kill:
                raise KilledError
            return first

        with monkeypatch.context() as patched:
            patched.setattr(atomic_write, "_link_if_absent", write)
            try:
                code = explain(place, "--append")
            except KilledError:
                draw(place, 9 + kill)
                assert main(["verify", str(place / "out")]) in (0, 1)
                continue
        assert code == 0
        break
    assert kill >= 3
    assert explain(place, "--append") == 0
    assert whole(place)
    assert explain(place, out="fresh") == 0
    assert logical_digest(str(place / "out")) == logical_digest(str(place / "fresh"))


def test_images_that_are_gone_keep_their_rows_and_are_named(place: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    assert explain(place) == 0
    (place / "images/ant/000.png").unlink()
    assert "listing: 1 sample gone, such as 'ant/000.png'" in refused(place, capsys)
    draw(place, 1)
    assert explain(place, "--append") == 0
    assert "note: 1 sample of the run listed no more, such as 'ant/000.png'; their rows stay" in capsys.readouterr().err
    assert len(heatlas.open(place / "out")) == 5
    assert whole(place)
    assert main(["verify", str(place / "out"), "--data"]) == 1
    assert "1 explained image cannot be read any more" in capsys.readouterr().out


def test_a_changed_label_is_refused_with_both_values(place: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    table = place / "labels.csv"
    lines = [f"{path.stem},{path},{number % 3}" for number, path in enumerate(sorted(place.glob("images/*/*.png")))]
    arguments = [*tiny.command(table, place / "out", *PLAIN), "--labels.base", "0"]
    table.write_text("\n".join(["id,uri,label", *lines]) + "\n")
    assert main(arguments) == 0
    table.write_text("\n".join(["id,uri,label", *lines[:-1], lines[-1][:-1] + "1"]) + "\n")
    for more in ([], ["--append"]):
        capsys.readouterr()
        assert main([*arguments, *more]) == 2
        said = capsys.readouterr().err
        assert "listing: 1 sample changed, such as '002': label was 0, is 1" in said
        assert "--append" not in said


def test_changed_pixels_are_found_by_their_hash(place: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    assert explain(place) == 0
    path = draw(place, 2, seed=77)
    said = refused(place, capsys)
    assert "1 image of 4 changed since explained, such as 'cat/002.png' (" in said
    assert main(["verify", str(place / "out"), "--data"]) == 1
    assert "maps/part-000001.parquet: 1 image of it changed since explained" in capsys.readouterr().out
    assert whole(place)  # the store itself is
    draw(place, 2)
    os.utime(path)  # another time and the same bytes
    assert explain(place) == 0
    assert main(["verify", str(place / "out"), "--data"]) == 0
    draw(place, 2, seed=77)
    assert main(["verify", str(place / "out"), "--data", "--delete-damaged"]) == 1
    assert explain(place) == 0
    assert main(["verify", str(place / "out"), "--data"]) == 0


def test_a_repaired_image_is_a_matter_of_retry_errors(place: pathlib.Path):
    """An error row names the bytes that were read, but other bytes in their place are what the user is asked for."""
    bad = place / "images/ant/000.png"
    bad.write_bytes(b"no image")
    assert explain(place) == 0
    rows = heatlas.open(place / "out").to_pandas(["id", "status", "source_size", "source_hash"]).set_index("id")
    assert rows.loc["ant/000.png", "status"] == "decode_error"
    assert rows.loc["ant/000.png", "source_size"] == len(b"no image")
    assert len(rows.loc["ant/000.png", "source_hash"]) == 64
    draw(place, 0)
    assert explain(place, "--retry-errors") == 0
    assert heatlas.open(place / "out").statuses() == {"ok": 4}
