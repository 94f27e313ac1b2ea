"""Faster stand-ins for the scoring forward: the same maps, the model untouched, and a warning where one is not possible."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from heatlas.engine.methods.sise import SISE
from heatlas.engine.requests import Job
from heatlas.engine.scoring.fast_forward import ScoringForward, StandInWarning, cast_once, foldable, folded
from heatlas.engine.scoring.masked_scorer import Scorer
from heatlas.engine.scoring.scoring_options import Scoring
from torch import Tensor, nn


def seeded(model: nn.Module) -> nn.Module:
    """Weights and running statistics that a wrong fold would not survive."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if value.is_floating_point():
                drawn = torch.randn(value.shape, generator=generator)
                value.copy_(drawn.abs() + 0.5 if "running_var" in name else 0.3 * drawn)
    return model.eval()


class Normed(nn.Module):
    """Two convolutions with batch norms; the first one's output is read by its norm alone, the second's by a sum too."""

    def __init__(self, *, shared: bool = False):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv2, self.norm2 = nn.Conv2d(6, 6, 3, padding=1, stride=2), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 4)
        self.shared = shared

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.conv1(x)).relu()
        x = self.conv2(x)
        x = (self.norm2(x) + x if self.shared else self.norm2(x)).relu()
        return self.head(x.mean((2, 3)))


class Branching(Normed):
    """Its forward depends on values, which `torch.fx` cannot follow."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if bool(x.sum() == x.sum()) else super().forward(-x)


def images(count: int = 3) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize(("shared", "pairs"), [
    (False, [("conv1", "norm1"), ("conv2", "norm2")]),
    (True, [("conv1", "norm1")]),
])  # fmt: skip
def test_only_a_norm_that_alone_reads_a_convolution_is_folded(shared: bool, pairs: list[tuple[str, str]]):
    model = seeded(Normed(shared=shared))
    before = state(model)
    assert foldable(model) == pairs
    twin = folded(model, images(2))
    assert [type(twin.get_submodule(norm)) for _, norm in pairs] == [nn.Identity] * len(pairs)
    torch.testing.assert_close(twin(images()), model(images()), atol=1e-4, rtol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert isinstance(model.norm1, nn.BatchNorm2d)


def test_a_convolution_used_twice_or_listened_to_is_not_folded():
    model = seeded(Normed())
    handle = model.conv1.register_forward_hook(lambda *_: None)
    assert foldable(model) == [("conv2", "norm2")]
    handle.remove()
    shared = nn.Conv2d(3, 3, 3, padding=1)
    twice = nn.Sequential(shared, nn.BatchNorm2d(3), shared, nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(768, 2)).eval()
    with pytest.raises(ValueError, match="no convolution"):
        foldable(twice)


def test_maps_with_folded_norms_are_the_same():
    model = seeded(Normed())
    plain, fast = (SISE(model, batch_size=8, forward=kind)(images()) for kind in ("eager", "fold_bn"))
    assert fast.statuses == plain.statuses
    assert "ok" in plain.statuses
    torch.testing.assert_close(fast.confidences, plain.confidences, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(fast.maps, plain.maps, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("model", "reason"), [
    (Branching(), "torch.fx cannot follow"),
    (nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(392, 3)), "no convolution is followed"),
])  # fmt: skip
def test_what_cannot_be_folded_warns_and_scores_all_the_same(model: nn.Module, reason: str):
    forward = ScoringForward(seeded(model), "fold_bn")
    with pytest.warns(StandInWarning, match=f"fold_bn is not possible.*{reason}"):
        first = forward(images())
    assert torch.equal(first, model(images()))
    assert torch.equal(forward(images()), first)  # and does not warn again


class Peeking(Normed):
    """Reads its norm's weights besides calling it, so that a fold by the graph alone would go wrong."""

    def forward(self, x: Tensor) -> Tensor:
        scale = 1.0 if isinstance(self.norm1, nn.BatchNorm2d) else 5.0
        return super().forward(x) * scale


def test_a_folded_copy_that_disagrees_is_not_used():
    model = seeded(Peeking())
    with pytest.raises(ValueError, match="differ by"):
        folded(model, images(2))


def test_a_failing_compiler_warns_and_scores_all_the_same(monkeypatch: pytest.MonkeyPatch):
    def broken(model: nn.Module, **options: object):
        def call(inputs: Tensor) -> Tensor:
            raise RuntimeError("no compiler found\nmore lines")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    model = seeded(Normed())
    with pytest.warns(StandInWarning, match=r"compile is not possible.*\(RuntimeError: no compiler found\)"):
        fast = SISE(model, batch_size=8, forward="compile")(images())
    assert torch.equal(fast.maps, SISE(model, batch_size=8, forward="fold_bn")(images()).maps)


