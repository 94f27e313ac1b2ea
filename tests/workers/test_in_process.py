"""`--workers 0`: same rows and events, no Ray."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from heatlas.errors import TooManyErrorsError, WorkerStartError
from heatlas.workers.events import ShardFinished, ShardStarted, event_record
from heatlas.workers.in_process import explain_in_process

from ..support import fake_engine
from ..support.fake_engine import FailingSink, NoReader, PickleSink, build_fake, failing_build, fake_spec, make_shards


def run(folder, uris, size=2, *, sink=None, build=build_fake, on_event=lambda event: None, **options):
    shards, samples = make_shards(uris, size)
    return explain_in_process(
        shards, lambda shard: samples[shard.index], fake_spec(), NoReader(), sink or PickleSink(folder),
        on_event=on_event, build=build, **options,
    )  # fmt: skip


def test_calm_run(tmp_path):
    events = []
    outcome = run(tmp_path, ["", "decode:sample_error", "", "push:raise", ""], on_event=events.append)
    assert outcome.done == [0, 1, 2]
    assert outcome.statuses == {"ok": 3, "decode_error": 1, "explain_error": 1}
    assert [row.sample.id for row in PickleSink(tmp_path).rows(1)] == ["s2", "s3"]
    assert all(json.loads(json.dumps(event_record(event)))["event"] for event in events)
    assert [event.shard for event in events if isinstance(event, ShardStarted)] == [0, 1, 2]


def test_failing_start(tmp_path):
    with pytest.raises(WorkerStartError, match="could not start: the weights are missing; look elsewhere"):
        run(tmp_path, [""], build=failing_build)


def test_breaker(tmp_path):
    with pytest.raises(TooManyErrorsError, match="20 of the last 20 images failed"):
        run(tmp_path, ["decode:sample_error"] * 40, size=20, max_error_rate=0.5)


def test_failing_storage_names_the_shards(tmp_path):
    outcome = run(tmp_path, [""] * 4, sink=FailingSink(), shard_retries=1)
    assert outcome.undone == [(index, "2 attempts failed, the last: OSError: the disk is full") for index in range(2)]


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c(tmp_path, presses):
    """Once: the shard in work is finished. Twice: it is left, too."""

    def press(event):
        if isinstance(event, ShardStarted) and event.shard == 1:
            for _ in range(presses):
                signal.raise_signal(signal.SIGINT)

    outcome = run(tmp_path, [""] * 6, on_event=press)
    assert outcome.interrupted
    assert outcome.done == ([0, 1] if presses == 1 else [0])
    assert [shard for shard, _ in outcome.undone] == ([2] if presses == 1 else [1, 2])


def test_ray_is_not_imported(tmp_path):
    code = f"""
import sys
sys.path.insert(0, {str(Path(fake_engine.__file__).parent)!r})
from pathlib import Path
from fake_engine import *
from heatlas.workers.in_process import explain_in_process
import heatlas.workers.ray.supervisor, heatlas.workers.worker.build
shards, samples = make_shards(["", ""], 1)
outcome = explain_in_process(
    shards, lambda shard: samples[shard.index], fake_spec(), NoReader(), PickleSink(Path({str(tmp_path)!r})), build=build_fake
)
assert outcome.rows == 2
assert "ray" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_events_in_order(tmp_path):
    events = []
    run(tmp_path, [""] * 2, size=1, on_event=events.append)
    names = [type(event).__name__ for event in events if isinstance(event, (ShardStarted, ShardFinished))]
    assert names == ["ShardStarted", "ShardFinished"] * 2
