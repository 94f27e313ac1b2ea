"""The GPU measurements in their smallest form on a CPU, and what compares the stores of their runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ..support.checkout import ROOT, SHARED_DATA, checkout_module


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}
    )


def test_every_step_of_the_engine_runs_on_a_cpu(tmp_path: Path) -> None:
    steps = [step for step in checkout_module("bench.gpu.engine").STEPS if step != "peers"]
    done = run(sys.executable, "-m", "bench", "engine", "--smallest", "--out", str(tmp_path), "--steps", *steps)
    assert done.returncode == 0, done.stdout + done.stderr
    log = (tmp_path / "engine.log").read_text()
    assert "cpu beside cpu: max abs 0.0, counts equal True" in log
    assert log.count("## ") == len(steps)
    assert "consensus: " in log
    assert log.splitlines()[-1].endswith("done; failed: none")


def write_store(folder: Path, maps: dict[str, list[float]]) -> None:
    table = pa.table({
        "id": list(maps), "status": ["ok"] * len(maps), "device": ["cpu"] * len(maps),
        "map": pa.array(maps.values(), pa.list_(pa.float16())),
    })  # fmt: skip
    (folder / "maps").mkdir(parents=True)
    pq.write_table(table, folder / "maps" / "part-00000.parquet")


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({"a": [0, 1], "b": [0.5, 1]}, None),
        ({"a": [0, 1], "b": [0.25, 1]}, "not as it must be: second"),
        ({"a": [0, 1]}, "not as it must be: second"),
    ],
)
def test_runs_that_must_be_the_same_are_compared_map_by_map(
    tmp_path: Path,
    second: dict[str, list[float]],
    said: str | None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    comparison = checkout_module("bench.gpu.store_comparison")
    write_store(tmp_path / "first", {"a": [0, 1], "b": [0.5, 1]})
    write_store(tmp_path / "second", second)
    monkeypatch.setattr(sys, "argv", ["store_comparison", str(tmp_path), "first", "second", "--same", "second"])
    if said is None:
        comparison.main()
        assert "bit-equal maps 2 of 2, largest difference 0" in capsys.readouterr().out
    else:
        with pytest.raises(SystemExit, match=said):
            comparison.main()


def test_use_of_the_gpu_is_averaged_while_it_is_busy() -> None:
    lines = ["== ray1", "0 %, 10 MiB", "50 %, 900 MiB", "100 %, 1200 MiB", "[N/A]", "== cam", "0 %, 5 MiB"]
    assert checkout_module("bench.gpu.store_comparison").gpu_use(lines) == {
        "ray1": "mean use while busy 75 % of 3 samples, peak 1200 MiB",
        "cam": "mean use while busy 0 % of 1 samples, peak 5 MiB",
    }


def test_copies_take_the_images_in_turns(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.JPEG", "notes.txt"):
        (tmp_path / name).write_text(name)
    assert checkout_module("bench.gpu.copies").copy_images(tmp_path, tmp_path / "to", 3) == 2
    assert [path.read_text() for path in sorted((tmp_path / "to").iterdir())] == ["a.jpg", "b.JPEG", "a.jpg"]


@pytest.mark.soak
@pytest.mark.outside_files("shared/data/weights/mobilenet_v2_imagenet.safetensors")
def test_whole_runs_agree(tmp_path: Path) -> None:
    done = run(
        "bash", "bench/gpu/pipeline", SMALLEST="1", DATA=str(SHARED_DATA), OUT=str(tmp_path),
        STORES=str(tmp_path / "stores"),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "bit-equal maps 4 of 4" in done.stdout


def test_the_script_of_whole_runs_is_a_valid_one() -> None:
    assert run("bash", "-n", "bench/gpu/pipeline").returncode == 0
    assert run("bash", "-n", "bench/gpu/setup").returncode == 0


def test_numbers_of_a_map_are_read_as_they_are() -> None:
    apart = checkout_module("bench.gpu.store_comparison").differences(
        {"a": np.array([0.0, 1.0])}, {"a": np.array([0.5, 1.0])}
    )
    assert apart.tolist() == [0.5]
