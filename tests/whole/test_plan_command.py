"""`heatlas plan`: its numbers against the run that follows, and every planted mistake found and named."""

from __future__ import annotations

import json
import pathlib

import heatlas
import numpy as np
import pytest
import torch
from heatlas.errors import SettingsError
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.plan import probe
from heatlas.pipeline.plan.place import NOWHERE
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset

from ..support.tiny_run import CLASSES, command, draw, draw_all, importable_factory

COUNT = 24
FACTORY = '''
import torch
from torch import nn


class Colours(nn.Module):
    """A CNN that hands the brightness of each colour up to its class: red ants, green bees, blue cats."""

    class_names = ("ant", "bee", "cat")

    def __init__(self, bias=0.0):
        super().__init__()
        torch.manual_seed(0)
        blocks = []
        for before, after in ((3, 6), (6, 8), (8, 10)):
            conv = nn.Conv2d(before, after, 3, padding=1)
            with torch.no_grad():
                conv.weight[:3] *= 0.02
                conv.weight[[0, 1, 2], [0, 1, 2], 1, 1] = 1.0
                conv.bias.zero_()
            blocks += [conv, nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*blocks[:-1])
        self.head = nn.Linear(10, 3)
        with torch.no_grad():
            self.head.weight *= 0.02
            self.head.weight[[0, 1, 2], [0, 1, 2]] = 4.0
            self.head.bias.copy_(torch.tensor([0.0, bias, 0.0]))

    def forward(self, images):
        return self.head(self.features(images).mean(dim=(2, 3)))


def colours(): return Colours()
def stubborn(): return Colours(bias=50.0)


def said():
    model = Colours()
    model.preprocess = {"size": 24, "resize": "squash"}
    return model
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    with importable_factory(tmp_path_factory.mktemp("plan"), FACTORY) as folder:
        draw_all(folder / "images", COUNT)
        yield folder


@pytest.fixture(autouse=True)
def hardly_timed(monkeypatch: pytest.MonkeyPatch):
    """One batch is enough here; the number itself is not tested."""
    monkeypatch.setattr(probe, "TIMED", 0.01)


def argv(images: pathlib.Path, *more: str, model: str = "said") -> list[str]:
    what = ["plan", "--model", f"tiny_net:{model}", "--data", str(images), "--batch-size", "8", "--workers", "0"]
    return [*what, *more]


def planned(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> dict:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def codes(found: dict) -> set[str]:
    return {finding["code"] for finding in found["findings"]}


def test_its_numbers_are_those_of_the_run(
    folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
):
    more = ["--target", "both", "--metrics", "paper", "--chance-maps", "0", "--shard-size", "4"]
    result = planned(capsys, argv(folder / "images", *more, "--look-at", str(COUNT)))
    assert main(["explain", *argv(folder / "images", *more)[1:], "--out", str(tmp_path / "out")]) == 0
    rows = heatlas.open(tmp_path / "out").to_pandas(["id", "n_masks", "n_forwards"])
    assert result["images"] == COUNT
    assert result["rows_per_image"] * COUNT == pytest.approx(len(rows))
    assert result["shards"] == {"count": 6, "largest": 4}
    assert [time["channels"] for time in result["layers"]] == [6, 8, 10]
    assert rows["n_masks"].min() <= result["masks"]["mean"] <= rows["n_masks"].max()
    assert result["forwards"]["total"] == pytest.approx(rows["n_forwards"].sum(), rel=0.3)
    stored = sum(path.stat().st_size for path in (tmp_path / "out" / "maps").iterdir())
    assert result["store"]["bytes"] == pytest.approx(stored, rel=0.3)
    assert result["store"]["how"] == "from rows made here"
    workers = {time["workers"]: time["seconds"] for time in result["times"] if time["device"] == "cpu"}
    assert workers[2] == pytest.approx(workers[1] / 2)
    assert workers[4] == pytest.approx(workers[1] / 3), "the busiest of four has two shards of six"
    assert result["accuracy"]["images"] == COUNT
    assert result["map_shift"]["images"] > 0
    assert abs(result["map_shift"]["right"]) < 12


def test_nothing_is_written_and_nothing_looks_wrong(
    folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    capsys.readouterr()
    assert main([*argv(folder / "images"), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert not out.exists()
    assert "nothing looks wrong" in printed
    assert f"  images    {COUNT}; looked at {COUNT}, {COUNT} of them usable\n" in printed
    assert "attribute `preprocess` of tiny_net:said()" in printed
    assert "forwards a second measured on cpu, fp32, eager, batch 8, 1 thread" in printed
    assert "8 workers " in printed
    assert " for maps, " in printed
    assert "a backward pass counts as two" in printed


def test_settings_are_named_as_the_origin(folder: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    result = planned(capsys, argv(folder / "images", "--preprocess.size", "32", "--preprocess.mean", "0", "0", "0"))
    origins = {entry["name"]: entry["from"] for entry in result["preprocess"]}
    assert origins["size"] == "setting preprocess.size"
    assert origins["mean"] == "setting preprocess.mean"
    assert origins["resize"] == "attribute `preprocess` of tiny_net:said()"


def test_a_wrong_preprocessing_shows_in_the_accuracy(folder: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    good = planned(capsys, argv(folder / "images"))
    wrong = planned(capsys, argv(folder / "images", "--preprocess.mean", "9", "0", "9"))
    assert good["accuracy"]["top1"] > 0.6
    assert "accuracy" not in codes(good)
    assert {"accuracy", "one_class"} <= codes(wrong)
    text = next(finding["text"] for finding in wrong["findings"] if finding["code"] == "accuracy")
    assert "no better than chance (1 of 3)" in text


def test_one_class_for_everything(folder: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    result = planned(capsys, argv(folder / "images", "--preprocess.size", "24", model="stubborn"))
    text = next(finding["text"] for finding in result["findings"] if finding["code"] == "one_class")
    assert text == f"the model predicts class 1 for all {COUNT} images looked at, though they have 3 different labels"
    assert "preprocessing_guessed" in codes(result)


def test_labels_without_classes(folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    for number in range(6):
        draw(tmp_path / (CLASSES[number % 3] if number < 4 else "antelope") / f"{number}.png", number)
    result = planned(capsys, argv(tmp_path))
    assert codes(result) == {"labels_without_classes"}
    assert (
        "2 of 6 samples have a label that names no class of the model: 'antelope' (2)" in result["findings"][0]["text"]
    )


def test_images_much_larger_than_the_input_and_unreadable_ones(
    folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
):
    for number in range(3):
        Image.fromarray(np.full((200, 260, 3), 40 * number, np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "bad.png").write_text("no image")
    result = planned(capsys, argv(tmp_path))
    assert codes(result) == {"images_much_larger", "decode_error"}
    texts = {finding["code"]: finding["text"] for finding in result["findings"]}
    assert "8 times the network's input of 24x24 pixels" in texts["images_much_larger"]
    assert "1 of the 4 images looked at: decode_error, such as 'bad.png': not an image" in texts["decode_error"]


def test_duplicate_ids_are_refused_naming_both(
    folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
):
    image = folder / "images" / "ant" / "000.png"
    (tmp_path / "list.csv").write_text(f"id,uri\none,{image}\ntwo,{image}\none,{image}\n")
    assert main(argv(tmp_path / "list.csv")) == 2
    assert "the id 'one' names two samples" in capsys.readouterr().err


def test_other_methods_and_rules(folder: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    rise = planned(
        capsys,
        argv(folder / "images", "--method", "rise", "--rise.masks", "40", "--metrics", "none", "--target", "top:2"),
    )
    assert rise["masks"] is None
    assert rise["rows_per_image"] == 2
    assert rise["forwards"]["per_image"] == 2 * 41 + 1, "asking the model for its classes is one more"
    none = planned(capsys, argv(folder / "images", "--target", "above:0.999999"))
    assert codes(none) >= {"no_target"}
    assert none["times"] == []


def test_bad_requests(folder: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    for more, text in (
        (["--look-at", "0"], "--look-at must be at least 1 image"),
        (["--target", "top:9"], "top:K with a whole number K from 1 to 3"),
        (["--data", "nowhere"], "nowhere"),
    ):
        arguments = argv(folder / "images", *more)
        if more[0] == "--data":
            del arguments[3:5]
        assert main(arguments) == 2
        assert text in capsys.readouterr().err


def test_it_takes_the_arguments_of_explain(
    folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
):
    same = command(folder / "images", tmp_path / "out")
    same[same.index("tiny_net:model")] = "tiny_net:colours"
    assert planned(capsys, ["plan", *same[1:]])["shards"]["count"] == COUNT // 3


def boxed(folder: pathlib.Path, size: str, box: str) -> pathlib.Path:
    """A VOC folder with one image of 36 x 30 pixels."""
    for name in ("Annotations", "JPEGImages"):
        (folder / name).mkdir(parents=True)
    draw(folder / "JPEGImages" / "a.png", 1)
    corners = "".join(
        f"<{name}>{value}</{name}>" for name, value in zip(("xmin", "ymin", "xmax", "ymax"), box.split(), strict=True)
    )
    (folder / "Annotations" / "a.xml").write_text(
        f"<annotation><filename>a.png</filename>{size}<object><name>bee</name><bndbox>{corners}</bndbox></object></annotation>"
    )
    return folder


@pytest.mark.check(
    "file",
    "`plan` names each planted mistake before a run: boxes of another size, fractions, floats of unknown range",
    "asked",
)
def test_planted_mistakes_in_files_are_asked_about(
    folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
):
    size = "<size><width>18</width><height>15</height></size>"
    small, shares = boxed(tmp_path / "small", size, "3 3 9 9"), boxed(tmp_path / "shares", "", "0.1 0.1 0.5 0.5")
    (tmp_path / "floats").mkdir()
    Image.fromarray(np.linspace(-1, 1, 900, dtype=np.float32).reshape(30, 30)).save(tmp_path / "floats" / "a.tif")
    for images, text in (
        (small, "a: the boxes were drawn on a picture of 18 x 15 pixels, the image has 36 x 30"),
        (shares, "look like fractions"),
        (tmp_path / "floats", "nobody says which are black and white"),
    ):
        assert main(argv(images)) == 2
        assert text in capsys.readouterr().err
    planned(capsys, argv(small, "--labels.boxes", "scaled"))
    planned(capsys, argv(tmp_path / "floats", "--decode.range=-1,1"))


@pytest.mark.check("file", "`plan` says what is taken by custom: 12 bits in 16, pages", "said")
def test_what_is_taken_by_custom_is_said(
    folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
):
    pages = [Image.fromarray(np.full((30, 30), 4000 - number, np.uint16)) for number in range(2)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert main(argv(tmp_path)) == 0
    said = capsys.readouterr().err
    assert "0 is taken for black and 4095 for white" in said
    assert "1 of 1 image looked at have several pages or frames" in said


MEASURED = {"rate", "seconds_per_row", "times", "store"}
"""Of a forecast: what differs from call to call (rows hold the seconds that they took)."""


def test_python_plans_what_the_command_plans(folder: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    here = heatlas.plan(
        model="tiny_net:said",
        data=folder / "images",
        batch_size=8,
        workers=0,
        look_at=5,
        rise={"masks": 20},
        method="rise",
    )
    more = ["--look-at", "5", "--method", "rise", "--rise.masks", "20"]
    said = planned(capsys, argv(folder / "images", *more))
    own = json.loads(json.dumps(here.as_json()))
    assert {name: own[name] for name in own.keys() - MEASURED} == {name: said[name] for name in said.keys() - MEASURED}
    assert here.probe.looked_at == 5
    assert here.forwards.parts is not None
    assert here.forwards.total == sum(here.forwards.parts.values())
    assert f"  images    {COUNT}; looked at 5, 5 of them usable\n" in str(here)


def test_python_plans_for_objects_and_leaves_them_as_they_are(capsys: pytest.CaptureFixture[str]):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = TensorDataset(torch.rand(6, 3, 16, 16), torch.tensor([0, 1] * 3))
    forecast = heatlas.plan(
        model=model,
        data=images,
        preprocess={"size": 16},
        class_names=["ant", "bee"],
        workers=0,
        metrics="none",
        method="rise",
        rise={"masks": 8},
    )
    assert (forecast.images, forecast.classes, forecast.class_names) == (6, 2, True)
    assert forecast.accuracy is not None
    assert forecast.accuracy.images == 6
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert capsys.readouterr().out == "", "only the command prints"


def test_a_plan_has_the_place_that_is_written_and_writes_nothing_there(folder: pathlib.Path, tmp_path: pathlib.Path):
    config = tmp_path / "run.yaml"
    config.write_text(f"out: {tmp_path / 'there'}\nworkers: 0\nmetrics: none\nmethod: grad_cam\n")
    arguments = {"model": "tiny_net:said", "data": folder / "images", "look_at": 1}
    assert heatlas.plan(**arguments, config=config).out == str(tmp_path / "there")
    assert heatlas.plan(**arguments, config=config, out=tmp_path / "here").out == str(tmp_path / "here")
    assert heatlas.plan(**arguments, workers=0, method="grad_cam").out == NOWHERE
    assert sorted(tmp_path.iterdir()) == [config]


def test_python_refuses_what_the_command_refuses(folder: pathlib.Path):
    with pytest.raises(SettingsError, match="look_at must be at least 1 image, got 0"):
        heatlas.plan(model="tiny_net:said", data=folder / "images", look_at=0)
    with pytest.raises(SettingsError, match="did you mean 'batch_size'"):
        heatlas.plan(model="tiny_net:said", data=folder / "images", batchsize=3)  # pyright: ignore[reportCallIssue]