def test_the_compiled_model_is_called_with_full_batches_only(monkeypatch: pytest.MonkeyPatch):
    shapes: list[tuple[int, ...]] = []

    def recorded(model: nn.Module, **options: object):
        assert options == {"dynamic": False}
        return lambda inputs: (shapes.append(tuple(inputs.shape)), model(inputs))[1]

    monkeypatch.setattr(torch, "compile", recorded)
    SISE(seeded(Normed()), batch_size=5, forward="compile")(images())
    assert set(shapes) == {(5, 3, 16, 16)}


class TightMemory(nn.Module):
    """Runs out of memory for more than `fits` rows; counts what it is given."""

    def __init__(self, model: nn.Module, fits: int, error: type[Exception] = torch.OutOfMemoryError):
        super().__init__()
        self.model, self.fits, self.error = model, fits, error
        self.rows: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.rows.append(len(x))
        if len(x) > self.fits:
            raise self.error("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return self.model(x)


def scored(scorer: Scorer, count: int) -> Tensor:
    variants = images(count)
    job = Job(count, 1, lambda start, out: out.copy_(variants[start : start + len(out)]))
    scorer.submit(job, like=variants[0])
    scorer.flush()
    assert job.done
    return job.scores


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_out_of_memory_halves_the_micro_batch_and_remembers(error: type[Exception]):
    plain = seeded(Normed())
    tight = TightMemory(plain, 3, error).eval()
    scorer = Scorer(tight, Scoring(batch_size=8))
    result = scored(scorer, 20)
    assert scorer.micro_batch == 2
    assert tight.rows[:3] == [8, 4, 2]  # halved until it fits
    assert set(tight.rows[3:]) == {2}  # and never tried larger again
    torch.testing.assert_close(result, scored(Scorer(plain, Scoring(batch_size=8)), 20), atol=1e-6, rtol=1e-5)


def test_out_of_memory_with_one_row_is_raised():
    scorer = Scorer(TightMemory(seeded(Normed()), 0).eval(), Scoring(batch_size=4))
    with pytest.raises(torch.OutOfMemoryError):
        scored(scorer, 4)
    assert scorer.micro_batch == 1


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_out_of_memory_while_choosing_is_no_reason_to_fall_back(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
):
    monkeypatch.setattr(torch, "compile", lambda model, **options: model)
    scorer = Scorer(TightMemory(seeded(Normed()), 2, error).eval(), Scoring(batch_size=4, forward="compile"))
    scored(scorer, 4)
    assert scorer.micro_batch == 2


def test_warming_up_makes_the_choice_and_scores_nothing():
    scorer = Scorer(seeded(Branching()), Scoring(batch_size=4, forward="fold_bn"))
    with pytest.warns(StandInWarning):
        scorer.warm_up(images()[0])
    assert len(scored(scorer, 3)) == 3


def test_no_graph_without_cuda_warns_and_scores_all_the_same():
    model = seeded(Branching())
    with pytest.warns(StandInWarning, match="cuda_graph is not possible.*a CUDA graph needs a CUDA device"):
        scores = ScoringForward(model, "cuda_graph")(images())
    assert torch.equal(scores, model(images()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_cast_once_give_the_same_bits(dtype: torch.dtype):
    model = seeded(Normed())
    before = state(model)
    with torch.inference_mode(), torch.autocast("cpu", dtype=dtype):
        twin = cast_once(model, images(2), dtype)
        assert twin is not model
        assert {twin.conv1.weight.dtype, twin.head.weight.dtype} == {dtype}
        assert twin.norm1.weight.dtype == torch.float32
        assert torch.equal(twin(images()), model(images()))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class ReadsItsWeights(Normed):
    """Multiplies by a sum of its own weights, which casting would change."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.conv1.weight.float().sum()


def test_weights_are_not_cast_once_where_that_changes_a_bit():
    model = seeded(ReadsItsWeights())
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert cast_once(model, images(2), torch.bfloat16) is model


def test_an_input_buffer_that_does_not_fit_is_halved(monkeypatch: pytest.MonkeyPatch):
    """Every allocation of the buffers is inside the back-off: input, targets."""
    plain, asked = seeded(Normed()), []
    expected = scored(Scorer(plain, Scoring(batch_size=8)), 20)

    def tight(size: object, *, make: Callable[..., Tensor], rows: int, **options: Any) -> Tensor:
        if allocated := size[0] if isinstance(size, tuple) else size if make is zeros else 0:
            asked.append(allocated)
            if allocated > rows:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return make(size, **options)

    empty, zeros = torch.empty, torch.zeros
    monkeypatch.setattr(torch, "empty", partial(tight, make=empty, rows=5))
    monkeypatch.setattr(torch, "zeros", partial(tight, make=zeros, rows=3))
    scorer = Scorer(plain, Scoring(batch_size=8))
    result = scored(scorer, 20)
    monkeypatch.undo()
    assert asked[:5] == [8, 4, 4, 2, 2]  # the inputs, then inputs that fit and targets that do not, then both
    assert (scorer.batch_size, scorer.micro_batch) == (2, 2)
    torch.testing.assert_close(result, expected, atol=1e-6, rtol=1e-5)
