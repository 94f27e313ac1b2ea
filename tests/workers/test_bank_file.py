"""Banks as files, what is said of every file that is none, and models that become classifiers by them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from heatlas.engine.features.bank_classifier import BankClassifier
from heatlas.engine.features.feature_bank import FeatureBank
from heatlas.errors import ModelError, SampleError
from heatlas.workers.models import bank_file
from heatlas.workers.models.bank_file import KIND, StoredBank, bank_bytes, read_bank
from heatlas.workers.models.load import (
    FeatureModel,
    LoadedModel,
    ModelSpec,
    load_either,
    load_feature_model,
    load_model,
)
from safetensors import safe_open
from safetensors.torch import save, save_file
from torch import Tensor, nn
from torch.nn.functional import normalize
from torchvision.models import get_model

WIDTH = 8


def bank(width: int = WIDTH, count: int | None = None, seed: int = 0) -> FeatureBank:
    features = torch.randn(6, width, generator=torch.Generator().manual_seed(seed))
    return FeatureBank(normalize(features, dim=1), torch.arange(6) % 3, count)


FACTORIES = f"""
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, head, width={WIDTH}):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, width, 3), head
        self.preprocess = {{"size": 12, "resize": "squash"}}
    def forward(self, images):
        return self.head(self.conv(images).mean((2, 3)))

def features(): return Net(nn.Identity())
def single(): return Net(nn.Linear({WIDTH}, 1))
def dense(): return nn.Conv2d(3, 5, 1)
def broken():
    net = features()
    net.conv.bias.data[0] = float("nan")
    return net
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "bank_nets.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(path: Path, stored: StoredBank) -> Path:
    path.write_bytes(bank_bytes(stored, "1.2.3"))
    return path


def of_model(path: Path, model: str = "bank_nets:features", names: tuple[str, ...] | None = None, **more: Any) -> Path:
    """A bank that fits the model."""
    made = load_feature_model(ModelSpec(spec=model))
    return written(path, StoredBank(bank(made.width, **more), made.digest, names))


def load(bank_: Path, model: str = "bank_nets:features", **more: Any) -> LoadedModel:
    return load_model(ModelSpec(spec=model, bank=str(bank_), **more))


@pytest.mark.parametrize("names", [None, ("ant", "bée", "cat", "dog")])
def test_what_is_written_is_read(tmp_path: Path, names: tuple[str, ...] | None) -> None:
    path = written(tmp_path / "b.safetensors", StoredBank(bank(count=4), "abc", names))
    result = read_bank(str(path))
    assert torch.equal(result.bank.features, bank().features)
    assert torch.equal(result.bank.labels, bank().labels)
    assert (result.bank.num_classes, result.model_digest, result.class_names) == (4, "abc", names)
    assert result.digest() == StoredBank(bank(count=4), "other", names).digest()
    assert result.digest() != StoredBank(bank(count=4), "abc", ("ant", "bée", "dog", "cat")).digest()
    assert result.digest() != StoredBank(bank(count=5), "abc").digest()
    assert result.digest() != StoredBank(bank(count=4, seed=1), "abc").digest()
    with safe_open(path, "pt") as file:
        facts = file.metadata()
        assert {name: file.get_tensor(name).dtype for name in file.keys()} == {  # noqa: SIM118  (no mapping)
            "features": torch.float32, "labels": torch.int64,
        }  # fmt: skip
    assert (facts["kind"], facts["model_digest"], facts["heatlas_version"]) == (KIND, "abc", "1.2.3")
    assert ("class_names" in facts) == (names is not None)


def handmade(tensors: dict[str, Tensor] | None = None, **facts: str) -> bytes:
    own = {"features": bank().features, "labels": bank().labels}
    return save({**own, **(tensors or {})}, {"kind": KIND, "model_digest": "abc", **facts})


