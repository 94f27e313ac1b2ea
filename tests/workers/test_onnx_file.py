"""ONNX files as models: the same logits as the network they came from, for methods that need forward passes only."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from heatlas.engine.method_fit import check_fit, fitting_methods
from heatlas.errors import ModelError
from heatlas.pipeline.edge.onnx_export import export_float
from heatlas.workers.models.load import ModelSpec, load_model
from heatlas.workers.models.onnx_file import OnnxModule
from onnx import TensorProto, helper, numpy_helper
from torch import nn


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    export_float(network(), (3, 24, 20), path)
    return path


def pooled(
    path: Path, *, batch: int | str = "batch", side: int | str = 8, inputs: int = 1, external: bool = False
) -> Path:
    """A file that averages each channel of an image, its weights beside it if `external`."""
    weights = numpy_helper.from_array(np.eye(3, 2, dtype=np.float32), "weights")
    if external:
        weights.ClearField("raw_data")
        weights.data_location = TensorProto.EXTERNAL
        weights.external_data.add(key="location", value="../elsewhere.bin")
    nodes = [
        helper.make_node("GlobalAveragePool", ["x0"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes, "pooled",
        [helper.make_tensor_value_info(f"x{place}", TensorProto.FLOAT, [batch, 3, side, side]) for place in range(inputs)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 2])], [weights],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def test_logits_are_those_of_the_network(file: Path) -> None:
    model = load_model(ModelSpec(spec=str(file)))
    assert model.preprocess.size == (24, 20), "the file says the size of its input"
    assert (model.num_classes, model.dense) == (4, False)
    images = torch.randn(5, 3, 24, 20)
    with torch.no_grad():
        torch.testing.assert_close(model.module(images), network()(images), atol=1e-5, rtol=1e-4)


def test_it_travels_to_other_processes(file: Path) -> None:
    module = OnnxModule(file.read_bytes(), "net.onnx")
    images = torch.rand(2, 3, 24, 20)
    for other in (pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):
        assert torch.equal(other(images), module(images))


def test_methods_that_need_gradients_or_layers_are_refused_with_those_that_fit(file: Path) -> None:
    module, image = load_model(ModelSpec(spec=str(file))).module, torch.rand(3, 24, 20)
    assert set(fitting_methods(module, image)) >= {"rise", "occlusion"}
    for name in ("sise", "grad_cam"):
        with pytest.raises(ModelError, match=r"no gradient flows(.|\n)*methods that fit it: .*rise"):
            check_fit(name, module, None, image)


def test_the_sidecar_says_what_the_file_cannot(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(file.read_bytes())
    names = ["ant", "bee", "cat", "dog"]
    Path(f"{path}.json").write_text(
        json.dumps({"preprocess": {"size": [24, 20], "mean": [0.5, 0.5, 0.5]}, "class_names": names})
    )
    model = load_model(ModelSpec(spec=str(path)))
    assert model.class_names == tuple(names)
    assert model.preprocess.mean == (0.5, 0.5, 0.5)
    assert model.digest != load_model(ModelSpec(spec=str(file))).digest


@pytest.mark.parametrize("batch", [1, 2])
def test_a_file_with_a_fixed_batch_takes_any_number_of_images(batch: int, tmp_path: Path) -> None:
    model = load_model(ModelSpec(spec=str(pooled(tmp_path / "net.onnx", batch=batch))))
    images = torch.rand(3, 3, 8, 8)
    torch.testing.assert_close(model.module(images), images.mean(dim=(2, 3))[:, :2])


def test_another_size_than_the_file_was_exported_with_is_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"takes images of height 24, preprocessing makes 32: set preprocess\.size"):
        load_model(ModelSpec(spec=str(file), size=(32, 20)))
    free = pooled(tmp_path / "free.onnx", side="side")
    assert load_model(ModelSpec(spec=str(free), size=(12, 12))).preprocess.size == (12, 12)


def test_weights_in_other_files_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.bin").write_bytes(bytes(24))
    (tmp_path / "in").mkdir()
    with pytest.raises(ModelError, match="keeps weights in other files"):
        load_model(ModelSpec(spec=str(pooled(tmp_path / "in" / "net.onnx", external=True))))


def test_weights_in_other_files_are_not_read_for_a_branch_either(tmp_path: Path) -> None:
    inner = onnx.load(str(pooled(tmp_path / "net.onnx", external=True)), load_external_data=False).graph
    node = helper.make_node("If", ["condition"], ["logits"], then_branch=inner, else_branch=inner)
    outer = helper.make_graph(
        [node], "outer", [helper.make_tensor_value_info("x0", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 2])],
    )  # fmt: skip
    model = helper.make_model(outer, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    with pytest.raises(ModelError, match="keeps weights in other files"):
        OnnxModule(model.SerializeToString(), "net.onnx")


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"", "not an ONNX file"), (b"\x80\x04junk" * 9, "not an ONNX file"), (b"{}", "not an ONNX file")],
)
def test_damaged_files_are_refused(content: bytes, text: str, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=text):
        load_model(ModelSpec(spec=str(path)))


def changed(path: Path, change: Callable[[onnx.ModelProto], object]) -> Path:
    """The file of `pooled` with something changed."""
    model = onnx.load(str(pooled(path)))
    change(model)
    path.write_bytes(model.SerializeToString())
    return path


def test_of_several_outputs_the_logits_are_taken_whatever_their_place(tmp_path: Path) -> None:
    def add(model: onnx.ModelProto) -> None:
        model.graph.output.insert(0, helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["batch", 3]))

    model = load_model(ModelSpec(spec=str(changed(tmp_path / "net.onnx", add))))
    images = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(model.module(images), images.mean(dim=(2, 3))[:, :2])


def _unnamed(model: onnx.ModelProto) -> None:
    model.graph.node[2].output[0] = model.graph.output[0].name = "scores"
    model.graph.output.insert(0, helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["batch", 3]))


def _label_alone(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("ArgMax", ["logits"], ["label"], axis=1, keepdims=0))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"]))


def _channels_last(model: onnx.ModelProto) -> None:
    model.graph.node.insert(0, helper.make_node("Transpose", ["x0"], ["first"], perm=[0, 3, 1, 2]))
    model.graph.node[1].input[0] = "first"
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x0", TensorProto.FLOAT, ["batch", "side", "side", 3]))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_unnamed, "gives flat .* scores .* which are the logits is not said: .* name the one to take logits or out"),
        (_label_alone, r"gives label tensor\(int64\) .* none of which can be logits"),
        (lambda model: model.graph.ClearField("output"), "gives nothing, none of which can be logits"),
        (_channels_last, "channels last; export it for .batch, channel, height, width."),
        (lambda model: setattr(model.opset_import[0], "version", 99), "opset 99, .*; export it with an older opset"),
        (lambda model: setattr(model, "ir_version", 99), "IR version 99.*: .*; export it with an older opset"),
    ],
)
def test_a_graph_that_is_no_classifier_of_images_here_is_refused_with_its_reason(
    change: Callable[[onnx.ModelProto], object], text: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=text):
        load_model(ModelSpec(spec=str(changed(tmp_path / "net.onnx", change))))


def test_a_file_of_grey_images_asks_for_their_mean_and_takes_it(tmp_path: Path) -> None:
    def grey(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array([[1, -1]], dtype=np.float32), "weights"))

    path = str(changed(tmp_path / "net.onnx", grey))
    with pytest.raises(ModelError, match=r"takes grey images \(its input has 1 channel\): set --preprocess\.mean"):
        load_model(ModelSpec(spec=path))
    preprocess = load_model(ModelSpec(spec=path, mean=(0.5,), std=(0.5,))).preprocess
    assert (preprocess.channels, preprocess.size) == (1, (8, 8))


def test_weights_in_other_files_are_not_read_for_a_function_or_a_sparse_tensor_either(tmp_path: Path) -> None:
    outside = onnx.load(str(pooled(tmp_path / "net.onnx", external=True)), load_external_data=False).graph.initializer[
        0
    ]

    def by_function(model: onnx.ModelProto) -> None:
        constant = helper.make_node("Constant", [], ["w"], value=outside)
        node = helper.make_node("MatMul", ["a", "w"], ["y"])
        model.functions.append(
            helper.make_function("own", "Outside", ["a"], ["y"], [constant, node], model.opset_import)
        )

    def by_sparse(model: onnx.ModelProto) -> None:
        model.graph.sparse_initializer.add(dims=[3, 2]).values.CopyFrom(outside)

    for change in (by_function, by_sparse):
        with pytest.raises(ModelError, match="keeps weights in other files"):
            load_model(ModelSpec(spec=str(changed(tmp_path / "net.onnx", change))))


def test_a_graph_of_two_inputs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="must take one tensor of images"):
        load_model(ModelSpec(spec=str(pooled(tmp_path / "net.onnx", inputs=2))))


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot read the model"):
        load_model(ModelSpec(spec=str(tmp_path / "none.onnx")))
