"""TorchScript and torch.export programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from heatlas.engine.layers.blocks import block_layers
from heatlas.errors import ModelError
from heatlas.workers.models.load import ModelSpec, is_program, load_model, remote_file
from torch import nn
from torch.jit import _builtins

from ..support.load_models import load, refusal
from ..support.programs import scripted_program
from ..support.small_program import explained, scripted, small_net


def test_scripting_does_not_stumble_over_a_freed_operator() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()).eval()
    _builtins._register_builtin(net[0]._reversed_padding_repeated_twice, "aten::add")
    image = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(scripted_program(net)(image), net(image))


def exported(path: Path, module: nn.Module, side: int = 32, **options) -> Path:
    batch = {"dynamic_shapes": ({0: torch.export.Dim("batch")},)} if not options else {}
    torch.export.save(torch.export.export(module, (torch.zeros(2, 3, side, side),), **batch), path)
    return path


@pytest.mark.parametrize("kind", ["scripted", "traced", "exported"])
def test_a_program_is_explained_like_the_module_it_was_made_from(tmp_path: Path, kind: str) -> None:
    net = small_net()
    path = tmp_path / ("net.pt2" if kind == "exported" else "net.pt")
    if kind == "exported":
        exported(path, net)
    else:
        scripted(path, net, None if kind == "scripted" else torch.zeros(1, 3, 32, 32))
    loaded = load(str(path), size=(32, 32))
    assert loaded.num_classes == 4
    own, theirs = (block_layers(model, torch.zeros(1, 3, 32, 32)) for model in (net, loaded.module))
    assert [(layer.channels, layer.size) for layer in own] == [(layer.channels, layer.size) for layer in theirs]
    assert torch.equal(explained(net, loaded), explained(loaded.module, loaded))
    assert loaded.digest == load(str(path), size=(32, 32)).digest


def test_a_sidecar_says_what_the_file_cannot(tmp_path: Path) -> None:
    path = scripted(tmp_path / "net.pt", small_net(channels=1))
    assert "preprocess.mean" in refusal(str(path), size=(32, 32)) or "1 input channel" in refusal(
        str(path), size=(32, 32)
    )
    sidecar = tmp_path / "net.pt.json"
    sidecar.write_text(
        json.dumps({"preprocess": {"size": 40, "mean": [0.5], "std": [0.5]}, "class_names": ["a", "b", "c", "d"]})
    )
    loaded = load(str(path))
    assert (loaded.preprocess.size, loaded.preprocess.channels, loaded.class_names) == (
        (40, 40),
        1,
        ("a", "b", "c", "d"),
    )
    assert loaded.origins["mean"] == f"sidecar {sidecar}"
    assert load(str(path), size=(24, 24)).origins["size"] == "setting preprocess.size"
    for content, text in (
        ("{", "is not JSON"),
        ('{"mean": [0.5]}', "must be an object with preprocess and class_names and nothing else"),
        ('{"preprocess": {"sise": 3}}', "unknown preprocess setting 'sise'"),
        ('{"class_names": "abcd"}', "must be a list of texts"),
    ):
        sidecar.write_text(content)
        assert text in refusal(str(path))


class Unexportable(nn.Module):
    """A loop over values, which no graph of operations can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        result = torch.relu(self.conv(images))
        while bool(result.mean() > 1.0):
            result = result / 2
        return self.head(result.mean(dim=(2, 3)))


def test_a_program_that_shows_no_layers_can_be_scored_and_says_what_it_cannot(tmp_path: Path) -> None:
    path = scripted(tmp_path / "net.pt", Unexportable().eval())
    loaded = load(str(path), size=(16, 16))
    assert loaded.module(torch.zeros(3, 3, 16, 16)).shape == (3, 3)
    with pytest.raises(ModelError, match="a TorchScript model shows no layers"):
        block_layers(loaded.module, torch.zeros(1, 3, 16, 16))


class Rows(nn.Module):
    """Its graph holds the number of images for ever, unless that is exported as open."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small_net()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.net(images).reshape(images.shape[0], 2, 2).reshape(images.shape[0], 4)


def test_programs_that_cannot_be_used(tmp_path: Path) -> None:
    assert "was exported in training mode" in refusal(
        str(exported(tmp_path / "train.pt2", small_net().train())), size=(32, 32)
    )
    fixed = exported(tmp_path / "fixed.pt2", Rows().eval(), strict=False)
    assert "export it with dynamic_shapes=({0: torch.export.Dim('batch')},)" in refusal(str(fixed), size=(32, 32))
    (tmp_path / "text.pt2").write_bytes(b"text")
    assert "is not an exported program" in refusal(str(tmp_path / "text.pt2"))
    torch.save(small_net().state_dict(), tmp_path / "weights.pt")
    assert f"torchvision:NAME@{tmp_path}/weights.pt" in refusal(str(tmp_path / "weights.pt"))
    assert "No such file or directory; check the path" in refusal(str(tmp_path / "gone.pt"))
    assert "is not a local file" in refusal("s3://bucket/net.pt")


def test_a_remote_program_comes_through_the_reader(tmp_path: Path) -> None:
    scripted(tmp_path / "net.pt", small_net())

    class Reader:
        def read(self, uri: str) -> bytes:
            if uri != "s3://bucket/net.pt":
                from heatlas.errors import SampleError

                raise SampleError("read_error", f"cannot read {uri}: no such file")
            return (tmp_path / "net.pt").read_bytes()

    assert load_model(ModelSpec(spec="s3://bucket/net.pt", size=(32, 32)), Reader()).num_classes == 4


def test_which_specs_are_programs_and_which_lie_elsewhere() -> None:
    assert is_program("nets/a.pt")
    assert is_program("s3://bucket/a.PT2")
    assert not any(
        map(is_program, ("torchvision:resnet18@w.pt", "timm:resnet18@w.pt", "my.nets:build", "my.nets:build@w.pt"))
    )
    assert remote_file("s3://bucket/a.pt2") == "s3://bucket/a.pt2"
    assert remote_file("timm:resnet18@s3://bucket/w.pth") == "s3://bucket/w.pth"
    assert remote_file("timm:resnet18@w.pth") is remote_file("nets/a.pt") is None
