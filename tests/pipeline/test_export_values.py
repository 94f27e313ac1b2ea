"""Probabilities, boxes and maps of an export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from heatlas.pipeline.export.export import export_store
from heatlas.pipeline.export.whole_image import box_on_image, hot_box, on_whole_image
from heatlas.pipeline.store.parquet_sink import ParquetSink
from heatlas.pipeline.store.schema import StoreLayout
from heatlas.workers.images.preprocess import Preprocess
from heatlas.workers.samples import Row, Sample, Shard
from hypothesis import assume, given
from hypothesis import strategies as st

from ..support.exported_store import SIZE, claim

GEOMETRIES = st.builds(
    lambda resize, size, source: Preprocess(size=size, resize=resize).geometry(*source),
    st.sampled_from(["shorter_side_crop", "squash", "pad"]),
    st.tuples(st.integers(8, 64), st.integers(8, 64)),
    st.tuples(st.integers(1, 400), st.integers(1, 400)),
)  # fmt: skip


@given(geometry=GEOMETRIES, corner=st.tuples(st.floats(0, 0.5), st.floats(0, 0.5)))
def test_boxes_go_back_to_where_the_image_had_them(geometry, corner):
    """`Geometry.box` is what the workers bring boxes to the network with."""
    box = (corner[0], corner[1], corner[0] + 0.5, corner[1] + 0.5)
    placed = box_on_image(box, geometry)
    if placed is None:
        return
    x, y, width, height = placed
    assert -1e-9 <= x <= x + width <= geometry.source[1] + 1e-6
    assert -1e-9 <= y <= y + height <= geometry.source[0] + 1e-6
    back = geometry.box((x, y, x + width, y + height))
    wanted = [
        box[0] * geometry.size[1],
        box[1] * geometry.size[0],
        box[2] * geometry.size[1],
        box[3] * geometry.size[0],
    ]
    inside = (-geometry.left, -geometry.top, geometry.resized[1] - geometry.left, geometry.resized[0] - geometry.top)
    low = [max(wanted[axis], inside[axis]) for axis in (0, 1)]
    high = [min(wanted[axis], inside[axis]) for axis in (2, 3)]
    assert list(back) == pytest.approx([*low, *high], abs=1e-6)


@given(geometry=GEOMETRIES)
def test_maps_keep_their_place_in_the_whole_image(geometry):
    assume(max(geometry.resized) <= 1024)
    whole = on_whole_image(np.ones(geometry.size, np.float32), geometry)
    assert whole.shape == geometry.resized
    seen = (
        slice(max(0, geometry.top), geometry.top + geometry.size[0]),
        slice(max(0, geometry.left), geometry.left + geometry.size[1]),
    )
    assert (whole[seen] == 1).all()
    assert whole.sum() == whole[seen].size


def test_hot_box_by_hand():
    map_ = np.zeros((10, 20))
    map_[2:4, 5:10] = 0.6
    map_[3, 7] = 1.0
    map_[8, 0] = 0.9  # hot too, but somewhere else
    assert hot_box(map_) == (5 / 20, 2 / 10, 10 / 20, 4 / 10)
    assert hot_box(np.zeros((3, 3))) is None


def small_store(out: Path, classes: tuple[str, ...], rows: list[Row], score: str | None = None) -> Path:
    claim(out, score=score)
    layout = StoreLayout(
        SIZE, metrics=(), map_size=16, with_map=False, with_png=False, metadata={"class_names": list(classes)}
    )
    assert ParquetSink(str(out), layout).commit(Shard(0, 0, len(rows)), rows)
    return out


def explained(identity: str, label: int | None, prediction: int, target: int, score: float) -> Row:
    return Row(Sample(identity, f"/{identity}.png", label), "ok", None, 4, 5, prediction, target, score)


def test_two_classes_give_complete_probabilities(tmp_path):
    rows = [
        explained("a", 0, 1, 1, 0.7),
        explained("b", 1, 1, 1, 0.9),
        Row(Sample("c", "/c.png", 1), "read_error", "gone"),
    ]
    out = small_store(tmp_path / "out", ("no", "yes"), rows)
    done = export_store(out, "cleanlab", tmp_path / "c.parquet", columns=["method"])
    result = pq.read_table(tmp_path / "c.parquet").to_pandas()
    assert [row.tolist() for row in result["pred_probs"][:2]] == [
        pytest.approx([0.3, 0.7]),
        pytest.approx([0.1, 0.9]),
    ]
    assert result["pred_probs"][2] is None
    assert result["self_confidence"][:2].to_list() == pytest.approx([0.3, 0.9])
    assert result["label_name"].to_list() == ["no", "yes", "yes"]
    assert result["method"].to_list() == ["sise"] * 3
    assert done.notes[0].startswith("pred_probs is null for 1 image:")
    whole = result.dropna(subset=["pred_probs"])  # as cleanlab takes them
    probabilities = np.stack(list(whole["pred_probs"]))
    assert probabilities.shape == (2, 2)
    assert probabilities.sum(1) == pytest.approx([1, 1])


def test_of_many_classes_only_what_is_known_is_told(tmp_path):
    rows = [explained("a", 2, 1, 1, 0.5), explained("b", 0, 1, 1, 0.8), explained("c", 0, 1, 0, 0.1), explained("c", 0, 1, 1, 0.6),
            explained("d", None, 1, 1, 0.6), explained("e", 3, 1, 1, 0.3)]  # fmt: skip
    result = export_store(small_store(tmp_path / "out", ("p", "q", "r", "s"), rows), "cleanlab", tmp_path / "c.parquet")
    assert result.written == 5
    table = pq.read_table(tmp_path / "c.parquet").to_pylist()
    assert [entry["pred_probs"] for entry in table] == [None] * 5
    assert [entry["self_confidence"] for entry in table] == [None, None, 0.1, None, None]
    # the rest of 1, and no more than the predicted class has
    assert [entry["self_confidence_at_most"] for entry in table] == [0.5, pytest.approx(0.2), 0.1, None, 0.3]
    assert [(entry["known_classes"], entry["known_probs"]) for entry in table][2] == ([0, 1], [0.1, 0.6])
    assert any("--target both" in note for note in result.notes)


def test_the_classes_that_the_model_listed_make_probabilities_complete(tmp_path):
    row, other = explained("a", 2, 1, 1, 0.5), explained("b", 2, 0, 0, 0.6)
    row.top, row.label_confidence = ((1, 0.5), (0, 0.25), (2, 0.15), (3, 0.1)), 0.15
    other.top, other.label_confidence = ((0, 0.6), (1, 0.2)), 0.05
    store = small_store(tmp_path / "out", ("p", "q", "r", "s"), [row, other])
    notes = export_store(store, "cleanlab", tmp_path / "c.parquet").notes
    first, second = pq.read_table(tmp_path / "c.parquet").to_pylist()
    assert first["pred_probs"] == pytest.approx([0.25, 0.5, 0.15, 0.1])
    assert (first["self_confidence"], second["self_confidence"]) == pytest.approx((0.15, 0.05))
    assert second["pred_probs"] == pytest.approx([0.6, 0.2, 0.05, 0.15])  # three of four leave one value for the fourth
    assert not [note for note in notes if "pred_probs" in note]


def test_sigmoid_scores_are_no_distribution(tmp_path):
    out = small_store(tmp_path / "out", ("no", "yes"), [explained("a", 0, 1, 1, 0.7)], score="sigmoid")
    export_store(out, "cleanlab", tmp_path / "c.parquet")
    table = pq.read_table(tmp_path / "c.parquet").to_pylist()
    assert (table[0]["pred_probs"], table[0]["self_confidence"], table[0]["self_confidence_at_most"]) == (
        None,
        None,
        None,
    )
