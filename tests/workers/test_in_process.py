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


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c(tmp_path, presses, overlap):
    """Once: the shards in work are finished. Twice: they are left, too, and what is being completed beside them."""

    def press(event):
        if isinstance(event, ShardStarted) and event.shard == 1:
            for _ in range(presses):
                signal.raise_signal(signal.SIGINT)

    outcome = run(tmp_path, [""] * 6, on_event=press, overlap=overlap)
    assert outcome.interrupted
    done = [0, 1] if presses == 1 else [] if overlap else [0]
    assert outcome.done == done
    assert [shard for shard, _ in outcome.undone] == [shard for shard in range(3) if shard not in done]
    assert {int(part.stem[-6:]) for part in tmp_path.iterdir()} == set(done)


def test_an_interrupt_during_the_last_shard_leaves_nothing(tmp_path):
    def press(event):
        if isinstance(event, ShardStarted) and event.shard == 2:
            signal.raise_signal(signal.SIGINT)

    outcome = run(tmp_path, [""] * 6, on_event=press)
    assert (outcome.interrupted, outcome.done, outcome.undone) == (False, [0, 1, 2], [])


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


@pytest.mark.parametrize("overlap", [False, True])
def test_events_in_order(tmp_path, overlap):
    events = []
    run(tmp_path, [""] * 3, size=1, on_event=events.append, overlap=overlap)
    told = [
        (type(event).__name__[5:], event.shard) for event in events if isinstance(event, (ShardStarted, ShardFinished))
    ]
    one_by_one = [(name, shard) for shard in range(3) for name in ("Started", "Finished")]
    in_turns = [("Started", 0), ("Started", 1), ("Finished", 0), ("Started", 2), ("Finished", 1), ("Finished", 2)]
    assert told == (in_turns if overlap else one_by_one)
