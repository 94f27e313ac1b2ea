"""Two runs joined image by image: predictions, metrics, maps."""

from __future__ import annotations

import json
from dataclasses import replace

import heatlas
import numpy as np
import pytest
from heatlas.errors import StorageError, UsageError
from heatlas.pipeline.compare import movement as movement_module
from heatlas.pipeline.compare.compare import compare_runs
from heatlas.pipeline.compare.movement import MapReader, centres, shares
from heatlas.pipeline.compare.predictions import mcnemar
from heatlas.pipeline.compare.text import comparison_text
from heatlas.pipeline.shards import plan_shards
from heatlas.pipeline.store.parquet_sink import ParquetSink
from heatlas.pipeline.store.schema import StoreLayout

from ...support.compared_runs import NAMES, SIZE, row, spot, store


def test_everything_by_hand(ten):
    result = compare_runs(*ten)
    said = result.as_json()
    assert (said["joined_by"], said["pairs"], said["both_ok"]) == ("id", 9, 8)
    assert (said["first"]["alone"], said["first"]["alone_examples"], said["second"]["alone"]) == (1, ["img-9"], 0)
    answers = said["predictions"]
    assert (answers["images"], answers["changed"]) == (8, 1)
    assert answers["changes"] == [{"first": 2, "second": 0, "images": 1}]
    assert answers["accuracy"] == [1.0, 7 / 8]
    assert answers["only_right"] == [1, 0]
    assert answers["p"] == 1.0
    moved = said["moved"]
    assert moved["pairs"] == 7  # the changed and the failed one aside
    assert moved["mean"] == pytest.approx((1 + 0.5) / 7)
    assert (moved["median"], sum(moved["histogram"]), moved["histogram"][0], moved["histogram"][-1]) == (0, 7, 5, 1)
    most = moved["most"]
    assert [(entry["id"], entry["distance"]) for entry in most[:2]] == [("img-0", 1.0), ("img-1", 0.5)]
    assert most[0]["shift"] == pytest.approx(20 / 28)  # 20 of 28 pixels both ways, in diagonals
    assert most[1]["shift"] == pytest.approx(2 / 28 / 2**0.5)
    assert len(most) == 7
    assert said["notes"] == ["1 pair explain different classes (to be explained: predicted and predicted); their metrics are compared all the same"]  # fmt: skip


def test_metrics_are_those_of_atlas_compare(ten):
    first, second = map(heatlas.open, ten)
    results = [
        {name: value for name, value in row.items() if not name.endswith("_adjusted")}
        for row in compare_runs(first, second).metrics
    ]
    assert results == first.compare(second).to_pylist()
    entry = compare_runs(first, second, metrics=["ebpg"])
    assert [row["metric"] for row in entry.metrics] == ["ebpg"]
    assert entry.metrics[0]["favours"] == "first"
    assert entry.metrics[0]["difference"] == pytest.approx(0.05)


def test_the_order_of_rows_does_not_matter(tmp_path, ten):
    rows = [row(f"img-{n}", label=n % 3, prediction=n % 3, value=n / 10 - 0.05) for n in range(9)]
    rows[0].map, rows[1].map = spot(20, 20), spot(0, 2)
    straight = compare_runs(ten[0], store(tmp_path / "c", rows)).as_json()
    turned = compare_runs(ten[0], store(tmp_path / "d", rows, backwards=True, shard_size=2)).as_json()
    for entry in (straight, turned):
        entry.pop("second")
    assert turned == straight


def test_several_targets_are_joined_with_them(tmp_path):
    first = [
        row("a", prediction=1, target=1),
        row("a", prediction=1, target=0, map_=spot(4, 4)),
        row("b", prediction=0, target=0),
    ]
    second = [
        row("a", prediction=1, target=1, map_=spot(8, 8)),
        row("a", prediction=1, target=2),
        row("b", prediction=0, target=0),
    ]
    result = compare_runs(
        store(tmp_path / "a", first, target="both"), store(tmp_path / "b", second, target="both")
    ).as_json()
    assert (result["joined_by"], result["pairs"]) == ("id and target", 2)
    assert (result["first"]["alone"], result["second"]["alone"]) == (1, 1)
    assert result["predictions"]["images"] == 2
    assert [(entry["id"], entry["first_target"], entry["distance"]) for entry in result["moved"]["most"]] == [
        ("a", 1, 1.0),
        ("b", 0, 0.0),
    ]


