"""The paper's five metrics: against the oracle, with numbers by hand, on ties, on nothing, in any batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from heatlas.engine.methods.sise import SISE
from heatlas.engine.metrics import METRICS, Evidence, rank_pixels
from heatlas.engine.metrics.protocol import Subject
from heatlas.engine.requests import Job
from heatlas.engine.scoring.masked_scorer import Scorer
from heatlas.engine.scoring.scoring_options import Scoring
from heatlas.engine.session import Explained, ExplainSession
from heatlas.errors import SettingsError
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ..support import reference
from ..support.oracle_nets import images_like, three_blocks

PAPER = ("drop_pct", "increase", "ebpg", "miou", "bbox")
LOCAL = ("ebpg", "miou", "bbox")
SIZE = (20, 24)


def localise(maps: Tensor, truth: Tensor) -> dict[str, list[float | None]]:
    """Every localisation metric of a batch; None where it is not defined."""
    evidence = Evidence(maps, rank_pixels(maps), truth, {})
    result = {name: METRICS[name].measure(evidence).tolist() for name in LOCAL}
    return {name: [None if value != value else value for value in values] for name, values in result.items()}


def faithfulness(model: nn.Module, image: Tensor, map_: Tensor, target: int, batch_size: int = 4) -> dict[str, float]:
    """Drop and increase of one map, which need not be an explanation."""
    order = rank_pixels(map_[None])[0]
    scorer = Scorer(model, Scoring(batch_size=batch_size))
    probes = {probe.name: probe for name in ("drop_pct", "increase") for probe in METRICS[name].probes}
    subject = Subject(image=image, map=map_, order=order, target=target, prediction=target)
    jobs = {name: Job(probe.count, target, probe.make(subject).fill) for name, probe in probes.items()}
    scorer.submit(*jobs.values(), like=image)
    scorer.flush()
    evidence = Evidence(map_[None], order[None], None, {name: job.scores[None] for name, job in jobs.items()})
    return {name: float(METRICS[name].measure(evidence)[0]) for name in ("drop_pct", "increase")}


def tied_maps(count: int, seed: int) -> Tensor:
    """Maps as SISE makes them: more than half of the pixels exactly zero, few different values."""
    values = torch.rand(count, *SIZE, generator=torch.Generator().manual_seed(seed))
    return torch.where(values > 0.6, (values * 5).floor() / 5, 0)


def boxes(count: int, seed: int) -> Tensor:
    random = np.random.default_rng(seed)
    truth = torch.zeros(count, *SIZE, dtype=torch.bool)
    for row in range(count):
        top, left = random.integers(0, 15), random.integers(0, 18)
        truth[row, top : top + random.integers(1, 12), left : left + random.integers(1, 14)] = True
    return truth


def test_every_metric_of_the_paper_has_its_definition():
    for name in PAPER:
        assert METRICS[name].definition == f"{name}/v1"
        assert METRICS[name].formula
    assert [METRICS[name].better for name in PAPER] == ["lower", "higher", "higher", "higher", "higher"]
    assert METRICS["drop_pct"].range == (0, 100)


# --------------------------------------------------------------------------------------------------------- against the oracle


@pytest.mark.parametrize("seed", range(4))
def test_localisation_equals_the_oracle(seed: int):
    maps, truth = tied_maps(5, seed), boxes(5, seed)
    result = localise(maps, truth)
    for row in range(5):
        map_, inside = maps[row].double().numpy(), truth[row].numpy()
        assert result["ebpg"][row] == pytest.approx(reference.ebpg(map_, inside), abs=1e-6)
        assert result["miou"][row] == pytest.approx(reference.miou(map_, inside), abs=1e-6)
        assert result["bbox"][row] == pytest.approx(reference.bbox(map_, inside), abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_faithfulness_equals_the_oracle(seed: int):
    model, images, maps = three_blocks(seed), images_like(3, 3, SIZE, seed=seed), tied_maps(3, seed)
    for row in range(3):
        result = faithfulness(model, images[row], maps[row], row)
        drop, increase = reference.drop_and_increase(model, images[row], row, maps[row].double().numpy())
        assert result["drop_pct"] == pytest.approx(drop, abs=1e-2)
        assert result["increase"] == increase


def test_faithfulness_takes_both_values():
    """The comparison above would prove little if every drop were 0 and every increase 1."""
    rows = [(three_blocks(seed), images_like(3, 3, SIZE, seed=seed)[row], row, tied_maps(3, seed)[row].double().numpy())
            for seed in range(4) for row in range(3)]  # fmt: skip
    results = [reference.drop_and_increase(*row) for row in rows]
    assert {increase for _, increase in results} == {0.0, 1.0}
    assert len({drop for drop, _ in results if drop > 1}) >= 3


def explained(batch_size: int, order: list[int]) -> dict[int, Explained]:
    model, images, truth = three_blocks(41), images_like(4, 3, SIZE, seed=41), boxes(4, 41)
    session = ExplainSession(SISE(model, batch_size=batch_size), PAPER)
    left: list[Explained] = []
    for row in order:
        left += session.push(row, images[row], target=row, truth=truth[row])
    return {entry.key: entry for entry in left + session.finish()}


def test_a_session_s_metrics_equal_the_oracle_on_its_maps():
    model, images, truth = three_blocks(41), images_like(4, 3, SIZE, seed=41), boxes(4, 41)
    for row, entry in explained(64, [0, 1, 2, 3]).items():
        assert entry.map is not None
        map_, inside = entry.map.double().numpy(), truth[row].numpy()
        drop, increase = reference.drop_and_increase(model, images[row], row, map_)
        expected = {
            "drop_pct": drop, "increase": increase, "ebpg": reference.ebpg(map_, inside),
            "miou": reference.miou(map_, inside), "bbox": reference.bbox(map_, inside),
        }  # fmt: skip
        assert entry.metrics == pytest.approx(expected, abs=1e-2)
        assert {name: entry.metrics[name] for name in LOCAL} == pytest.approx(
            {name: expected[name] for name in LOCAL}, abs=1e-5
        )


# -------------------------------------------------------------------------------------------------------------------- by hand

MAPS = torch.tensor([[[0.0, 0.1, 0.2, 0.0, 0.0], [0.0, 0.4, 0.8, 0.0, 0.5]]])
BOX = torch.tensor([[[False, True, True, False, False], [False, True, True, False, False]]])


def test_localisation_by_hand():
    """10 pixels: 1.5 of the mass 2.0 is inside; the top 2 are .8 (inside) and .5 (outside), so 1 of 2 + 4 - 1 = 5; the top 4
    are .8 .5 .4 .2, of which 3 are inside."""
    result = localise(MAPS, BOX)
    assert result["ebpg"] == [pytest.approx(0.75)]
    assert result["miou"] == [pytest.approx(0.2)]
    assert result["bbox"] == [0.75]


class Total(nn.Module):
    """The margin of class 0 is ln 2 * (the sum of all pixels - bias)."""

    def __init__(self, bias: float):
        super().__init__()
        self.bias = bias

    def forward(self, images: Tensor) -> Tensor:
        margin = 0.6931471805599453 * (images.sum(dim=(1, 2, 3)) - self.bias)
        return torch.stack([margin, torch.zeros_like(margin)], dim=1)


def test_drop_and_increase_by_hand():
    """20 pixels, so T keeps 3: of the values 1 0 ... 0, -1 it keeps what the map ranks first.

    Whole: 1 + 1 - 1 = 1, p = 2/3. With the two ones and a zero: 2, p_T = 4/5, an increase. With the -1 and zeros: -1, p_T = 1/3,
    a drop of 50 %.
    """
    image = torch.zeros(1, 4, 5)
    image[0, 0, 0] = image[0, 2, 2] = 1.0
    image[0, 3, 4] = -1.0
    good, bad = torch.zeros(4, 5), torch.zeros(4, 5)
    good[0, 0], good[2, 2], good[1, 1] = 0.9, 0.8, 0.7
    bad[3, 4], bad[1, 1], bad[1, 2] = 0.9, 0.8, 0.7
    assert faithfulness(Total(0.0), image, good, 0) == {"drop_pct": 0.0, "increase": 1.0}
    assert faithfulness(Total(0.0), image, bad, 0) == {"drop_pct": pytest.approx(50.0, abs=1e-4), "increase": 0.0}
    assert faithfulness(Total(0.0), image, bad, 1)["increase"] == 1.0


def test_no_change_is_neither_a_drop_nor_an_increase():
    assert faithfulness(Total(0.0), torch.zeros(1, 4, 5), tied_maps(1, 0)[0, :4, :5], 0) == {
        "drop_pct": 0.0,
        "increase": 0.0,
    }


def test_a_target_without_probability_has_no_drop():
    assert np.isnan(faithfulness(Total(1000.0), torch.zeros(1, 4, 5), torch.rand(4, 5), 0)["drop_pct"])


def test_a_perfect_map_has_1_and_its_opposite_0():
    """A box of exactly 20 % of the pixels."""
    truth = torch.zeros(1, 10, 10, dtype=torch.bool)
    truth[0, 3:7, 2:7] = True
    assert localise(truth.float(), truth) == {"ebpg": [1.0], "miou": [1.0], "bbox": [1.0]}
    assert localise((~truth).float(), truth) == {"ebpg": [0.0], "miou": [0.0], "bbox": [0.0]}


# ----------------------------------------------------------------------------------------------------------- nothing, and ties


def test_an_empty_truth_costs_its_own_row_only():
    truth = BOX.repeat(3, 1, 1)
    truth[1] = False
    for name, values in localise(MAPS.repeat(3, 1, 1), truth).items():
        assert values[1] is None, name
        assert values[0] == values[2] == localise(MAPS, BOX)[name][0]


def test_a_map_of_zeros_has_no_energy_to_point_with():
    assert localise(torch.zeros_like(MAPS), BOX)["ebpg"] == [None]


def test_a_session_leaves_what_needs_truth_empty_without_it():
    model, images = three_blocks(42), images_like(2, 3, SIZE, seed=42)
    session = ExplainSession(SISE(model), PAPER)
    empty = torch.zeros(*SIZE, dtype=torch.bool)
    left = session.push(0, images[0], target=None, truth=None) + session.push(1, images[1], target=None, truth=empty)
    for entry in left + session.finish():
        assert entry.status == "ok"
        assert list(entry.metrics) == list(PAPER)
        assert [entry.metrics[name] for name in LOCAL] == [None, None, None]
        assert entry.metrics["drop_pct"] is not None
        assert entry.metrics["increase"] in (0.0, 1.0)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 3), st.integers(0, 1000))
@settings(max_examples=80, deadline=None)
def test_the_order_of_pixels_is_by_value_then_by_place(height: int, width: int, levels: int, seed: int):
    map_ = torch.randint(0, levels + 1, (1, height, width), generator=torch.Generator().manual_seed(seed)).float()
    assert rank_pixels(map_)[0].tolist() == reference.ranked_pixels(map_[0].numpy())


@pytest.mark.parametrize("pixels", [(4, 5), (5, 6), (7, 7), (10, 13), (1, 10)])
def test_ties_keep_exactly_round_f_n_pixels(pixels: tuple[int, int]):
    """One pixel stands out and all others tie: still exactly round(15 %) are kept (30 pixels: 4.5, rounded to even)."""
    map_ = torch.zeros(pixels)
    map_[-1, -1] = 1
    kept: list[Tensor] = []

    class Spy(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            kept.extend(images.clone())
            return torch.zeros(len(images), 2)

    faithfulness(Spy(), torch.ones(1, *pixels), map_, 0, batch_size=2)
    whole, top = sorted(kept, key=lambda image: -float(image.sum()))
    count = round(0.15 * map_.numel())
    assert whole.all()
    assert int(top.sum()) == count
    np.testing.assert_array_equal(top[0].bool().numpy(), reference.top_share(map_.numpy(), 0.15))
    assert float(top[0, -1, -1]) == (1.0 if count else 0.0)


def test_ties_are_broken_towards_the_top_left():
    """All zero but for one: the top 2 of 10 are that one and the first pixel."""
    map_ = torch.zeros(1, 2, 5)
    map_[0, 1, 3] = 1
    first, last = torch.zeros(1, 2, 5, dtype=torch.bool), torch.zeros(1, 2, 5, dtype=torch.bool)
    first[0, 0, 0], last[0, 1, 4] = True, True
    assert localise(map_, first)["miou"] == [0.5]
    assert localise(map_, last)["miou"] == [0.0]


# ------------------------------------------------------------------------------------------------------------ batch invariance


@pytest.mark.parametrize("rows", [[0], [6], [2, 1], [6, 5, 4, 3, 2, 1, 0], [3, 3]])
def test_localisation_does_not_depend_on_the_batch(rows: list[int]):
    maps, truth = tied_maps(7, 50), boxes(7, 50)
    truth[5] = False
    whole = localise(maps, truth)
    assert localise(maps[rows], truth[rows]) == {name: [values[row] for row in rows] for name, values in whole.items()}


@pytest.mark.parametrize(
    ("batch_size", "order"), [(1, [0, 1, 2, 3]), (2, [3, 1, 0, 2]), (7, [2, 0, 3, 1]), (64, [3, 2, 1, 0])]
)
def test_a_session_s_metrics_do_not_depend_on_the_batch(batch_size: int, order: list[int]):
    whole, other = explained(64, [0, 1, 2, 3]), explained(batch_size, order)
    assert sorted(other) == sorted(whole)
    for row, entry in whole.items():
        assert other[row].metrics == pytest.approx(entry.metrics, abs=1e-3)


def test_an_unknown_metric_is_told():
    with pytest.raises(SettingsError, match=r"unknown metric 'drop'.*did you mean 'drop_pct'"):
        ExplainSession(SISE(three_blocks(43)), ["drop"])
