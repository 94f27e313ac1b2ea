"""Edge models: what is exported, what is measured of it, and what fails the gate."""

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
from heatlas.engine.agreement import MapAgreement
from heatlas.engine.scoring.confidence import SEGMENTATION, SOFTMAX
from heatlas.errors import RunMismatchError, SampleError, UsageError
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.cli.edge import share_of
from heatlas.pipeline.edge import run_images
from heatlas.pipeline.edge.backends import BACKENDS
from heatlas.pipeline.edge.channel_pruning import count_parameters
from heatlas.pipeline.edge.drift import DriftRow, measure_drift, noise_floor
from heatlas.pipeline.edge.edge_model import EdgeReport, export_edge
from heatlas.pipeline.edge.run_images import load_run_images
from heatlas.pipeline.edge.summary import accuracy_facts, agreement_facts
from heatlas.pipeline.edge.text import edge_text
from heatlas.pipeline.edge.written_files import write_queue
from heatlas.pipeline.store.reader import open_store
from heatlas.workers.images.decode import Prepared, prepare
from heatlas.workers.samples import Sample
from scipy import stats
from torch import nn

from ..support.tiny_run import CLASSES, command, draw_all, importable_factory

IMAGES = 15
SAME = MapAgreement(1.0, 1.0, 0.0)


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


def drift_row(
    identity: str = "a", *, iou: float = 1.0, noise: float = 1.0, edge_prediction: int = 0, **more
) -> DriftRow:
    agreement, other = MapAgreement(0.5, iou, 0.1), MapAgreement(0.5, noise, 0.1)
    given = {"label": 0, "prediction": 0, "confidence": 0.9, "edge_confidence": 0.8, **more}
    return DriftRow(identity, edge_prediction=edge_prediction, agreement=agreement, noise=other, **given)


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


# what is drift


def test_drift_is_less_agreement_than_other_masks_leave_and_the_same_prediction() -> None:
    rows = [drift_row(str(place), noise=place / 100) for place in range(101)]
    assert noise_floor(rows) == pytest.approx(0.05)
    assert drift_row(iou=0.04).is_drift(0.05)
    assert not drift_row(iou=0.05).is_drift(0.05)
    assert not drift_row(iou=0.04, edge_prediction=1).is_drift(0.05), (
        "another prediction is no drift of the explanation"
    )
    assert drift_row(iou=math.nan).is_drift(0.05), "a map that says nothing where the base model's says something"
    assert not drift_row(iou=math.nan, noise=math.nan).is_drift(0.05)
    assert not drift_row(iou=math.nan, edge_prediction=1).is_drift(0.05)
    assert drift_row(edge_finite=False, edge_prediction=1).is_drift(0.05)
    assert math.isnan(noise_floor([drift_row(noise=math.nan)]))
    assert not drift_row(iou=0.0, noise=math.nan).is_drift(math.nan)


def test_an_edge_model_that_breaks_is_no_model_that_agrees(tmp_path: Path) -> None:
    def base(images: torch.Tensor) -> torch.Tensor:
        seen = images[:, :, :5, :5].mean(dim=(1, 2, 3))
        return torch.stack([torch.zeros_like(seen), 6 * seen - 2], dim=1)

    images = [(Sample(str(place), "x.png", 1), Prepared(torch.ones(3, 16, 16), None, 16, 16)) for place in range(3)]
    options = {"confidence": SOFTMAX, "masks": 60, "batch_size": 64}
    for edge, is_finite in (
        (lambda images: base(images) * math.nan, False),
        (lambda images: base(images) * 0 + torch.tensor([0.0, 1.0]), True),
    ):
        rows = list(measure_drift(images, base, edge, **options))
        floor = noise_floor(rows)
        assert [(row.edge_finite, row.is_lost, row.is_drift(floor)) for row in rows] == [(is_finite, True, True)] * 3
        facts = {**agreement_facts(rows, floor, ()), **accuracy_facts(rows)}
        assert facts["drift_share"] == 1
        assert json.loads(json.dumps(facts, allow_nan=False))["edge_not_finite"] == (0 if is_finite else 3)
        assert facts["accuracy"]["edge"]["mean"] == (1 if is_finite else 0)
        queue = pq.read_table(
            write_queue(str(tmp_path), rows, floor, {str(place): (1, "rise") for place in range(3)})
        ).to_pylist()
        assert [(row["id"], row["priority"], row["iou"]) for row in queue] == [
            (str(place), 1.0, None) for place in range(3)
        ]
        assert ("not finite" if not is_finite else "the same value") in queue[0]["reason"]


