"""The trial that chooses precision, forward and batch size: by hand, on devices made of tables."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest
from heatlas.engine.scoring.pace_trial import (
    AGREEMENT,
    COMPILING_PAYS_SECONDS,
    FIRST_BATCH,
    LARGEST_BATCH,
    AskedPace,
    PaceTrial,
    choose_pace,
)
from hypothesis import given
from hypothesis import strategies as st

MANY = 1e9
"""Images enough for compiling to pay."""


@dataclass
class TableDevice:
    """A device whose rate saturates: `peak` forwards a second times the factors, half of it at a batch of `half`."""

    precisions: tuple[str, ...] = ("fp32", "tf32", "bf16")
    forwards: tuple[str, ...] = ("eager", "fold_bn", "compile", "cuda_graph")
    faster: dict[str, float] = field(default_factory=lambda: {"tf32": 2.0, "bf16": 3.0})
    agreements: dict[str, float | None] = field(default_factory=lambda: {"tf32": 0.99, "bf16": 0.98})
    peak: float = 1000.0
    half: float = 64.0
    memory: int = 10**9
    """Rows that fit."""
    name: str = "cuda:Table"
    compared: int = 8
    image_seconds: float | None = 1.0
    image_forwards: float | None = 1000.0
    budgets: dict[str, float] = field(default_factory=dict)
    """Seconds of an image."""
    asked: list[tuple[str, str, int]] = field(default_factory=list)

    def rate(self, precision: str, forward: str, batch_size: int) -> float | None:
        self.asked.append((precision, forward, batch_size))
        if batch_size > self.memory:
            return None
        factor = self.faster.get(precision, 1.0) * self.faster.get(forward, 1.0)
        return self.peak * factor * batch_size / (batch_size + self.half)

    def agreement(self, precision: str, batch_size: int) -> float | None:
        return self.agreements[precision]

    def image_seconds_with(self, budget: str, precision: str, forward: str, batch_size: int) -> float:
        return self.budgets[budget]


def chosen(device: TableDevice, images: float = MANY, **asked: object) -> tuple[str, str, int]:
    trial = choose_pace(device, AskedPace(**asked), images=images)  # type: ignore[arg-type]
    assert trial.device == device.name
    assert trial.rate == device.rate(trial.precision, trial.forward, trial.batch_size)
    assert PaceTrial.of_record(json.loads(json.dumps(trial.record()))) == trial
    return trial.precision, trial.forward, trial.batch_size


def test_the_fastest_that_agrees_is_taken():
    assert chosen(TableDevice())[0] == "bf16"
    assert chosen(TableDevice(agreements={"tf32": 0.99, "bf16": AGREEMENT - 0.001}))[0] == "tf32"
    assert chosen(TableDevice(agreements={"tf32": 0.5, "bf16": 0.5}))[0] == "fp32"
    assert chosen(TableDevice(agreements={"tf32": None, "bf16": None}))[0] == "fp32"  # no image gave a map


def test_what_is_hardly_faster_is_not_taken():
    assert chosen(TableDevice(faster={"tf32": 1.04, "bf16": 0.7}))[0:2] == ("fp32", "eager")
    assert chosen(TableDevice(faster={"fold_bn": 1.04, "cuda_graph": 0.9}, precisions=("fp32",)))[1] == "eager"


def test_agreement_is_measured_of_the_faster_ones_only():
    device = TableDevice(agreements={"bf16": 0.98})  # tf32 would be a KeyError
    trial = choose_pace(device, AskedPace(), images=MANY)
    assert trial.agreement == {"bf16": 0.98}
    assert trial.images == 8


@pytest.mark.parametrize(("half", "batch"), [(1.0, 64), (64.0, 1024), (10.0**9, LARGEST_BATCH)])
def test_the_batch_grows_until_the_rate_does_not(half: float, batch: int):
    """By hand: twice the batch is 2 (b + h) / (2 b + h) times as fast, which is at least 1.05 up to b = 9 h, so 576 for h = 64."""
    assert chosen(TableDevice(half=half, forwards=("eager",)))[2] == batch


@pytest.mark.parametrize(("memory", "batch"), [(700, 512), (63, 32), (1, 1), (0, 1)])
def test_the_batch_stays_where_memory_ends(memory: int, batch: int):
    device = TableDevice(memory=memory, half=10.0**9)
    trial = choose_pace(device, AskedPace(), images=MANY)
    assert trial.batch_size == batch


@pytest.mark.parametrize(("images", "forward"), [(MANY, "compile"), (1, "cuda_graph")])
def test_compiling_is_tried_only_where_it_pays(images: float, forward: str):
    device = TableDevice(faster={"fold_bn": 1.1, "cuda_graph": 1.2, "compile": 1.5}, precisions=("fp32",))
    assert chosen(device, images)[1] == forward
    assert any(kind == "compile" for _, kind, _ in device.asked) == (forward == "compile")


def test_compiling_pays_from_so_many_seconds_on():
    device = TableDevice(faster={"compile": 1.5}, precisions=("fp32",), half=0.0, image_forwards=1000.0)
    enough = COMPILING_PAYS_SECONDS * device.peak / 1000.0  # seconds times forwards a second over forwards an image
    assert chosen(device, enough)[1] == "compile"
    assert chosen(device, enough * 0.99)[1] == "eager"


def test_what_the_user_decided_stays():
    device = TableDevice(faster={"bf16": 3.0, "tf32": 2.0, "cuda_graph": 2.0})
    assert chosen(device, precision="fp32")[0] == "fp32"
    assert chosen(device, forward="fold_bn")[1] == "fold_bn"
    assert chosen(device, batch_size=100)[2] == 100
    assert {batch for _, _, batch in TableDevice().asked} == set()
    settled = TableDevice()
    assert chosen(settled, precision="tf32", forward="eager", batch_size=7) == ("tf32", "eager", 7)
    assert set(settled.asked) == {("tf32", "eager", 7)}


@pytest.mark.parametrize(("fast", "kept"), [(0.04, "fast"), (0.05, "exact"), (0.14, "exact")])
def test_a_preset_that_saves_no_time_is_dropped(fast: float, kept: str):
    seconds = {"fast": fast, "exact": 0.05}
    trial = choose_pace(TableDevice(budgets=seconds), AskedPace(budget="fast"), images=MANY)
    assert (trial.budget, trial.budget_seconds) == (kept, seconds)
    assert PaceTrial.of_record(json.loads(json.dumps(trial.record()))) == trial


def test_nothing_is_measured_twice():
    device = TableDevice()
    trial = choose_pace(device, AskedPace(), images=MANY)
    assert len(device.asked) == len(set(device.asked)) == len(trial.tried)
    assert device.asked[0] == ("fp32", "eager", FIRST_BATCH)


@given(
    half=st.floats(0.0, 1e5), memory=st.integers(1, 10**5),
    faster=st.dictionaries(st.sampled_from(["tf32", "bf16", "fold_bn", "compile", "cuda_graph"]), st.floats(0.1, 5.0)),
)  # fmt: skip
def test_a_choice_fits_and_is_never_slower_than_the_plain_way(half: float, memory: int, faster: dict[str, float]):
    device = TableDevice(half=half, memory=memory, faster=faster)
    trial = choose_pace(device, AskedPace(), images=MANY)
    assert 1 <= trial.batch_size <= min(memory, LARGEST_BATCH)
    plain = device.rate("fp32", "eager", min(FIRST_BATCH, trial.batch_size))
    assert plain is not None
    assert trial.rate >= plain * 0.999
