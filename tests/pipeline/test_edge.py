"""Edge models: what is exported, what the report says of it, and what fails the gate."""

from __future__ import annotations

import importlib.util
import json
import math
from dataclasses import replace
from pathlib import Path

import heatlas
import numpy as np
import onnx
import onnxruntime
import pyarrow.parquet as pq
import pytest
import torch
from heatlas.errors import RunMismatchError, SampleError, UsageError
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.cli.edge import share_of
from heatlas.pipeline.edge import run_images
from heatlas.pipeline.edge.backends import BACKENDS
from heatlas.pipeline.edge.channel_pruning import count_parameters
from heatlas.pipeline.edge.edge_model import EdgeReport, export_edge
from heatlas.pipeline.edge.run_images import load_run_images
from heatlas.pipeline.edge.text import edge_text
from heatlas.pipeline.store.reader import open_store
from heatlas.workers.images.decode import prepare
from heatlas.workers.samples import Sample
from torch import nn

from ..support.tiny_run import CLASSES, command, draw_all, importable_factory

IMAGES = 15


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    with importable_factory(tmp_path_factory.mktemp("edge")) as folder:
        draw_all(folder / "images", IMAGES)
        lines = ["id,uri,label,boxes"]
        for number, path in enumerate(sorted((folder / "images").rglob("*.png"))):
            left = 4 + int(path.stem) % 12
            lines.append(f'{number:02d},{path},{CLASSES.index(path.parent.name)},"[[{left},6,{left + 12},18]]"')
        (folder / "marked.csv").write_text("\n".join(lines))
        how = ("--method", "grad_cam", "--metrics", "none")
        assert main(command(folder / "marked.csv", folder / "store", *how)) == 0
        yield folder


@pytest.fixture(scope="module")
def exported(folder: Path) -> EdgeReport:
    return export_edge(folder / "store", folder / "edge", calibration=6, count=9, masks=40)


def test_every_file_is_written_and_says_what_the_report_says(folder: Path, exported: EdgeReport) -> None:
    out = folder / "edge"
    assert json.loads((out / "edge.json").read_text()) == json.loads(json.dumps(exported.facts))
    facts = exported.facts
    assert facts["int8_bytes"] == (out / "model.int8.onnx").stat().st_size
    assert facts["float_bytes"] == (out / "model.fp32.onnx").stat().st_size
    assert (facts["calibration_images"], facts["images"], facts["labelled"]) == (6, 9, 9)
    assert facts["lost_images"] == 0
    assert "left out" not in edge_text(exported)
    assert facts["parameters"] == 3 * 6 * 9 + 6 + 6 * 8 * 9 + 8 + 8 * 10 * 9 + 10 + 10 * 3 + 3
    assert 0 < facts["latency"]["int8"]["median"] <= facts["latency"]["int8"]["p95"]
    rows = pq.read_table(out / "agreement.parquet").to_pylist()
    assert [row["id"] for row in rows] == [row.id for row in exported.rows]
    assert sum(row["drift"] for row in rows) == facts["drifted"]
    assert all(row["d_ebpg"] is not None for row in rows), "every image has a box"
    assert edge_text(exported).count("\n") >= 8


def test_the_int8_file_has_int8_weights_with_a_scale_for_each_channel(folder: Path, exported: EdgeReport) -> None:
    graph = onnx.load(str(folder / "edge" / "model.int8.onnx")).graph
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    kernels = [tensor for tensor in tensors.values() if tensor.ndim == 4]
    assert len(kernels) == 3
    assert all(kernel.dtype == np.int8 for kernel in kernels)
    assert {node.op_type for node in graph.node} >= {"QuantizeLinear", "DequantizeLinear"}
    scales = [
        tensors[node.input[1]]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and tensors.get(node.input[0], np.empty(0)).ndim == 4
    ]
    assert sorted(scale.shape for scale in scales) == [(6,), (8,), (10,)]


@pytest.mark.parametrize("name", ["model.fp32.onnx", "model.int8.onnx"])
def test_a_file_holds_no_paths_of_this_machine(folder: Path, exported: EdgeReport, name: str) -> None:
    data = (folder / "edge" / name).read_bytes()
    assert str(folder).encode() not in data
    assert b'File "' not in data
    assert b"stack_trace" not in data


def test_predictions_and_confidences_are_those_of_the_files(folder: Path, exported: EdgeReport) -> None:
    images = load_run_images(open_store(str(folder / "store")), 6, 9)
    by_id = {sample.id: prepared.image for sample, prepared in images.read(images.measured)}
    assert not {sample.id for sample in images.calibration} & by_id.keys(), "what calibrates is not measured"
    session = onnxruntime.InferenceSession(folder / "edge" / "model.int8.onnx", providers=["CPUExecutionProvider"])
    for row in exported.rows:
        [logits] = session.run(None, {"image": by_id[row.id][None].numpy()})
        with torch.no_grad():
            own = images.model.module(by_id[row.id][None])
        assert row.prediction == int(own.argmax())
        assert row.edge_prediction == int(logits.argmax())
        odds = torch.from_numpy(logits[0]).softmax(0)
        assert row.edge_confidence == pytest.approx(float(odds[row.prediction]), abs=1e-5)
        assert row.confidence == pytest.approx(float(own[0].softmax(0)[row.prediction]), abs=1e-5)