@pytest.mark.unchecked_types
@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"text", "is not a readable safetensors file"),
        (save({"conv.weight": torch.ones(2)}), r"is a safetensors file but not a feature bank \(it holds conv.weight\); `heatlas bank` makes one"),
        (save({"features": bank().features, "labels": bank().labels}), r"but not a feature bank \(it holds features, labels\)"),
        (handmade({"features": bank().features.half()}), r"has features of torch.float16, they must be torch.float32"),
        (handmade({"labels": bank().labels.int()}), r"has labels of torch.int32, they must be torch.int64"),
        (handmade({"labels": torch.arange(5)}), r"made by hand: a feature bank needs .* got \(6, 8\) and \(5,\)"),
        (handmade({"features": bank().features * 2}), "features of length 1, got lengths from 2 to 2; divide"),
        (handmade({"features": bank().features / 0}), "finite features"),
        (handmade({"labels": bank().labels - 1}), "labels of at least 0"),
        (handmade({"labels": bank().labels * 0}), "has 1 class, at least 2 are needed"),
        (handmade(class_names='["ant"]'), "label 2 needs 3 to 1048576 classes, got 1"),
        (handmade(class_names='{"ant": 1}'), "class_names of the feature bank .* must be a JSON list of texts"),
        (handmade(class_names="["), "must be a JSON list of texts"),
        (handmade(class_names="[1, 2, 3]"), "must be a JSON list of texts"),
        (handmade(class_names="[" * 200_000), "must be a JSON list of texts"),
        (handmade(class_names="[" + "9" * 5_000 + "]"), "must be a JSON list of texts"),
        (handmade(class_names=r'["ant", "b\ud800", "cat"]'), "texts that UTF-8 can write"),
        (handmade(class_names='["ant", "bee", "ant"]'), "class_names of the feature bank .* must differ, got 'ant' more than once"),
        (handmade(num_classes="9" * 5_000), r"must be a whole number of at most 10 digits, got '9{40}'; `heatlas bank` makes one"),
        (handmade(num_classes="-3"), "must be a whole number of at most 10 digits, got '-3'"),
        (handmade(num_classes="many"), "num_classes of the feature bank .* must be a whole number of at most 10 digits, got 'many'"),
        (handmade(num_classes="2"), "label 2 needs 3 to 1048576 classes, got 2"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_bank_is_refused(tmp_path: Path, data: bytes, text: str) -> None:
    (tmp_path / "b.safetensors").write_bytes(data)
    with pytest.raises(ModelError, match=text) as refusal:
        read_bank(str(tmp_path / "b.safetensors"))
    assert str(tmp_path / "b.safetensors") in str(refusal.value)


def test_names_longer_than_all_classes_need_are_not_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "b.safetensors", StoredBank(bank(), "abc", ("ant", "bee", "cat")))
    assert read_bank(str(path)).class_names == ("ant", "bee", "cat")
    monkeypatch.setattr(bank_file, "_LONGEST_NAMES", 10)
    with pytest.raises(ModelError, match="must be a JSON list of texts"):
        read_bank(str(path))


def test_a_bank_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^cannot read the feature bank .*/gone\.safetensors: No such file or directory; "
                       r"check the path; `heatlas bank` makes one from labelled images$"):  # fmt: skip
        read_bank(str(tmp_path / "gone.safetensors"))
    with pytest.raises(ModelError, match=r"cannot read the feature bank s3://b/x: it is not a local file"):
        read_bank("s3://b/x")


def test_a_remote_bank_comes_through_the_reader(place: Path) -> None:
    path = of_model(place / "b.safetensors")

    class Reader:
        def read(self, uri: str) -> bytes:
            if uri != "s3://bucket/b.safetensors":
                raise SampleError("read_error", f"cannot read {uri}: no such file")
            return path.read_bytes()

    spec = ModelSpec(spec="bank_nets:features", bank="s3://bucket/b.safetensors")
    assert load_model(spec, Reader()).num_classes == 3
    with pytest.raises(ModelError, match=r"feature bank s3://bucket/gone: cannot read s3://bucket/gone: no such file"):
        load_model(ModelSpec(spec="bank_nets:features", bank="s3://bucket/gone"), Reader())


@pytest.mark.parametrize("model", ["bank_nets:features", "bank_nets:single"])
def test_a_model_becomes_a_classifier_whatever_it_returns(place: Path, model: str) -> None:
    loaded = load(of_model(place / "b.safetensors", model, ("ant", "bee", "cat", "dog")), model)
    assert isinstance(loaded.module, BankClassifier)
    assert not loaded.module.training
    assert (loaded.num_classes, loaded.class_names, loaded.dense) == (4, ("ant", "bee", "cat", "dog"), False)
    assert loaded.preprocess.size == (12, 12)
    assert loaded.origins["size"] == f"attribute `preprocess` of {model}()"
    assert loaded.module(torch.zeros(2, 3, 12, 12)).shape == (2, 4)
    assert load(of_model(place / "c.safetensors", model), model).class_names is None