def test_targets_that_differ_by_setting_are_joined_by_id_and_told(tmp_path):
    first = store(tmp_path / "a", [row("a", label=1, prediction=0, target=0), row("b")], target="predicted")
    second = store(
        tmp_path / "b", [row("a", label=1, prediction=0, target=1, map_=spot(8, 8)), row("b")], target="label"
    )
    result = compare_runs(first, second)
    assert result.as_json()["joined_by"] == "id"
    assert "1 pair explain different classes (to be explained: predicted and label)" in comparison_text(result)
    assert result.most[0]["id"] == "a"
    assert (result.most[0]["first_target"], result.most[0]["second_target"]) == (0, 1)


def test_two_methods_of_one_store(tmp_path):
    """Rows of a second method beside those of the first."""
    out = store(tmp_path / "a", [row(f"img-{n}") for n in range(3)])
    layout = StoreLayout(SIZE, method="other", metrics=("ebpg", "drop_pct"), map_size="input", with_png=False,
                         metadata=heatlas.open(out).metadata)  # fmt: skip
    [shard] = [shard for shard in plan_shards(2, 2)]  # noqa: C416
    ParquetSink(str(out), layout).commit(type(shard)(1, 3, 5), [row("img-0", map_=spot(8, 8)), row("img-1")])
    result = compare_runs(out, out, method="sise", other_method="other")
    assert (len(result.pairs), result.pairs.alone) == (2, (1, 0))
    assert result.most[0]["distance"] == 1.0
    assert 'method: "sise" and "other"' in result.settings
    with pytest.raises(UsageError, match="compared with itself"):
        compare_runs(out, str(out) + "/")
    with pytest.raises(UsageError, match="no row of the method 'othr'; did you mean 'other'"):
        compare_runs(out, out, other_method="othr")


def test_maps_of_different_sizes_are_compared_at_the_smaller_one(tmp_path):
    first = store(tmp_path / "a", [row("a", map_=spot(0, 0)), row("b", map_=spot(0, 0))])
    second = store(tmp_path / "b", [row("a", map_=spot(0, 0)), row("b", map_=spot(24, 24))], map_size=7)
    assert compare_runs(first, second).moved.distance.tolist() == pytest.approx([0, 1], abs=1e-6)
    third = store(tmp_path / "c", [row("a"), row("b")], with_map=False)
    result = compare_runs(first, third)
    assert result.moved is None
    assert result.as_json()["moved"] is None
    assert "a run stored no maps" in comparison_text(result)


def test_a_map_of_zeros_has_no_place(tmp_path):
    first = store(tmp_path / "a", [row("a", map_=np.zeros(SIZE, np.float32)), row("b")])
    result = compare_runs(first, store(tmp_path / "b", [row("a"), row("b")]))
    assert np.isnan(result.moved.distance[0])
    assert [entry["id"] for entry in result.most] == ["b"]
    json.dumps(result.as_json(), allow_nan=False)


def test_shares_and_centres_by_hand():
    maps = np.zeros((2, 28, 28), np.float32)
    maps[0, :2, :2] = 0.5
    maps[1, 0, 0] = maps[1, 27, 27] = 1
    entry = shares(maps, 14)
    assert entry.sum(axis=(1, 2)) == pytest.approx([1, 1])
    assert entry[0, 0, 0] == pytest.approx(1)
    assert centres(entry).tolist() == [pytest.approx([0.5 / 14] * 2), pytest.approx([0.5, 0.5])]


@pytest.mark.parametrize(
    ("first", "second", "p"), [(0, 0, 1.0), (5, 0, 2 / 2**5), (1, 1, 1.0), (0, 1, 1.0), (8, 2, 2 * 56 / 2**10)]
)
def test_mcnemar_by_hand(first, second, p):
    """The binomial tail at one half, both sides."""
    assert mcnemar(first, second) == pytest.approx(p)


