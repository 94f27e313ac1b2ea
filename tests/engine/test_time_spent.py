"""Each moment is charged to one stage; the engine and the store charge theirs."""

from __future__ import annotations

import pytest
import torch
from heatlas.engine.methods.registry import bind_method
from heatlas.engine.session import ExplainSession
from heatlas.engine.time_spent import WorkMeter, measured_by, stage

from ..support.oracle_nets import three_blocks


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def fail(meter: WorkMeter, clock: Clock) -> None:
    with meter.at("encoding"):
        clock.now += 10
        raise KeyError


def test_an_inner_stage_stops_the_outer_one():
    clock = Clock()
    meter = WorkMeter(clock)
    clock.now = 5.0  # before anything began
    with meter.at("commit"):
        clock.now += 1
        with pytest.raises(KeyError):
            fail(meter, clock)
        clock.now += 2
    clock.now += 100
    meter.add("decoding", 7)

    assert meter.take() == ({"commit": 3, "encoding": 10, "decoding": 7}, 0)
    assert meter.take() == ({}, 0)


def test_a_stage_without_a_meter_is_nobody_s():
    meter = WorkMeter()
    with stage("encoding"):
        pass
    with measured_by(meter), stage("encoding"):
        pass
    with stage("encoding"):
        pass

    assert list(meter.take()[0]) == ["encoding"]


def test_the_engine_charges_its_work_and_counts_padding():
    meter = WorkMeter()
    explainer = bind_method("rise", three_blocks(0), batch_size=64, masks=20)
    session = ExplainSession(explainer, ["drop_pct", "entropy"], meter=meter)
    result = session.push(0, torch.rand(3, 24, 24)) + session.finish()
    seconds, padded = meter.take()

    assert result[0].status == "ok"
    assert {"gradients", "masks", "forwards", "method", "metrics"} == set(seconds)
    assert all(value > 0 for value in seconds.values())
    assert padded == 12 + 14, "20 masks in two forwards of 16 rows, and two probes in one"
