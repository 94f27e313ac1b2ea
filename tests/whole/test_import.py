"""`heatlas import`: stores from maps that captum and pytorch-grad-cam made, and every command on them."""

from __future__ import annotations

import json
import pickle
import re
import shlex
from pathlib import Path
from typing import Any

import captum.attr
import heatlas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from heatlas.errors import DataError, UsageError
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.foreign_maps.choices import MapChoices
from heatlas.pipeline.foreign_maps.map_index import index_maps
from heatlas.pipeline.foreign_maps.matching import NameTable
from heatlas.pipeline.foreign_maps.survey import survey_maps
from heatlas.pipeline.foreign_maps.unit_maps import unit_map
from heatlas.pipeline.settings.as_command import CHOICES, explain_command
from heatlas.workers.images.preprocess import Preprocess
from PIL import Image
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from ..support import tiny_run

IMAGES = 6
PREPROCESS = Preprocess(size=(24, 24), resize="squash")
OPTIONS = {"preprocess": {"size": 24, "resize": "squash"}, "batch_size": 8, "shard_size": 3, "workers": 0}


class Scene:
    """Images, their model, and what two other libraries say of them."""

    def __init__(self, folder: Path):
        self.folder, self.images = folder, folder / "images"
        tiny_run.draw_all(self.images, IMAGES)
        self.ids = sorted(str(path.relative_to(self.images)) for path in self.images.rglob("*.png"))
        self.inputs = torch.stack(
            [PREPROCESS.tensor(Image.open(self.images / name).convert("RGB")) for name in self.ids]
        )
        space: dict[str, object] = {}
        exec(tiny_run.FACTORY, space)
        self.model: nn.Module = space["model"]().eval()  # type: ignore[operator]
        with torch.no_grad():
            self.predictions = self.model(self.inputs).argmax(dim=1)
        self.captum: Tensor = captum.attr.IntegratedGradients(self.model).attribute(
            self.inputs, target=self.predictions, n_steps=8
        )
        targets = [ClassifierOutputTarget(int(index)) for index in self.predictions]
        with GradCAM(model=self.model, target_layers=[self.model[3]]) as cam:  # type: ignore[index]
            self.grad_cam: np.ndarray = cam(input_tensor=self.inputs, targets=targets)

    def arguments(self, maps: Path | str, out: Path, *more: str) -> list[str]:
        return ["import", "--maps", str(maps), *tiny_run.command(self.images, out, *more)[1:]]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("import")
    with tiny_run.importable_factory(folder):
        yield Scene(folder)


@pytest.fixture(scope="module")
def captum_store(scene: Scene) -> Path:
    """Of captum's tensors, a file for each image, signed, with three channels and a batch of one."""
    maps = scene.folder / "captum"
    for name, tensor in zip(scene.ids, scene.captum, strict=True):
        file = (maps / name).with_suffix(".pt")
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(tensor[None], file)
    assert main(scene.arguments(maps, scene.folder / "ig", "--method", "captum_ig", "--metrics", "standard")) == 0
    return scene.folder / "ig"


@pytest.fixture(scope="module")
def cam_store(scene: Scene) -> Path:
    """Of pytorch-grad-cam's array, with ids beside it."""
    np.savez(scene.folder / "cam.npz", maps=scene.grad_cam, ids=scene.ids, targets=scene.predictions.numpy())
    assert main(scene.arguments(scene.folder / "cam.npz", scene.folder / "cam", "--method", "their_grad_cam")) == 0
    return scene.folder / "cam"


def stored_maps(out: Path, ids: list[str]) -> np.ndarray:
    return heatlas.open(out).maps(ids)


def over_max(maps: np.ndarray) -> np.ndarray:
    return maps / maps.max(axis=(1, 2), keepdims=True)


def test_captums_tensors_become_what_speaks_for_the_class(scene: Scene, captum_store: Path):
    expected = over_max(np.maximum(scene.captum.numpy().sum(axis=1), 0))
    assert stored_maps(captum_store, scene.ids) == pytest.approx(expected, abs=1e-3)  # float16
    rows = (
        heatlas.open(captum_store)
        .table(["id", "prediction", "target", "confidence", "method", "status", "label"])
        .to_pylist()
    )
    with torch.no_grad():
        probabilities = scene.model(scene.inputs).softmax(dim=1)
    assert [row["prediction"] for row in rows] == scene.predictions.tolist() == [row["target"] for row in rows]
    assert [row["confidence"] for row in rows] == pytest.approx(probabilities.amax(dim=1).tolist(), abs=1e-4)
    assert {row["method"] for row in rows} == {"captum_ig"}
    assert {row["status"] for row in rows} == {"ok"}


