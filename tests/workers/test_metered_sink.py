"""Metrics of Ray: counted at the commit, once an image, also inside a real actor process."""

from __future__ import annotations

import pickle
from collections import Counter

import pytest
import ray.util.metrics
from heatlas.workers.ray.sink_metrics import SECONDS, MeteredSink
from heatlas.workers.samples import Row, Sample, Shard

from ..support.fake_engine import FailingSink, PickleSink

SHARD = Shard(0, 0, 3)


@pytest.fixture
def recorded(monkeypatch):
    """What Ray's metrics were told, by name and tags."""
    told: Counter = Counter()
    observed: dict[str, list[float]] = {}

    class Fake:
        def __init__(self, name, description="", tag_keys=(), boundaries=None):
            self.name = name
            assert description
            assert boundaries is None or boundaries == sorted(boundaries)

        def inc(self, value, tags=None):
            assert value > 0
            told[(self.name, *(tags or {}).values())] += value

        def observe(self, value):
            observed.setdefault(self.name, []).append(value)

    monkeypatch.setattr(ray.util.metrics, "Counter", Fake)
    monkeypatch.setattr(ray.util.metrics, "Histogram", Fake)
    return told, observed


def rows():
    samples = [Sample(id=name, uri=name) for name in "abc"]
    return [
        Row(samples[0], "ok", n_forwards=40, seconds=0.5),
        Row(samples[1], "ok", n_forwards=2, seconds=1.5),
        Row(samples[2], "decode_error", "no image"),
    ]


def test_images_errors_forwards_and_seconds(recorded, tmp_path):
    sink = MeteredSink(PickleSink(tmp_path))
    assert sink.commit(SHARD, rows())
    told, observed = recorded
    assert told == {
        ("heatlas_images", "ok"): 2,
        ("heatlas_images", "decode_error"): 1,
        ("heatlas_errors",): 1,
        ("heatlas_forwards",): 42,
    }
    assert observed == {"heatlas_image_seconds": [0.5, 1.5]}


def test_images_of_a_lost_race_are_not_counted_again(recorded, tmp_path):
    sink = MeteredSink(PickleSink(tmp_path))
    sink.commit(SHARD, rows())
    assert not sink.commit(SHARD, rows())
    told, _ = recorded
    assert told[("heatlas_images", "ok")] == 2
    assert told[("heatlas_forwards",)] == 84


def test_what_was_not_committed_is_not_counted(recorded):
    with pytest.raises(OSError, match="the disk is full"):
        MeteredSink(FailingSink()).commit(SHARD, rows())
    assert not recorded[0]


def test_it_travels_and_works_with_the_real_metrics(tmp_path):
    sink = pickle.loads(pickle.dumps(MeteredSink(PickleSink(tmp_path))))
    assert sink.commit(SHARD, rows())
    assert sink._meters.images.info["name"] == "heatlas_images"
    assert sink._meters.seconds.info["boundaries"] == SECONDS
