"""`--device cuda` where there is no GPU: refused before anything is written."""

from __future__ import annotations

import pathlib

import pytest
import torch
from heatlas.errors import UsageError
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.explain.device import refuse_missing_gpu
from heatlas.pipeline.settings.load import load_settings

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
REQUIRED = {"model": "torchvision:resnet18", "data": "images", "out": "out"}


@pytest.mark.parametrize("workers", ["0", "auto", "2"])
@pytest.mark.parametrize("command", ["explain", "plan"])
def test_cuda_without_a_gpu_is_refused_and_nothing_written(
    command: str, workers: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "images").mkdir()
    out = tmp_path / "out"
    line = [command, "--model", "torchvision:resnet18", "--data", str(tmp_path / "images"), "--out", str(out)]
    assert main([*line, "--device", "gpu", "--workers", workers]) == 2
    assert "--device cuda: torch sees no GPU on this machine; use --device cpu or auto" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("gpus", [0.0, 2.0])
def test_a_cluster_is_asked_for_its_gpus(gpus: float, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []

    def answer(address: str) -> float:
        asked.append(address)
        return gpus

    monkeypatch.setattr("heatlas.workers.ray.cluster.cluster_gpus", answer)
    settings = load_settings({**REQUIRED, "device": "cuda", "address": "head:6379"})
    if gpus:
        refuse_missing_gpu(settings)
    else:
        with pytest.raises(UsageError, match="the cluster at head:6379 has no GPU"):
            refuse_missing_gpu(settings)
    assert asked == ["head:6379"]


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_other_devices_look_for_nothing(device: str):
    refuse_missing_gpu(load_settings({**REQUIRED, "device": device}))
