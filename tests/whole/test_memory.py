"""The memory of a worker does not grow with the images it has seen; measured on the process, from outside."""

from __future__ import annotations

import os
import pathlib
import subprocess

import numpy as np
import pytest

from ..support.tiny_run import TAG, command, draw_all, environment, importable_factory, program, tagged, wait_until

PAGE = os.sysconf("SC_PAGE_SIZE")
SHARD = 10
pytestmark = pytest.mark.skipif(not pathlib.Path("/proc/self/statm").exists(), reason="reads memory from /proc")


def resident(pid: int) -> int:
    """Bytes in memory."""
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def watch(tmp_path: pathlib.Path, images: int, workers: int) -> np.ndarray:
    """Explain `images` images and return `(samples, 2)`: images done, bytes of the process that explains them."""
    out = tmp_path / "out"
    with importable_factory(tmp_path):
        draw_all(tmp_path / "images", images)
    how = ["--workers", str(workers), "--shard-size", str(SHARD), "--preprocess.size", "32"]
    base = command(tmp_path / "images", out, *how)
    at = base.index("--preprocess.size")
    del base[at : at + 2]
    settings = environment(tmp_path)
    run = subprocess.Popen(program(*base), env=settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    samples: list[tuple[int, int]] = []

    def sample() -> bool:
        done = len(list((out / "maps").glob("part-*.parquet"))) if (out / "maps").exists() else 0
        pid = worker_of(run.pid, settings[TAG]) if workers else run.pid
        # after the last part the run counts its rows, with libraries that it had not loaded before
        if 0 < done * SHARD < images and pid and (not samples or samples[-1][0] != done * SHARD):
            try:
                samples.append((done * SHARD, resident(pid)))
            except (FileNotFoundError, ProcessLookupError):
                return True
        return run.poll() is not None or done * SHARD >= images

    try:
        assert wait_until(sample, 3000), "the run did not end"
        assert run.wait(300) == 0
    finally:
        run.kill()
        run.wait()
    return np.array(samples)


def worker_of(driver: int, tag: str) -> int | None:
    return next((pid for pid, line in tagged(tag).items() if line.startswith("ray::ShardWorker")), None)


def growth(samples: np.ndarray, after: int) -> float:
    """Bytes per image, by least squares over what came after the first `after` images."""
    late = samples[samples[:, 0] > after]
    assert len(late) >= 10, f"only {len(late)} samples after {after} images"
    return float(np.polyfit(late[:, 0], late[:, 1], 1)[0])


@pytest.mark.timeout(900)
def test_memory_stays_flat_in_a_short_run(tmp_path: pathlib.Path):
    """A kept 32x32 float image, map and picture would be 20 kB an image; over 200 images the allocator needs some room."""
    samples = watch(tmp_path, 300, 0)
    assert growth(samples, 100) < 15_000, samples.tolist()


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("workers", [0, 1])
def test_memory_stays_flat_over_2000_images(workers: int, tmp_path: pathlib.Path):
    samples = watch(tmp_path, 2000, workers)
    assert growth(samples, 200) < 5_000, samples.tolist()
    late = samples[samples[:, 0] > 200, 1]
    assert late.max() - late[: len(late) // 10].max() < 20e6, samples.tolist()
