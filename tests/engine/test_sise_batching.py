"""What must not matter to SISE: how images are batched, in which order they come, what was explained before."""

from __future__ import annotations

import pytest
import torch
from heatlas.engine.explanation import Explanations
from heatlas.engine.methods.sise import SISE
from heatlas.engine.session import ExplainSession
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ..support.oracle_nets import images_like, three_blocks

SIZE = (24, 24)


def assert_same_rows(one: Explanations, other: Explanations, rows: list[int], tolerance: float) -> None:
    """`other` explains the images `rows` of `one`, in that order."""
    assert other.statuses == [one.statuses[row] for row in rows]
    assert torch.equal(other.targets, one.targets[rows])
    assert torch.equal(other.predictions, one.predictions[rows])
    assert torch.equal(other.mask_counts, one.mask_counts[rows])
    assert torch.allclose(other.confidences, one.confidences[rows], atol=tolerance, rtol=0)
    assert torch.allclose(other.maps, one.maps[rows], atol=tolerance, rtol=0)


@pytest.fixture(scope="module")
def five() -> tuple[nn.Module, Tensor, Explanations]:
    """A model, five images, the third of which has no evidence for its class, and what SISE says of them."""
    model, images = three_blocks(28, widths=(8, 12, 16)), images_like(5, 3, SIZE, seed=7)
    images[2] = 0
    return model, images, SISE(model)(images)


def test_the_batch_of_five_is_not_one_map_five_times(five: tuple[nn.Module, Tensor, Explanations]):
    maps = five[2].maps
    assert min(float((maps[i] - maps[j]).abs().max()) for i in range(5) for j in range(i)) > 0.1


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_the_number_of_masks_per_forward_does_not_matter(five: tuple[nn.Module, Tensor, Explanations], batch_size: int):
    model, images, whole = five
    assert_same_rows(whole, SISE(model, batch_size=batch_size)(images), [0, 1, 2, 3, 4], 1e-5)


@pytest.mark.parametrize("rows", [[0], [1], [2], [3], [4], [4, 2, 0, 3, 1], [1, 1, 1], [3, 0]])
def test_neighbours_and_order_do_not_matter(five: tuple[nn.Module, Tensor, Explanations], rows: list[int]):
    model, images, whole = five
    assert_same_rows(whole, SISE(model)(images[rows]), rows, 1e-5)


def test_the_same_call_twice_gives_the_same_bits(five: tuple[nn.Module, Tensor, Explanations]):
    model, images, whole = five
    sise = SISE(model)
    for _ in range(2):
        assert torch.equal(sise(images).maps, whole.maps)


@given(st.permutations(range(5)), st.sampled_from([1, 7, 64]), st.lists(st.integers(0, 9), min_size=5, max_size=5))
@settings(max_examples=15, deadline=None)
def test_a_session_explains_each_image_as_if_alone(order: list[int], batch_size: int, classes: list[int]):
    """Several images, classes and sizes in flight together, their masks in shared batches."""
    model = three_blocks(29)
    sizes = [(24, 24), (24, 24), (20, 28), (24, 24), (20, 28)]
    images = [images_like(1, 3, size, seed=row)[0] for row, size in enumerate(sizes)]
    session = ExplainSession(SISE(model, batch_size=batch_size), ["drop_pct", "ebpg"])
    left = []
    for row in order:
        left += session.push(row, images[row], target=classes[row])
    left += session.finish()
    assert [entry.key for entry in left] == list(order)
    for entry in left:
        alone = SISE(model)(images[entry.key][None], [classes[entry.key]])
        assert entry.status == alone.statuses[0]
        assert list(entry.mask_counts) == alone.mask_counts[0].tolist()
        assert entry.target == classes[entry.key]
        if entry.status == "ok":
            assert entry.map is not None
            assert torch.allclose(entry.map, alone.maps[0], atol=1e-5, rtol=0)
            assert entry.n_forwards >= 1 + sum(entry.mask_counts)
        else:
            assert entry.map is None
            assert entry.metrics == {"drop_pct": None, "ebpg": None}
    assert session.finish() == []


def test_a_session_goes_on_after_reset():
    """What was in flight never returns and costs no forward any more; what comes after is whole."""
    model, images = three_blocks(30), images_like(1, 3, SIZE, seed=8)
    alone = SISE(model)(images)
    session = ExplainSession(SISE(model, batch_size=int(alone.mask_counts.sum()) + 1), [])
    session.push(0, images[0])
    session.reset()
    assert session.finish() == []
    forwards: list[int] = []
    handle = model.register_forward_hook(lambda module, args, output: forwards.append(len(args[0])))
    left = session.push(1, images[0]) + session.finish()
    handle.remove()
    assert [entry.key for entry in left] == [1]
    assert left[0].map is not None
    assert torch.allclose(left[0].map, alone.maps[0], atol=1e-5)
    assert forwards.count(int(alone.mask_counts.sum()) + 1) == 1


# ------------------------------------------------------------------------------------------------------ the model is left alone