def test_coarse_logits_are_compared_with_marks_at_the_image_s_size() -> None:
    def painted(images: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(len(images), 2, 4, 4)
        logits[:, 1, :, :2] = 4 * images[:, 0, ::2, :4:2]
        logits[:, 0] += 1
        return logits

    truth = torch.zeros(8, 8, dtype=torch.bool)
    truth[:, :4] = True
    images = [(Sample("a", "x.png", 1), Prepared(torch.ones(3, 8, 8), truth, 8, 8))]
    [row] = measure_drift(images, painted, painted, confidence=SEGMENTATION, masks=30, batch_size=8)
    assert row.mask_iou == (1.0, 1.0)


def test_a_model_does_not_drift_from_itself_and_a_model_that_looks_elsewhere_does() -> None:
    def looks_at(part: slice):
        def network(images: torch.Tensor) -> torch.Tensor:
            seen = images[:, :, part, part].mean(dim=(1, 2, 3))
            return torch.stack([torch.zeros_like(seen), 6 * seen - 2], dim=1)

        return network

    upper, lower = looks_at(slice(0, 5)), looks_at(slice(11, 16))
    truth = torch.zeros(16, 16, dtype=torch.bool)
    truth[:5, :5] = True
    images = [(Sample(str(place), "x.png", 1), Prepared(torch.ones(3, 16, 16), truth, 16, 16)) for place in range(4)]
    options = {"confidence": SOFTMAX, "masks": 200, "batch_size": 64}
    for row in measure_drift(images, upper, upper, **options):
        assert row.agreement.iou == 1
        assert row.noise.iou < 1
        assert row.d_ebpg == 0
    rows = list(measure_drift(images, upper, lower, **options))
    floor = noise_floor(rows)
    assert all(row.same_prediction and row.is_drift(floor) for row in rows)
    assert all(row.d_ebpg < -0.1 for row in rows)
    assert {row.noise.iou for row in rows} != {rows[0].noise.iou}, "each image has masks of its own"


def test_of_dense_models_pixels_and_overlaps_are_compared() -> None:
    def painted(width: int):
        def network(images: torch.Tensor) -> torch.Tensor:
            logits = torch.zeros(len(images), 3, 8, 8)
            logits[:, 2, :, :width] = 4 * images[:, 0, :, :width]
            logits[:, 0] += 1
            return logits

        return network

    truth = torch.zeros(8, 8, dtype=torch.bool)
    truth[:, :4] = True
    images = [(Sample("a", "x.png", 2), Prepared(torch.ones(3, 8, 8), truth, 8, 8))]
    [row] = measure_drift(images, painted(4), painted(2), confidence=SEGMENTATION, masks=30, batch_size=8)
    assert (row.prediction, row.edge_prediction) == (2, 2)
    assert row.mask_iou == (1.0, 0.5)
    assert row.same_pixels == 0.75
    facts = accuracy_facts([row])
    assert facts["task"] == "segmentation"
    assert facts["change"]["mean"] == -0.5


def test_accuracies_have_wilson_s_intervals_and_the_exact_test() -> None:
    right_right, only_base, only_edge = 12, 5, 1
    rows = (
        [drift_row()] * right_right + [drift_row(edge_prediction=1)] * only_base + [drift_row(prediction=1)] * only_edge
    )
    rows += [drift_row(label=None)] * 3
    facts = accuracy_facts(rows)
    assert facts["labelled"] == 18
    assert facts["accuracy"]["base"]["mean"] == pytest.approx(17 / 18)
    expected = stats.binomtest(13, 18).proportion_ci(0.95, method="wilson")
    assert facts["accuracy"]["edge"]["interval"] == pytest.approx([expected.low, expected.high])
    assert facts["mcnemar_p"] == pytest.approx(stats.binomtest(1, 6).pvalue)
    assert facts["change"]["mean"] == pytest.approx(-4 / 18)
    low, high = facts["change"]["interval"]
    assert low < -4 / 18 < high
    assert accuracy_facts([drift_row(label=None)]) == {"task": "classification", "labelled": 0}


def test_classes_are_counted_by_what_the_base_model_predicts() -> None:
    rows = [drift_row(iou=0.1), drift_row(prediction=2, edge_prediction=2), drift_row(prediction=2, edge_prediction=0)]
    facts = agreement_facts(rows, 0.5, ("ant", "bee", "cat"))
    assert [(record["name"], record["images"], record["drifted"]) for record in facts["classes"]] == [("ant", 1, 1), ("cat", 2, 0)]  # fmt: skip
    assert facts["drift_share"] == pytest.approx(1 / 3)
    assert facts["same_prediction"] == 2


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
