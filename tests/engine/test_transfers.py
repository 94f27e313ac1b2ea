"""How often the host waits for the device while images are worked on, and that a session holds the model only while it must."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from heatlas.engine import explainer as explainers
from heatlas.engine import explanation
from heatlas.engine.methods import batch_method, mask_method, sise
from heatlas.engine.methods.registry import bind_method
from heatlas.engine.methods.sise import SISE
from heatlas.engine.metrics import evaluate, rank_pixels
from heatlas.engine.scoring.precision import float32_products, gradient_precision
from heatlas.engine.session import ExplainSession
from heatlas.engine.sise import budgeted_scores, layer_masks
from heatlas.engine.sise.mask_rounds import ROUNDS
from torch import nn

from ..support.checkout import checkout_module
from ..support.oracle_nets import images_like, three_blocks

MODULES: tuple[Any, ...] = (explainers, explanation, batch_method, mask_method, sise, evaluate, layer_masks)
Operations = checkout_module("bench.speed.device_operations").Operations


def test_a_budget_waits_once_for_each_round_and_never_for_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Per image: a read of the gradients' facts, of each of six rounds, of the error, of the map's facts; nothing besides."""
    images, reads = images_like(3, 3, (24, 24), seed=1), []
    for module in (*MODULES, budgeted_scores):
        monkeypatch.setattr(module, "to_host", lambda values: reads.append(1) or values.tolist())
    session = ExplainSession(SISE(three_blocks(0), batch_size=16, budget=0.5))
    session.push(0, images[0])
    session.finish()
    reads.clear()
    with Operations() as operations:
        result = [row for key, image in enumerate(images) for row in session.push(key, image)] + session.finish()
    assert [row.status for row in result] == ["ok"] * 3
    assert min(row.n_forwards for row in result) > ROUNDS + 1
    assert {kind: count for kind, count in operations.waits.items() if count} == {"nonzero": 3 * 3}
    assert len(reads) == 3 * (1 + ROUNDS + 1 + 1)


@pytest.mark.parametrize(("name", "of_map", "of_metrics"), [("grad_cam", 1, 1), ("sise", 2, 1), ("rise", 2, 1)])
def test_an_image_costs_a_handful_of_waits_and_none_per_mask(
    monkeypatch: pytest.MonkeyPatch, name: str, of_map: int, of_metrics: int
) -> None:
    images, reads = images_like(3, 3, (24, 24), seed=1), []
    for module in MODULES:
        monkeypatch.setattr(module, "to_host", lambda values: reads.append(1) or values.tolist())
    options = {"masks": 40} if name == "rise" else {}
    session = ExplainSession(bind_method(name, three_blocks(0), batch_size=16, **options), ["drop_pct", "increase"])
    session.push(0, images[0])
    session.finish()  # plans its layers with a forward that belongs to no image
    reads.clear()
    with Operations() as operations:
        result = [row for key, image in enumerate(images) for row in session.push(key, image)] + session.finish()
    assert [row.status for row in result] == ["ok"] * 3
    chosen_on_the_host = (
        {"nonzero": 3 * 3} if name == "sise" else {}
    )  # of kept channels, from numbers that are there already
    waits = {kind: count for kind, count in operations.waits.items() if count}
    assert waits == chosen_on_the_host
    batches = 1 if name == "grad_cam" else 3  # three images share a batch of a batch method
    assert len(reads) == of_map * batches + of_metrics * 3
    assert operations.launched > 0


@pytest.mark.parametrize(("metrics", "sorted_maps"), [([], 0), (["drop_pct"], 3)])
def test_a_map_that_nobody_measures_is_not_sorted(metrics: list[str], sorted_maps: int) -> None:
    images, ordered = images_like(3, 3, (24, 24), seed=1), []
    session = ExplainSession(bind_method("lafam", three_blocks(0), batch_size=16), metrics)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("heatlas.engine.session.rank_pixels", lambda maps: ordered.append(len(maps)) or rank_pixels(maps))
        result = [row for key, image in enumerate(images) for row in session.push(key, image)] + session.finish()
    assert [row.status for row in result] == ["ok"] * 3
    assert sum(ordered) == sorted_maps


def test_gradients_of_several_images_are_those_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    images = images_like(5, 3, (24, 24), seed=2)
    alone = SISE(three_blocks(0), batch_size=16)(images)
    monkeypatch.setattr(SISE, "gradient_rows", lambda self, image: 4)
    together = SISE(three_blocks(0), batch_size=16)(images)
    assert together.statuses == alone.statuses
    assert torch.equal(together.mask_counts, alone.mask_counts)
    torch.testing.assert_close(together.maps, alone.maps, rtol=1e-3, atol=1e-4)


def test_a_session_gives_the_model_back_when_the_last_image_has_left_or_one_breaks() -> None:
    model, images = three_blocks(0).train(), images_like(2, 3, (24, 24), seed=1)
    session = ExplainSession(SISE(model, batch_size=64))
    session.push(0, images[0])
    assert not model.training, "held while an image is in flight"
    session.finish()
    assert model.training
    session.push(0, images[0])
    session.reset()
    assert model.training

    def fail(*_: Any) -> None:
        raise RuntimeError("broken")

    handle = next(module for module in model.modules() if isinstance(module, nn.Conv2d)).register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="broken"):
        session.push(1, images[1])
    handle.remove()
    assert model.training


@pytest.mark.parametrize("allowed", [True, False])
def test_float32_is_float32_on_a_gpu_and_the_process_s_choice_comes_back(
    monkeypatch: pytest.MonkeyPatch, allowed: bool
) -> None:
    switches: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [switch.allow_tf32 for switch in switches]
    device = torch.device("cuda")
    try:
        for switch in switches:
            switch.allow_tf32 = allowed
        with float32_products(device):
            assert [switch.allow_tf32 for switch in switches] == [False, False]
            with float32_products(device, tf32=True):
                assert [switch.allow_tf32 for switch in switches] == [True, True]
        with pytest.raises(ValueError, match="anything"), float32_products(device):
            raise ValueError("anything")
        assert [switch.allow_tf32 for switch in switches] == [allowed, allowed]
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value


def test_gradients_leave_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16), gradient_precision(torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