def test_the_digest_is_of_model_and_bank(place: Path) -> None:
    first = load(of_model(place / "a.safetensors"))
    assert first.digest == load(of_model(place / "again.safetensors")).digest
    assert first.digest != load_feature_model(ModelSpec(spec="bank_nets:features")).digest
    named = load(of_model(place / "named.safetensors", names=("ant", "bee", "cat")))
    renamed = load(of_model(place / "renamed.safetensors", names=("ant", "cat", "bee")))
    assert len({first.bank_digest, named.bank_digest, renamed.bank_digest}) == 3
    assert len({first.digest, named.digest, renamed.digest}) == 3
    other = load(of_model(place / "b.safetensors", seed=1))
    assert other.digest != first.digest
    assert (first.bank_digest, other.bank_digest) == (
        StoredBank(bank(), "").digest(),
        StoredBank(bank(seed=1), "").digest(),
    )


def test_another_models_bank_is_refused(place: Path) -> None:
    path = written(place / "wide.safetensors", StoredBank(bank(width=9), "abc"))
    with pytest.raises(ModelError, match=r"wide\.safetensors has features of width 9, bank_nets:features gives 8: it was made by "
                       "another model"):  # fmt: skip
        load(path)
    path = of_model(place / "b.safetensors")
    with pytest.raises(ModelError, match=r"made by another model or with other preprocessing \(digest \w{12}, bank_nets:features has \w{12}\)"):  # fmt: skip
        load(path, size=(14, 14))
    path = written(place / "nobody.safetensors", StoredBank(bank(), ""))
    with pytest.raises(ModelError, match=r"digest one that it does not name, "):
        load(path)


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("bank_nets:dense", "bank_nets:dense: the model gives no feature vector per image"),
        ("bank_nets:broken", "returns features that are not finite, for an input of zeros and for noise alike"),
    ],
)
def test_models_that_give_no_features(place: Path, model: str, text: str) -> None:
    with pytest.raises(ModelError, match=text):
        load_feature_model(ModelSpec(spec=model))


def without(weights: dict[str, Tensor], *prefixes: str) -> dict[str, Tensor]:
    return {name: weight.contiguous() for name, weight in weights.items() if not name.startswith(prefixes)}


def tiny_timm(path: Path) -> str:
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=0)
    save_file(without(model.state_dict()), path)
    return f"timm:test_vit@{path}"


def headless_torchvision(path: Path) -> str:
    torch.manual_seed(0)
    save_file(without(get_model("resnet18").state_dict(), "fc."), path)
    return f"torchvision:resnet18@{path}"


@pytest.mark.parametrize(("build", "width"), [(tiny_timm, 64), (headless_torchvision, 512)])
def test_files_without_a_last_layer_give_features(tmp_path: Path, build: Callable[[Path], str], width: int) -> None:
    model = build(tmp_path / "w.safetensors")
    with pytest.raises(
        ModelError, match=r"has no classifier, it gives features: make a bank of labelled images with `heatlas bank`"
    ):
        load_model(ModelSpec(spec=model))
    made = load_feature_model(ModelSpec(spec=model))
    either = load_either(ModelSpec(spec=model))
    assert isinstance(either, FeatureModel)
    assert (made.width, either.width, either.digest) == (width, width, made.digest)
    assert not [
        module for module in made.module.modules() if isinstance(module, nn.Linear) and module.out_features == 1000
    ]
    loaded = load(written(tmp_path / "b.safetensors", StoredBank(bank(width), made.digest, ("a", "b", "c"))), model)
    assert (loaded.num_classes, loaded.class_names) == (3, ("a", "b", "c"))


def test_metadata_is_plain_json(tmp_path: Path) -> None:
    data = bank_bytes(StoredBank(bank(), "abc", ("a", "b", "c")), "1")
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert all(isinstance(value, str) for value in header["__metadata__"].values())
