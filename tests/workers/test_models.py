"""Loading models: what is found, what is refused, and what the user is told."""

from __future__ import annotations

import csv
import pickle
import urllib.error
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from heatlas.errors import ModelError, SampleError
from heatlas.workers.images.decode import prepare
from heatlas.workers.images.preprocess import Preprocess
from heatlas.workers.models.load import LoadedModel, ModelSpec, load_model
from heatlas.workers.models.torchvision import torchvision_names
from heatlas.workers.models.weights import model_digest
from heatlas.workers.samples import Sample
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models import WeightsEnum, get_model, get_model_weights

from ..support.checkout import SHARED_DATA as SHARED
from ..support.load_models import load, refusal
from ..support.narrow_vit import narrow_vit, stand_in

SMALL = "squeezenet1_1"


def weights_of(num_classes: int, name: str = SMALL) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return dict(get_model(name, weights=None, num_classes=num_classes).state_dict())


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
def test_a_head_with_its_own_number_of_classes_loads(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"head{suffix}"
    weights = weights_of(6)
    save_file(weights, path) if suffix == ".safetensors" else torch.save(weights, path)
    loaded = load(f"torchvision:{SMALL}@{path}", size=(64, 64))
    assert loaded.num_classes == 6
    assert loaded.class_names is None
    assert not loaded.module.training
    for name, tensor in loaded.module.state_dict().items():
        assert tensor.equal(weights[name])


def test_a_local_file_with_1000_classes_is_imagenets(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(weights_of(1000), path)
    loaded = load(f"torchvision:{SMALL}@file://{path}")
    assert loaded.class_names is not None
    assert loaded.class_names[:2] == ("tench", "goldfish")
    preset = get_model_weights(SMALL).DEFAULT.transforms()
    assert loaded.preprocess == Preprocess(size=(224, 224), resize_to=preset.resize_size[0])


@pytest.mark.parametrize("name", ["mnasnet0_5", "googlenet", "shufflenet_v2_x0_5", "mobilenet_v3_small"])
def test_architectures_with_oddities_load_from_safetensors(tmp_path: Path, name: str) -> None:
    options = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    path = tmp_path / "w.safetensors"
    save_file(
        {key: value.contiguous() for key, value in get_model(name, num_classes=3, **options).state_dict().items()}, path
    )
    assert load(f"torchvision:{name}@{path}", size=(96, 96)).num_classes == 3


def test_vision_transformer_takes_its_input_size_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "vit_b_32", narrow_vit(32))
    path = tmp_path / "w.pth"
    torch.save(get_model("vit_b_32", image_size=64, num_classes=3).state_dict(), path)
    assert load(f"torchvision:vit_b_32@{path}").preprocess.size == (64, 64)


def test_checkpoints_are_unwrapped(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in weights_of(4).items()}}, path)
    assert load(f"torchvision:{SMALL}@{path}", size=(64, 64)).num_classes == 4


def test_batch_counters_may_be_absent_and_half_precision_is_widened(tmp_path: Path) -> None:
    weights = get_model("shufflenet_v2_x0_5", num_classes=3).state_dict()
    kept = {name: tensor.half() for name, tensor in weights.items() if not name.endswith("num_batches_tracked")}
    save_file(kept, tmp_path / "w.safetensors")
    loaded = load(f"torchvision:shufflenet_v2_x0_5@{tmp_path}/w.safetensors", size=(64, 64))
    assert {tensor.dtype for tensor in loaded.module.parameters()} == {torch.float32}


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    weights = weights_of(5)
    weights["extra.weight"] = torch.zeros(1)
    weights["features.0.bias"] = torch.zeros(63)
    del weights["features.3.squeeze.bias"]
    save_file(weights, path)
    text = refusal(f"torchvision:{SMALL}@{path}")
    assert "1 missing (features.3.squeeze.bias)" in text
    assert "1 unexpected (extra.weight)" in text
    assert "1 of another shape (features.0.bias (63,) where the model has (64,))" in text
    save_file(weights_of(5), path)
    text = refusal(f"torchvision:resnet18@{path}")
    assert "missing (conv1.weight, bn1.weight, bn1.bias, bn1.running_mean, bn1.running_var and" in text