def test_the_float_file_computes_what_the_model_does(folder: Path, exported: EdgeReport) -> None:
    images = load_run_images(open_store(str(folder / "store")), 6, 9)
    session = onnxruntime.InferenceSession(folder / "edge" / "model.fp32.onnx", providers=["CPUExecutionProvider"])
    batch = torch.stack([prepared.image for _, prepared in images.read(images.measured)])
    with torch.no_grad():
        expected = images.model.module(batch).numpy()
    np.testing.assert_allclose(session.run(None, {"image": batch.numpy()})[0], expected, atol=1e-4)


def test_the_queue_holds_the_drifted_rows_the_worst_first(folder: Path, exported: EdgeReport) -> None:
    queue = pq.read_table(folder / "store" / "curation" / "edge_drift.parquet").to_pylist()
    drifted = sorted((row.agreement.iou, row.id) for row in exported.rows if row.is_drift(exported.floor))
    assert [(1 - entry["priority"], entry["id"]) for entry in queue] == drifted
    stored = heatlas.open(folder / "store").to_pandas(["id", "target", "method"]).set_index("id")
    assert all(entry["target"] == stored.target[entry["id"]] for entry in queue)
    assert main(["verify", str(folder / "store")]) == 0


def test_the_exported_file_is_a_model_for_methods_of_forward_passes(
    folder: Path, exported: EdgeReport, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(folder / "edge" / "model.int8.onnx")
    where = ["explain", "--model", file, "--data", str(folder / "marked.csv"), "--limit", "3", "--workers", "0"]
    assert main([*where, "--out", str(folder / "by-edge"), "--method", "rise", "--rise.masks", "20"]) == 0
    rows = heatlas.open(folder / "by-edge").to_pandas(["status", "prediction", "id"])
    assert list(rows["status"]) == ["ok"] * 3
    with pytest.raises(UsageError, match="is an ONNX file, from which no other can be made"):
        export_edge(folder / "by-edge", folder / "none")
    capsys.readouterr()
    assert main([*where, "--out", str(folder / "refused"), "--method", "grad_cam"]) == 2
    assert "no gradient flows" in capsys.readouterr().err


@pytest.mark.parametrize(("floor", "is_told"), [(0.11, True), (0.12, False), (None, False)])
def test_a_noise_floor_under_which_unrelated_maps_pass_is_told(
    exported: EdgeReport, floor: float | None, is_told: bool
) -> None:
    known = {"noise_floor_iou": floor, "judged": 0 if floor is None else exported.facts["images"]}
    report = EdgeReport({**exported.facts, **known}, exported.rows, floor or math.nan)
    assert ("no higher than the IoU of unrelated maps (0.111)" in edge_text(report)) is is_told


# the gate and what is refused


@pytest.mark.parametrize(("text", "share"), [("2%", 0.02), ("0.02", 0.02), ("0", 0.0), ("100%", 1.0)])
def test_shares_are_numbers_or_percentages(text: str, share: float) -> None:
    assert share_of(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["2", "-1%", "nan", "two", "101%", ""])
def test_other_texts_are_no_shares(text: str) -> None:
    with pytest.raises(UsageError, match="--max-drift must be a share"):
        share_of(text)


def test_more_drift_than_allowed_fails(
    folder: Path, exported: EdgeReport, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from heatlas.pipeline.edge import edge_model

    facts = {**exported.facts, "drift_share": 0.03}
    monkeypatch.setattr(edge_model, "export_edge", lambda *_, **__: EdgeReport(facts, exported.rows, exported.floor))
    call = ["edge", str(folder / "store"), "--out", str(folder / "again")]
    assert main([*call, "--max-drift", "2%"]) == 1
    assert "is 3 %, and --max-drift allows 2 %" in capsys.readouterr().out
    assert main([*call, "--max-drift", "3%"]) == 0
    assert main([*call, "--max-drift", "0.02", "--json"]) == 1
    assert main([*call, "--max-drift", "7"]) == 2
    unknown = {**facts, "judged": 0, "noise_floor_iou": None, "same_prediction": 4}
    monkeypatch.setattr(edge_model, "export_edge", lambda *_, **__: EdgeReport(unknown, exported.rows, math.nan))
    capsys.readouterr()
    assert main([*call, "--max-drift", "100%"]) == 1
    printed = capsys.readouterr().out
    assert "the share of drifted explanations cannot be judged" in printed
    assert "note: the prediction changed for 5 images" in printed
    assert "note: 6 images showed the ranges of activations" in printed
    assert main(call) == 0
    assert main([*call, "--max-changed", "60%"]) == 0
    assert main([*call, "--max-changed", "0.5"]) == 1
    assert main([*call, "--max-changed", "x"]) == 2
    assert "--max-changed must be a share" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"count": 0}, "--count must be at least 1"),
        ({"masks": -1}, "--masks must be at least 1"),
        ({"prune": 1.5}, r"--prune must be a share of the channels in \(0, 1\)"),
        ({"trainer": "a:b"}, "say how much to remove with --prune"),
        ({"prune": 0.3, "trainer": "nocolon"}, "--trainer must be package.module:callable"),
    ],
)
def test_numbers_out_of_range_are_refused(folder: Path, options: dict[str, object], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        export_edge(folder / "store", folder / "none", **options)  # pyright: ignore[reportArgumentType]
    assert not (folder / "none").exists()


@pytest.mark.parametrize(
    ("calibration", "count", "seen", "measured"), [(12, 3, 12, 3), (3, 2, 3, 2), (14, 3, 12, 3), (500, 200, 7, 8), (1, 200, 1, 14)]
)  # fmt: skip
def test_as_many_images_calibrate_as_are_asked_for_and_can_be_spared(
    folder: Path, calibration: int, count: int, seen: int, measured: int
) -> None:
    images = load_run_images(open_store(str(folder / "store")), calibration, count)
    assert (len(images.calibration), len(images.measured)) == (seen, measured)


@pytest.mark.parametrize("left", [0, 1])
def test_a_data_set_without_the_run_s_images_is_refused(folder: Path, left: int) -> None:
    manifest = folder / "marked.csv"
    text = manifest.read_text()
    head, *lines = text.splitlines()
    try:
        manifest.write_text("\n".join([head, *lines[:left], f"other,{lines[0].split(',')[1]},0,"]))
        with pytest.raises(UsageError, match=rf"has {left} of the 15 images .* put the images back"):
            load_run_images(open_store(str(folder / "store")), 500, 200)
    finally:
        manifest.write_text(text)


def test_images_that_are_gone_are_left_out_and_counted(
    folder: Path, exported: EdgeReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export(module: nn.Module, shape: object, images: object, *paths: Path) -> None:
        for path in paths:
            path.write_bytes((folder / "edge" / path.name).read_bytes())

    monkeypatch.setitem(BACKENDS, "onnx", replace(BACKENDS["onnx"], export=export))
    gone = {"03", "05"}

    def read(sample: Sample, *arguments):
        if sample.id in gone:
            raise SampleError("decode_error", "gone")
        return prepare(sample, *arguments)

    monkeypatch.setattr(run_images, "prepare", read)
    report = export_edge(folder / "store", folder / "fewer", calibration=6, count=9, masks=2)
    assert report.facts["lost_images"] == 2
    assert report.facts["calibration_images"] + report.facts["images"] == IMAGES - 2
    assert "2 images of the run cannot be found or read any more and are left out" in edge_text(report)


def test_another_model_than_the_run_s_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tiny_net  # pyright: ignore[reportMissingImports]

    changed = tiny_net.model()
    with torch.no_grad():
        changed[0].bias += 1
    monkeypatch.setattr(tiny_net, "model", lambda: changed)
    with pytest.raises(RunMismatchError, match="has other weights or preprocessing now"):
        export_edge(folder / "store", folder / "none")


# pruning


def test_a_pruned_network_is_fine_tuned_and_measured_as_such(folder: Path) -> None:
    seen: list[int] = []

    def trainer(module: nn.Module) -> None:
        seen.append(count_parameters(module))
        with torch.no_grad():
            module[-1].bias += 0.25  # pyright: ignore[reportIndexIssue]

    report = export_edge(
        folder / "store", folder / "pruned", calibration=3, count=3, masks=10, prune=0.4, trainer=trainer
    )
    assert report.facts["edge_parameters"] == seen[0] < report.facts["parameters"]
    assert report.facts["fine_tuned"]
    assert "after pruning (fine-tuned)" in edge_text(report)


# ExecuTorch


def test_an_executorch_program_computes_what_the_onnx_file_does(folder: Path, exported: EdgeReport) -> None:
    pytest.importorskip("executorch", reason="the extra executorch is not installed")
    options = {"calibration": 6, "count": 9, "masks": 40}
    report = export_edge(folder / "store", folder / "executorch", backend="executorch", **options)
    assert report.facts["int8_bytes"] == (folder / "executorch" / "model.int8.pte").stat().st_size
    for row, other in zip(report.rows, exported.rows, strict=True):
        assert row.id == other.id
        assert row.edge_confidence == pytest.approx(other.edge_confidence, abs=0.05)
    assert "float32 ExecuTorch" in edge_text(report)


@pytest.mark.skipif(importlib.util.find_spec("executorch") is not None, reason="the extra executorch is installed")
def test_without_its_packages_a_backend_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"needs the extra `executorch` .*or take --backend onnx"):
        export_edge(folder / "store", folder / "none", backend="executorch")
    with pytest.raises(UsageError, match="--backend must be onnx or executorch, got 'onx'; did you mean 'onnx'"):
        export_edge(folder / "store", folder / "none", backend="onx")  # pyright: ignore[reportArgumentType]