def test_rows_in_the_same_order_are_read_once(tmp_path, monkeypatch):
    monkeypatch.setattr("heatlas.pipeline.store.parquet_bytes.ROW_GROUP_BYTES", 8000)
    monkeypatch.setattr(movement_module, "AT_ONCE", 7)
    rows = [row(f"{n:03d}", map_=spot(n % 20, 3)) for n in range(40)]
    stores = [store(tmp_path / name, rows, shard_size=20) for name in "ab"]
    read: list[tuple[str, str, int]] = []
    real = movement_module._with_zeros

    def counted(opened, group):
        read.append((id(opened) and opened.metadata.num_rows, group))
        return real(opened, group)

    monkeypatch.setattr(movement_module, "_with_zeros", counted)
    result = compare_runs(*stores)
    assert result.moved.distance.tolist() == [0] * 40
    groups = sum(
        MapReader(heatlas.open(entry))._edges_of(f"part-{n:06d}.parquet").size - 1 for entry in stores for n in (0, 1)
    )
    assert len(read) == groups >= 8


def test_a_damaged_file_is_named(ten):
    (ten[1] / "maps" / "part-000001.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(StorageError, match="part-000001"):
        compare_runs(*ten)


def test_metrics_that_mean_something_else_are_not_compared(tmp_path, ten):
    other = store(tmp_path / "c", [row(f"img-{n}") for n in range(9)], definition="ebpg/v2", names=("x", "y", "z"))
    result = compare_runs(ten[0], other)
    assert [metric["metric"] for metric in result.metrics] == ["drop_pct"]
    assert result.uncompared == ["ebpg"]
    assert any("name their classes differently" in metric for metric in result.pairs.notes)
    with pytest.raises(UsageError, match="cannot compare 'ebpg'"):
        compare_runs(ten[0], other, metrics=["ebpg"])


@pytest.mark.check("labels", "the same classes in another order in `compare`", "known")
def test_classes_in_another_order_are_compared_by_name(tmp_path):
    """Two networks that are both right on every image, the second trained with its classes the other way round."""
    labels = [n % 3 for n in range(9)]
    first = store(tmp_path / "a", [row(f"img-{n}", label=k, prediction=k) for n, k in enumerate(labels)])
    second = store(
        tmp_path / "b",
        [row(f"img-{n}", label=2 - k, prediction=2 - k) for n, k in enumerate(labels)],
        names=NAMES[::-1],
    )
    result = compare_runs(first, second)
    assert result.predictions.accuracy == (1.0, 1.0)
    assert result.predictions.changed == 0
    assert any("compared by name" in note for note in result.pairs.notes)


def test_a_class_that_only_the_second_run_has_keeps_its_name(tmp_path):
    first = store(tmp_path / "a", [row("img-0", prediction=1)], names=("Ant", "honey_bee"))
    second = store(tmp_path / "b", [row("img-0", prediction=2)], names=("honey bee", "ant", "wasp"))
    result = compare_runs(first, second)
    assert result.pairs.class_names == ("Ant", "honey_bee", "wasp")
    assert result.predictions.changes == [{"first": 1, "second": 2, "images": 1}]
    assert "honey_bee -> wasp" in comparison_text(result)


def test_metrics_that_no_pair_has_are_named_and_not_tested(tmp_path):
    rows = [row(f"{number}", value=0.5 + number / 100) for number in range(8)]
    without = [replace(entry, metrics={"ebpg": 0.4}) for entry in rows]
    comparison = compare_runs(str(store(tmp_path / "a", rows)), str(store(tmp_path / "b", without)))
    assert [metric["metric"] for metric in comparison.metrics] == ["ebpg"]
    assert comparison.uncompared == ["drop_pct"]


def test_adjusted_intervals_hold_for_all_metrics_together(tmp_path):
    values = np.random.default_rng(0).normal(0.5, 0.1, (2, 60))
    stores = [
        store(tmp_path / name, [row(f"{number}", value=float(value)) for number, value in enumerate(some)])
        for name, some in zip("ab", values, strict=True)
    ]
    comparison = compare_runs(str(stores[0]), str(stores[1]), resamples=2000)
    assert len(comparison.metrics) == 2
    spread = (values[0] - values[1]).std(ddof=1) / np.sqrt(60)
    for metric, scale in zip(comparison.metrics, (1, 10), strict=True):
        assert metric["low_adjusted"] < metric["low"] < metric["high"] < metric["high_adjusted"]
        # two metrics: 97.5 % each, which for a normal mean is 2.2414 standard errors on each side
        half = (metric["high_adjusted"] - metric["low_adjusted"]) / 2
        assert half == pytest.approx(2.2414 * spread * scale, rel=0.12)