class Payload:
    """What an attacker would pickle: loading it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_payload_is_refused_without_running_it(tmp_path: Path, zipped: bool) -> None:
    trace, path = tmp_path / "executed", tmp_path / "evil.pth"
    torch.save({"features.0.weight": Payload(trace)}, path, _use_new_zipfile_serialization=zipped)
    text = refusal(f"torchvision:{SMALL}@{path}")
    assert "is refused" in text
    assert "Nothing in it was run" in text
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists(), "the payload does not work, so this test shows nothing"


def test_a_bare_pickle_is_refused(tmp_path: Path) -> None:
    trace, path = tmp_path / "executed", tmp_path / "evil.pt"
    path.write_bytes(pickle.dumps(Payload(trace)))
    assert str(path) in refusal(f"torchvision:{SMALL}@{path}")
    assert not trace.exists()


def test_files_that_hold_no_weights(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"text")
    (tmp_path / "a.pth").write_bytes(b"text")
    torch.save([1, 2], tmp_path / "list.pth")
    assert "is not a readable safetensors file" in refusal(f"torchvision:{SMALL}@{tmp_path}/a.safetensors")
    assert f"{tmp_path}/a.pth is" in refusal(f"torchvision:{SMALL}@{tmp_path}/a.pth")
    assert "holds no state dict" in refusal(f"torchvision:{SMALL}@{tmp_path}/list.pth")
    text = refusal(f"torchvision:{SMALL}@{tmp_path}/gone.pth")
    assert text == f"cannot read the weights {tmp_path}/gone.pth: No such file or directory; check the path"


def test_torchscript_is_not_weights(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(nn.Linear(2, 2), path)  # a whole pickled module
    assert "is a whole pickled model" in refusal(f"torchvision:{SMALL}@{path}")


def test_remote_weights_come_through_the_reader(tmp_path: Path) -> None:
    save_file(weights_of(3), tmp_path / "w.safetensors")

    class Reader:
        def read(self, uri: str) -> bytes:
            if uri != "s3://bucket/w.safetensors":
                raise SampleError("read_error", f"cannot read {uri}: no such file")
            return (tmp_path / "w.safetensors").read_bytes()

    spec = ModelSpec(spec=f"torchvision:{SMALL}@s3://bucket/w.safetensors", size=(64, 64))
    assert load_model(spec, Reader()).num_classes == 3
    with pytest.raises(ModelError, match=r"cannot read s3://bucket/gone\.pth: no such file"):
        load_model(replace(spec, spec=f"torchvision:{SMALL}@s3://bucket/gone.pth"), Reader())
    assert "copy the file here first" in refusal(spec.spec)


def test_published_weights_are_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def state_dict(self: WeightsEnum, *args, **kwargs):
        asked.append(str(self))
        return weights_of(1000, "mobilenet_v2")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", state_dict)
    for weights, resize_to in (
        ("", 232),
        ("@DEFAULT", 232),
        ("@IMAGENET1K_V1", 256),
        ("@MobileNet_V2_Weights.IMAGENET1K_V2", 232),
    ):
        loaded = load(f"torchvision:mobilenet_v2{weights}")
        assert loaded.preprocess == Preprocess(resize_to=resize_to)
        assert loaded.class_names is not None
        assert loaded.class_names[-1] == "toilet tissue"
    names = ["IMAGENET1K_V2", "IMAGENET1K_V2", "IMAGENET1K_V1", "IMAGENET1K_V2"]
    assert asked == [f"MobileNet_V2_Weights.{name}" for name in names]


def test_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def state_dict(self: WeightsEnum, *args, **kwargs):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", state_dict)
    text = refusal("torchvision:resnet18")
    assert "cannot download the weights ResNet18_Weights.IMAGENET1K_V1" in text
    assert "torchvision:resnet18@/path/to/weights.safetensors" in text


def test_unknown_names() -> None:
    assert "unknown torchvision classification model 'resnet5O'; did you mean 'resnet50'?" in refusal(
        "torchvision:resnet5O"
    )
    assert "fcn_resnet50" not in torchvision_names()
    assert "unknown torchvision classification model 'ssd300_vgg16'" in refusal("torchvision:ssd300_vgg16")
    text = refusal("torchvision:resnet50@IMAGENET1K_V3")
    assert "did you mean 'IMAGENET1K_V2'?" in text or "did you mean 'IMAGENET1K_V1'?" in text
    assert "it has IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT, or give a local file" in text
    assert "'resnet50' is not a model; did you mean 'torchvision:resnet50'?" in refusal("resnet50")
    assert "did you mean 'torchvision'?; write torchvision:NAME" in refusal("torchvison:resnet 50")
    assert "is not a model; write torchvision:NAME" in refusal("")


def test_digest_tells_weights_and_preprocessing_apart() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    first = model_digest(module, Preprocess())
    assert first == model_digest(module, Preprocess())
    assert first != model_digest(module, Preprocess(size=(225, 224)))
    module[1].running_mean[2] += 1e-7
    changed = model_digest(module, Preprocess())
    assert changed != first
    assert model_digest(module.half(), Preprocess()) not in (first, changed)


def test_digest_is_of_what_is_loaded_not_of_the_file(tmp_path: Path) -> None:
    weights = weights_of(3)
    save_file(weights, tmp_path / "w.safetensors")
    torch.save(dict(reversed(weights.items())), tmp_path / "w.pth")
    digests = {
        load(f"torchvision:{SMALL}@{tmp_path}/w{suffix}", size=(64, 64)).digest for suffix in (".safetensors", ".pth")
    }
    assert len(digests) == 1
    assert len(digests.pop()) == 64


class Local:
    def read(self, uri: str) -> bytes:
        return Path(uri).read_bytes()


def share_right(loaded: LoadedModel, folder: Path, rows: list[dict[str, str]]) -> float:
    samples = [Sample(row["file"], str(folder / row["file"])) for row in rows]
    images = torch.stack([prepare(sample, Local(), loaded.preprocess).image for sample in samples])
    with torch.inference_mode():
        predicted = torch.cat([loaded.module(batch) for batch in images.split(5)]).argmax(1)
    return sum(int(row["label"]) == index for row, index in zip(rows, predicted.tolist(), strict=True)) / len(rows)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "labels.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.outside_files("shared/data/weights/mobilenet_v2_imagenet.safetensors", "shared/data/imagenet_boxes")
def test_real_weights_recognise_real_images() -> None:
    rows = rows_of(SHARED / "imagenet_boxes")[:100]
    path = SHARED / "weights" / "mobilenet_v2_imagenet.safetensors"
    loaded = load(f"torchvision:mobilenet_v2@{path}", size=(224, 224), resize="squash")
    assert share_right(loaded, SHARED / "imagenet_boxes", rows) > 0.70


@pytest.mark.outside_files("shared/data/weights/mobilenet_v2_imagenet.safetensors", "shared/data/magnetic_tile")
def test_real_head_of_six_classes_recognises_defects(tmp_path: Path) -> None:
    rows = rows_of(SHARED / "magnetic_tile")[::2]
    head = load_file(SHARED / "weights" / "magnetic_tile_head.safetensors")
    path = tmp_path / "tiles.safetensors"
    save_file({**load_file(SHARED / "weights" / "mobilenet_v2_imagenet.safetensors"), **head}, path)
    loaded = load(f"torchvision:mobilenet_v2@{path}", size=(224, 224), resize="squash")
    assert (loaded.num_classes, loaded.class_names) == (6, None)
    assert share_right(loaded, SHARED / "magnetic_tile", rows) > 0.85
