"""Two halves of a store by two models: every way to it is refused before the first image, and what is the same model goes on."""

from __future__ import annotations

import contextlib
import importlib
import json
import pathlib
import sys

import heatlas
import pytest
import torch
from heatlas.pipeline.cli.app import main
from safetensors.torch import save_file

import tests.support.tiny_run as tiny


@pytest.fixture
def place(tmp_path: pathlib.Path):
    tiny.draw_all(tmp_path / "images", 6)
    with tiny.importable_factory(tmp_path):
        yield tmp_path


def explain(place: pathlib.Path, *more: str) -> int:
    arguments = tiny.command(place / "images", place / "out", *more)
    if "--model" in more:
        del arguments[1:3]
    return main(arguments)


def rewrite(place: pathlib.Path, source: str) -> None:
    """Edit the factory as a user does between two commands."""
    (place / "tiny_net.py").write_text(source)
    sys.modules.pop("tiny_net", None)
    importlib.invalidate_caches()


def lose_a_shard(place: pathlib.Path) -> None:
    """As a driver that was killed leaves it."""
    (place / "out/maps/part-000001.parquet").unlink()
    (place / "out/_SUCCESS").unlink()


def said_by(place: pathlib.Path, capsys: pytest.CaptureFixture[str], code: int, *more: str) -> str:
    capsys.readouterr()
    assert explain(place, *more) == code
    return capsys.readouterr().err


def test_an_edited_factory_is_refused_and_a_comment_is_told(place: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    assert explain(place) == 0
    lose_a_shard(place)
    rewrite(place, tiny.FACTORY.replace("nn.AdaptiveAvgPool2d", "nn.AdaptiveMaxPool2d"))  # the same weights
    said = said_by(place, capsys, 2)
    assert "model.logits: the same images give other logits, by" in said
    assert "model.digest" not in said
    rewrite(place, tiny.FACTORY + "# a comment\n")
    assert "note: resumed, though another than before is model.source:" in said_by(place, capsys, 0)
    assert main(["verify", str(place / "out")]) == 0


def test_class_names_in_another_order_are_refused(place: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    named = tiny.FACTORY.replace("    return net", "    net.class_names = ['ant', 'bee', 'cat']\n    return net")
    rewrite(place, named)
    assert explain(place) == 0
    lose_a_shard(place)
    for names in ("['bee', 'ant', 'cat']", "['ant', 'bee', 'wasp']"):
        rewrite(place, named.replace("['ant', 'bee', 'cat']", names))
        assert "classes.names" in said_by(place, capsys, 2, "--allow-unlabelled")


def test_a_worker_whose_model_came_out_otherwise_explains_nothing(
    place: pathlib.Path, capsys: pytest.CaptureFixture[str]
):
    """Twice the same while the run is prepared, then another one: what a head without a seed is in each process."""
    third = "\n_calls = []\n" + tiny.FACTORY.replace(
        "torch.manual_seed(0)", "_calls.append(1)\n    torch.manual_seed(len(_calls) > 2)"
    )
    rewrite(place, third)
    assert "this worker's model is not that of the run (model.digest: stored" in said_by(place, capsys, 1)
    assert not list((place / "out").glob("maps/*.parquet"))


def test_the_same_weights_under_another_path_are_the_same_run(place: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    import tiny_net  # pyright: ignore[reportMissingImports]

    for name in ("first.safetensors", "elsewhere/second.safetensors"):
        (place / name).parent.mkdir(exist_ok=True)
        save_file(tiny_net.model().state_dict(), place / name)
    with contextlib.chdir(place):
        assert explain(place, "--model", "tiny_net:model@first.safetensors") == 0
        lose_a_shard(place)
        assert explain(place, "--model", "tiny_net:model@elsewhere/second.safetensors") == 0
    assert main(["verify", str(place / "out")]) == 0
    assert "first.safetensors" not in json.dumps(heatlas.open(place / "out").metadata)
    changed = {name: tensor + 1 for name, tensor in tiny_net.model().state_dict().items()}
    save_file(changed, place / "first.safetensors")
    torch.manual_seed(0)
    lose_a_shard(place)
    with contextlib.chdir(place):
        assert "model.digest" in said_by(place, capsys, 2, "--model", "tiny_net:model@first.safetensors")