def test_metrics_are_those_of_the_tensors(scene: Scene, captum_store: Path):
    """Against `heatlas.evaluate` over the same maps in memory, which knows no files."""
    maps = torch.from_numpy(over_max(np.maximum(scene.captum.numpy().sum(axis=1), 0)))
    table = heatlas.open(captum_store).table(["drop_pct", "insertion_auc"]).to_pydict()
    own = heatlas.evaluate(scene.model, scene.inputs, maps, metrics=["drop_pct", "insertion_auc"])
    assert table["drop_pct"] == pytest.approx(own.values["drop_pct"].tolist(), abs=1e-2)
    assert table["insertion_auc"] == pytest.approx(own.values["insertion_auc"].tolist(), abs=1e-3)


def test_grad_cams_array_is_taken_as_it_is(scene: Scene, cam_store: Path):
    assert stored_maps(cam_store, scene.ids) == pytest.approx(over_max(scene.grad_cam), abs=1e-3)
    assert heatlas.open(cam_store).run["settings"]["target"] == "as imported"


def latec_file(scene: Scene, folder: Path) -> tuple[Path, dict[str, Any]]:
    """An array (image, method, channel, height, width) for each model, without names."""
    other = np.zeros_like(scene.grad_cam)
    first = np.stack([other, scene.grad_cam], axis=1)[:, :, None]
    np.savez(folder / "latec.npz", np.zeros_like(first), first)
    return folder / "latec.npz", {"by": "position", "array": "arr_1", "method_index": 1}


def keyed_npz(scene: Scene, folder: Path) -> tuple[Path, dict[str, Any]]:
    np.savez(folder / "keyed.npz", **dict(zip(scene.ids, scene.grad_cam, strict=True)))
    return folder / "keyed.npz", {}


def nested_parquet(scene: Scene, folder: Path) -> tuple[Path, dict[str, Any]]:
    pq.write_table(pa.table({"id": scene.ids, "map": scene.grad_cam.tolist()}), folder / "nested.parquet")
    return folder / "nested.parquet", {}


def flat_parquet(scene: Scene, folder: Path) -> tuple[Path, dict[str, Any]]:
    flat = scene.grad_cam.reshape(IMAGES, -1).tolist()
    columns = {"id": scene.ids, "map": flat, "height": [24] * IMAGES, "width": [24] * IMAGES}
    pq.write_table(pa.table(columns), folder / "flat.parquet")
    return folder / "flat.parquet", {}


def torch_dictionary(scene: Scene, folder: Path) -> tuple[Path, dict[str, Any]]:
    content = {name: torch.from_numpy(entry) for name, entry in zip(scene.ids, scene.grad_cam, strict=True)}
    torch.save(content, folder / "maps.pt")
    return folder / "maps.pt", {}


def folder_of_arrays(scene: Scene, folder: Path) -> tuple[Path, dict[str, Any]]:
    (folder / "arrays").mkdir()
    for name, entry in zip(scene.ids, scene.grad_cam, strict=True):  # flat names, as many tools write
        np.save(folder / "arrays" / f"{Path(name).stem}.npy", entry)
    return folder / "arrays", {}


def read_maps(scene: Scene, maps: object, **choices: Any) -> np.ndarray:
    """What the workers get, one map per image, in order."""
    chosen = MapChoices(**choices)
    index = index_maps(maps, scene.ids, chosen)
    index = pickle.loads(pickle.dumps(index))  # as it travels into actors
    survey_maps(index, IMAGES, PREPROCESS, 3)
    return np.stack([unit_map(index.raw(index.places[name][0]), chosen, PREPROCESS).numpy() for name in scene.ids])


@pytest.mark.parametrize(
    "make", [latec_file, keyed_npz, nested_parquet, flat_parquet, torch_dictionary, folder_of_arrays]
)
def test_every_kind_of_file_gives_the_same_maps(scene: Scene, tmp_path: Path, make):
    maps, choices = make(scene, tmp_path)
    assert read_maps(scene, str(maps), **choices) == pytest.approx(over_max(scene.grad_cam), abs=1e-6)


def test_a_store_of_heatlas_can_be_imported_too(scene: Scene, cam_store: Path):
    assert read_maps(scene, str(cam_store / "maps")) == pytest.approx(stored_maps(cam_store, scene.ids), abs=1e-3)


