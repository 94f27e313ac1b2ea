"""An engine without a model that misbehaves on named samples. It travels to actors by value: they need not find this file.

A sample's uri says what happens when it is decoded (`decode:ACTION`) or pushed (`push:ACTION`); see `act`.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import time
from pathlib import Path

import torch
from heatlas.engine.scoring.whole_image import ClassOverview
from heatlas.engine.session import Explained
from heatlas.engine.time_spent import WorkMeter
from heatlas.errors import ModelError, SampleError
from heatlas.workers.images.decode import Prepared
from heatlas.workers.samples import Sample, Shard
from heatlas.workers.worker.spec import WorkerSpec


def act(uri: str, stage: str) -> None:
    for order in uri.split(","):
        at, _, action = order.partition(":")
        if at != stage:
            continue
        match action.split("="):
            case ["raise"]:
                raise RuntimeError("the fake engine raised")
            case ["sample_error"]:
                raise SampleError("decode_error", "not an image")
            case ["segfault"]:
                ctypes.string_at(0)
            case ["abort"]:
                os.abort()
            case ["broken_device_once", path]:
                if not Path(path).exists():
                    Path(path).touch()
                    FakeEngine.broken = True
                    raise RuntimeError("CUDA error: an illegal memory access was encountered")
            case ["hang"]:
                time.sleep(3600)
            case ["pid", path]:
                Path(path).write_text(str(os.getpid()))
            case ["where", folder]:
                import ray

                node, gpus = ray.get_runtime_context().get_node_id(), os.environ.get("CUDA_VISIBLE_DEVICES", "")
                (Path(folder) / f"{node}_{os.getpid()}_{gpus}").touch()
            case ["devour_once", path, size]:
                if not Path(path).exists():
                    Path(path).touch()
                    meal = bytearray(int(size))
                    for at in range(0, len(meal), 4096):
                        meal[at] = 1
                    time.sleep(60)
            case ["sleep", seconds]:
                time.sleep(float(seconds))
            case ["sigkill_once" | "sigstop_once" as name, path]:
                if not Path(path).exists():
                    Path(path).touch()
                    os.kill(os.getpid(), signal.SIGKILL if name == "sigkill_once" else signal.SIGSTOP)
            case _:
                raise ValueError(f"unknown action {action!r}")


def said(label: int | None) -> ClassOverview:
    """Class 1 before class 4 before the others, which are below a sigmoid of 0.5."""
    ranking = torch.full((10,), -1.0)
    ranking[1], ranking[4] = 3.0, 2.0
    return ClassOverview(ranking, ((1, 0.75), (4, 0.25)), 0.25 if label == 4 else None, torch.arange(3.0))


class FakeSession:
    """Gives an image back when `depth` others have been pushed after it, like packed batches do."""

    def __init__(self, depth: int = 2):
        self.depth = depth
        self.held: list[tuple[int, str, int | None, int | None]] = []

    def push(self, key, image, *, target=None, truth=None, label=None, sample_seed=None, given=None):
        uri = bytes(image.to(torch.uint8).flatten().tolist()).decode()
        self.held.append((key, uri, target, label))
        act(uri, "push")
        return self._leave(self.depth)

    def finish(self):
        return self._leave(0)

    def reset(self):
        self.held.clear()

    def _leave(self, keep: int):
        result = []
        while len(self.held) > keep:
            key, _, target, label = self.held.pop(0)
            map_ = torch.full((2, 2), 0.5)
            result.append(
                Explained("ok", None, 1, 1 if target is None else target, 0.5, 0.1, map_, mask_counts=(3,), n_forwards=10, key=key,
                          metrics={"drop_pct": float(key % 2**40), "ebpg": None}, seconds=0.01, overview=said(label))
            )  # fmt: skip
        return result


class FakeEngine:
    broken = False
    num_classes = 10
    batch_size = 8
    notes: tuple[str, ...] = ()
    precision = "fp32"

    def __init__(self, spec: WorkerSpec, reader):
        self.spec = spec
        self.session = FakeSession()
        self.meter = WorkMeter()
        self.device = f"cpu:{os.environ.get('CUDA_VISIBLE_DEVICES', '')}"

    def prepare(self, sample: Sample, reader) -> Prepared:
        act(sample.uri, "decode")
        image = torch.tensor(list(sample.uri.encode()), dtype=torch.float32).reshape(1, 1, -1)
        return Prepared(image, None, 4, 6)

    def overview(self, image: torch.Tensor, label: int | None) -> ClassOverview:
        """As `said`."""
        act(bytes(image.to(torch.uint8).flatten().tolist()).decode(), "rank")
        return said(label)

    def shrink(self) -> bool:
        if self.batch_size == 1:
            return False
        self.batch_size //= 2
        return True

    def usable(self) -> bool:
        return not self.broken


class NotedEngine(FakeEngine):
    notes = ("slower than asked for",)


def failing_build(spec: WorkerSpec, reader):
    raise ModelError("the weights are missing; look elsewhere")


def hanging_build(spec: WorkerSpec, reader):
    time.sleep(3600)


def build_fake(spec: WorkerSpec, reader):
    return FakeEngine(spec, reader)


class NoReader:
    def read(self, uri: str) -> bytes:
        raise SampleError("read_error", "there is nothing to read")


class PickleSink:
    """Commits like the real one: the first to link its file wins."""

    def __init__(self, folder: Path):
        self.folder = folder

    def path(self, index: int) -> Path:
        return self.folder / f"part-{index:06d}.pickle"

    def commit(self, shard: Shard, rows) -> bool:
        part = self.folder / f".tmp-{shard.index}-{os.getpid()}"
        part.write_bytes(pickle.dumps((list(rows), os.getpid())))
        try:
            os.link(part, self.path(shard.index))
        except FileExistsError:
            return False
        finally:
            part.unlink()
        return True

    def rows(self, index: int):
        return pickle.loads(self.path(index).read_bytes())[0]

    def pid(self, index: int) -> int:
        return pickle.loads(self.path(index).read_bytes())[1]


class FailingSink:
    """Storage that is down."""

    def commit(self, shard: Shard, rows) -> bool:
        raise OSError("the disk is full")


def make_shards(uris: list[str], size: int) -> tuple[list[Shard], dict[int, list[Sample]]]:
    """Shards of `size` over samples `s0, s1, ...` with these uris."""
    samples = [Sample(id=f"s{number}", uri=uri or "-") for number, uri in enumerate(uris)]
    starts = range(0, len(uris), size)
    shards = [Shard(index, start, min(start + size, len(uris))) for index, start in enumerate(starts)]
    return shards, {shard.index: samples[shard.start : shard.stop] for shard in shards}


def fake_spec(**changes) -> WorkerSpec:
    return WorkerSpec(**{"model": None, **changes})
