"""`heatlas edge`: export a run's model to int8, and say what that costs in accuracy and in explanations."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...engine.layers.outputs import logits_of
from ...engine.random_mask_maps import Network
from ...errors import UsageError
from ..store.reader import StoreReader, open_store
from .backends import Backend, BackendName, find_backend
from .channel_pruning import count_parameters, fine_tuned, load_trainer, prune_channels, refuse_zero_masks
from .drift import DriftRow, measure_drift, noise_floor
from .latency import cpu_name, measure_latency
from .run_images import RunImages, load_run_images
from .summary import accuracy_facts, agreement_facts
from .written_files import FLOAT_NAME, INT8_NAME, sidecar_text, write_files, write_queue

CALIBRATION_IMAGES = 128
IMAGES = 200
MASKS = 256
BATCH_SIZE = 64
LATENCY_CALLS = 100


@dataclass(frozen=True)
class EdgeReport:
    """What the export costs."""

    facts: dict[str, Any]
    """As `edge.json` has them."""
    rows: list[DriftRow]
    floor: float
    """Agreement (IoU) below which a map has drifted."""

    @property
    def drift_share(self) -> float:
        """Share of the images whose explanation drifted although the prediction stayed, in [0, 1]; NaN where no explanation of the base model
        says anything, so that none can drift."""
        return self.facts["drift_share"] if self.facts["judged"] or self.facts["edge_not_finite"] else math.nan

    @property
    def changed_share(self) -> float:
        """Share of the images for which the prediction changed, in [0, 1]."""
        return 1 - self.facts["same_prediction"] / self.facts["images"]


def export_edge(
    store: str | os.PathLike[str] | StoreReader,
    out: str | os.PathLike[str],
    *,
    calibration: int = CALIBRATION_IMAGES,
    count: int = IMAGES,
    masks: int = MASKS,
    threads: int = 1,
    backend: BackendName = "onnx",
    prune: float | None = None,
    trainer: str | Callable[[nn.Module], nn.Module | None] | None = None,
) -> EdgeReport:
    """Export the model of a run as float32 and as int8, and compare it with the latter on images of the run. Runs the model's code.

    Args:
        store: Directory or URI of a run's store, or the store opened.
        out: Folder or URI: `model.fp32.onnx`, `model.int8.onnx` (or `.pte`), a sidecar beside each, `edge.json`, `agreement.parquet`. The store gets the
            queue `edge_drift`.
        calibration: Images on which ranges of activations are seen; none of them is measured.
        count: Images on which the models are compared.
        masks: RISE masks an image.
        threads: Of one inference whose time is measured.
        backend: `onnx` (ONNX Runtime) or `executorch` (ExecuTorch with XNNPACK, one image at a time).
        prune: Share of the channels to remove first, in (0, 1); None for none.
        trainer: `package.module:callable`, or the callable: fine-tunes the pruned network.

    Raises:
        UsageError: If packages of the backend are missing, a number is out of range, or images are too few.
        RunMismatchError: If the model is not the run's any more.
        ModelError: If it cannot be exported or pruned.
    """
    for name, value in (("--calibration", calibration), ("--count", count), ("--masks", masks), ("--threads", threads)):
        if value < 1:
            raise UsageError(f"{name} must be at least 1, got {value}")
    if trainer is not None and prune is None:
        raise UsageError("--trainer fine-tunes a pruned network; say how much to remove with --prune")
    kind = find_backend(backend)
    kind.require()
    tune = load_trainer(trainer) if isinstance(trainer, str) else trainer
    atlas = store if isinstance(store, StoreReader) else open_store(store)
    images = load_run_images(atlas, calibration, count)
    refuse_zero_masks(images.model.module, images.spec)
    network = images.model.module if prune is None else prune_channels(images.model.module, images.shape, prune)
    if tune is not None:
        network = fine_tuned(tune, network)
    files, seen = _exported(kind, network, images)
    exported, edge = (kind.load(data, name, threads).eval() for name, data in files.items())
    rows = list(
        measure_drift(
            images.read(images.measured), network_of(images.model.module), network_of(edge), confidence=images.confidence,
            masks=masks, batch_size=BATCH_SIZE,
        )
    )  # fmt: skip
    if not rows:
        raise UsageError(
            f"none of {len(images.measured)} images of {atlas.uri} that are to be measured can be read any more; put them back"
        )
    floor = noise_floor(rows)
    facts = {
        "store": atlas.uri, "model": images.spec, "calibration_images": seen, "lost_images": len(images.rows) - seen - len(rows), "masks": masks, "threads": threads, "cpu": cpu_name(),
        "backend": backend, "pruned_share": prune, "fine_tuned": tune is not None, **_sizes(images, network, files),
        "latency": _latencies(images, {"torch": images.model.module, "float": exported, "int8": edge}, threads),
        **accuracy_facts(rows), **agreement_facts(rows, floor, atlas.class_names),
    }  # fmt: skip
    report = EdgeReport(facts, rows, floor)
    sidecar = sidecar_text(images.model.preprocess, atlas.class_names)
    write_files(os.fspath(out), files, sidecar, facts, [row.record(floor) for row in rows])
    write_queue(atlas.uri, rows, floor, images.rows)
    return report


def _exported(backend: Backend, network: nn.Module, images: RunImages) -> tuple[dict[str, bytes], int]:
    """The files of the float32 and of the int8 model by name, and how many images showed the ranges of activations."""
    seen = [prepared.image.numpy() for _, prepared in images.read(images.calibration)]
    if not seen:
        raise UsageError(
            f"none of {len(images.calibration)} images that are to calibrate can be read any more; put them back"
        )
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{name}{backend.suffix}" for name in (FLOAT_NAME, INT8_NAME)]
        backend.export(network, images.shape, seen, *paths)
        return {path.name: path.read_bytes() for path in paths}, len(seen)


def network_of(module: nn.Module) -> Network:
    """The module as a function from images to logits, without gradients."""

    def network(images: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return logits_of(module(images))

    return network


def _sizes(images: RunImages, network: nn.Module, files: Mapping[str, bytes]) -> dict[str, Any]:
    """Bytes of the int8 file beside those of the base model's weights as float32: what is removed by pruning counts."""
    parameters, (as_float, as_int8) = count_parameters(images.model.module), (len(data) for data in files.values())
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in images.model.module.buffers())
    base = 4 * parameters + buffers
    return {
        "parameters": parameters, "edge_parameters": count_parameters(network), "base_bytes": base,
        "float_bytes": as_float, "int8_bytes": as_int8, "size_share": as_int8 / as_float, "base_size_share": as_int8 / base,
    }  # fmt: skip


def _latencies(images: RunImages, modules: Mapping[str, nn.Module], threads: int) -> dict[str, Any]:
    """Of one image: the model in PyTorch, and the exported one as float32 and as int8."""
    image, before = torch.rand(1, *images.shape), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return {name: asdict(_timed(module, image)) for name, module in modules.items()}
    finally:
        torch.set_num_threads(before)


def _timed(module: nn.Module, image: torch.Tensor) -> Any:
    network = network_of(module)
    return measure_latency(lambda: network(image), LATENCY_CALLS)