def test_every_command_works_on_imported_maps(
    scene: Scene, captum_store: Path, cam_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for command in (
        ["evaluate", str(cam_store), "--metrics", "full", "--workers", "0"],
        ["report", str(cam_store), "--out", str(tmp_path / "report.html")],
        ["curate", str(cam_store), "--out", str(tmp_path / "queue.parquet")],
        ["compare", str(captum_store), str(cam_store), "--resamples", "10"],
        ["export", str(cam_store), "--format", "csv", "--out", str(tmp_path / "rows.csv")],
        ["show", str(cam_store), "--limit", "2", "--out", str(tmp_path / "shown")],
        ["summary", str(cam_store), "--resamples", "2"],
        ["verify", str(cam_store)],
    ):
        assert main(command) == 0, (command, capsys.readouterr().err)
    assert len(heatlas.open(cam_store).to_pandas(["insertion_auc"]).dropna()) == IMAGES
    html = (tmp_path / "report.html").read_text()
    assert "their_grad_cam" in html
    assert not re.search(
        r"&quot;rise&quot;|by rise|>rise<", html
    )  # the method that stands in for it while metrics are computed
    capsys.readouterr()
    assert main(["status", str(cam_store), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["method"] == "their_grad_cam"


def test_the_stored_command_is_the_one_that_was_typed(scene: Scene, captum_store: Path):
    words = explain_command(heatlas.open(captum_store).run["settings"])
    assert words.startswith(f"heatlas import --maps {scene.folder / 'captum'} --method captum_ig --model")
    assert "rise" not in words.split()
    assert main(shlex.split(words)[1:]) == 0  # it resumes, and there is nothing to do
    assert MapChoices().stored() == CHOICES


def test_what_is_taken_by_custom_is_said(scene: Scene, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    maps = dict(zip(scene.ids[:4], scene.captum, strict=False)) | {"nowhere.png": scene.captum[0]}
    torch.save(maps, tmp_path / "maps.pt")
    assert main(scene.arguments(tmp_path / "maps.pt", tmp_path / "out", "--metrics", "none")) == 0
    told = capfd.readouterr().err
    for text in ("4 maps of 4 of 6 images", "4 maps of 4 with values below 0", "3 channels: summed",
                 "the predicted class", "2 images without a map: rows with status no_map", "'nowhere.png', left out"):  # fmt: skip
        assert text in told
    assert heatlas.open(tmp_path / "out").statuses() == {"ok": 4, "no_map": 2}


@pytest.mark.parametrize(("sign", "make"), [
    ("absolute", np.abs), ("negative", lambda maps: np.maximum(-maps, 0)), ("range", lambda maps: maps - maps.min(axis=(1, 2), keepdims=True)),
])  # fmt: skip
def test_signs(scene: Scene, sign, make):
    given = dict(zip(scene.ids, scene.captum, strict=True))
    expected = over_max(make(scene.captum.numpy().sum(axis=1)))
    assert read_maps(scene, given, sign=sign) == pytest.approx(expected, abs=1e-6)


def test_of_channels_the_largest(scene: Scene):
    values = scene.captum.numpy()
    largest = np.take_along_axis(values, np.abs(values).argmax(axis=1)[:, None], axis=1)[:, 0]
    given = dict(zip(scene.ids, np.moveaxis(values, 1, -1), strict=True))  # channels behind
    assert read_maps(scene, given, channels="largest") == pytest.approx(over_max(np.maximum(largest, 0)), abs=1e-6)


def test_a_map_of_the_whole_image_is_cropped_like_the_image(scene: Scene):
    """The oracle is the preprocessing itself: the map is the image's own brightness."""
    preprocess = Preprocess(size=(16, 16), resize_to=20, mean=(0,), std=(1,), channels=1)
    for name in scene.ids:
        image = Image.open(scene.images / name).convert("L")
        expected = preprocess.tensor(image)[0]
        result = unit_map(np.asarray(image), MapChoices(covers="image"), preprocess)
        assert result == pytest.approx(expected / expected.max(), abs=0.025)  # of 8-bit rounding on the way
    with pytest.raises(DataError, match="30 x 36 values, the network's input 16 x 16: say --covers input"):
        unit_map(np.zeros((30, 36)), MapChoices(), preprocess)


def test_a_layers_cells_cover_the_input():
    cells = torch.rand(6, 6, generator=torch.manual_seed(0))
    expected = torch.nn.functional.interpolate(cells[None, None], (24, 24), mode="bilinear", align_corners=False)[0, 0]
    result = unit_map(cells.numpy(), MapChoices(covers="input"), PREPROCESS)
    assert result.numpy() == pytest.approx((expected / expected.max()).numpy(), abs=1e-6)


def test_other_maps_do_not_resume_a_store(
    scene: Scene, cam_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    np.savez(tmp_path / "cam.npz", maps=scene.grad_cam * 0.5, ids=scene.ids, targets=scene.predictions.numpy())
    assert main(scene.arguments(tmp_path / "cam.npz", cam_store, "--method", "their_grad_cam")) == 2
    assert "their_grad_cam.imported" in capsys.readouterr().err


def test_dead_and_broken_maps_become_rows_that_say_so(scene: Scene, tmp_path: Path):
    maps = scene.grad_cam.copy()
    maps[0], maps[1, 3, 3] = 0, np.nan
    heatlas.import_maps(
        dict(zip(scene.ids, maps, strict=True)), model=scene.model, data=str(scene.images), out=tmp_path / "out",
        class_names=list(tiny_run.CLASSES), metrics=None, **OPTIONS,
    )  # fmt: skip
    rows = heatlas.open(tmp_path / "out").table(["id", "status"]).to_pylist()
    assert [row["status"] for row in rows] == ["constant_map", "non_finite", "ok", "ok", "ok", "ok"]


REFUSED = {
    "nameless.npy": (lambda scene, file: np.save(file, scene.grad_cam), {}, "--by position"),
    "short.npy": (lambda scene, file: np.save(file, scene.grad_cam[:3]), {"by": "position"}, "3 maps, the data set 6 images"),
    "strange.npz": (lambda scene, file: np.savez(file, maps=scene.grad_cam, ids=[f"x{n}" for n in range(6)]), {}, "none of the 6 maps"),
    "twice.npz": (lambda scene, file: np.savez(file, maps=scene.grad_cam, ids=[scene.ids[0]] * 6), {}, "has two maps"),
    "classes.npz": (lambda scene, file: np.savez(file, maps=scene.grad_cam, ids=scene.ids, targets=[9] * 6), {}, "explains class 9"),
    "names.npz": (lambda scene, file: np.savez(file, maps=scene.grad_cam, ids=scene.ids, targets=["a"] * 6), {}, "class indices"),
    "several.npz": (lambda scene, file: np.savez(file, a=scene.grad_cam, b=scene.grad_cam), {}, "--array"),
    "pickled.npy": (lambda scene, file: np.save(file, np.array([{}], dtype=object)), {}, "pickled objects are never read"),
    "pickled.pt": (lambda scene, file: torch.save({"maps": Path("x")}, file), {}, "pickled objects are never read"),
    "broken.npz": (lambda scene, file: file.write_bytes(b"PK\x03\x04 no"), {}, "is no .npz file"),
    "colour.png": (lambda scene, file: Image.new("RGB", (24, 24)).save(file), {}, "colour"),
    "maps.txt": (lambda scene, file: file.write_text("1 2"), {}, "neither a folder nor a file"),
    "shape.npz": (lambda scene, file: np.savez(file, maps=np.zeros((6, 7, 24, 24)), ids=scene.ids), {}, "--method-index"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_told_is_refused(scene: Scene, tmp_path: Path, name: str):
    write, choices, text = REFUSED[name]
    write(scene, tmp_path / name)
    with pytest.raises(UsageError) as refused:
        read_maps(scene, str(tmp_path / name), **choices)
    assert text in str(refused.value)


def test_nothing_is_written_where_maps_are_refused(scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    np.save(tmp_path / "maps.npy", scene.grad_cam)
    assert main(scene.arguments(tmp_path / "maps.npy", tmp_path / "out")) == 2
    assert "--by position" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("more", "text"), [
    (["--method", "grad_cam"], "heatlas's own"), (["--method", "plan"], "cannot name"), (["--target", "both"], "a map explains one"),
    (["--metrics", "max_sensitivity"], "needs more than a map"), (["--sign", "plus"], "plus"), (["--method-index", "-1"], "at least 0"),
])  # fmt: skip
def test_wrong_choices_are_refused(
    scene: Scene, cam_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more, text
):
    assert main(scene.arguments(scene.folder / "cam.npz", tmp_path / "out", *more)) == 2
    assert text in capsys.readouterr().err


def test_an_ambiguous_name_is_refused_with_the_images_it_may_mean():
    table = NameTable.of(["cat/1.jpg", "dog/1.jpg", "dog/2.jpg"])
    assert [table.id_of(name) for name in ("cat/1", "cat/1.jpg", "x/2.npy", "2", "3")] == [
        "cat/1.jpg", "cat/1.jpg", "dog/2.jpg", "dog/2.jpg", None,
    ]  # fmt: skip
    with pytest.raises(UsageError, match=r"cat/1\.jpg, dog/1\.jpg"):
        table.id_of("1")
