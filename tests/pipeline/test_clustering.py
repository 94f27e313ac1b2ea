"""Clusters of maps: the planted shortcut is one, clouds stay whole, results repeat, the tables are what readers expect."""

from __future__ import annotations

import json
import shutil

import heatlas
import numpy as np
import pyarrow.parquet as pq
import pytest
from heatlas.errors import UsageError
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.cluster import density
from heatlas.pipeline.cluster.cluster import cluster_maps
from heatlas.pipeline.cluster.cluster_tables import CLUSTERS, MEMBERS, METADATA_KEY, place
from heatlas.pipeline.cluster.density import ALONE, density_groups
from heatlas.pipeline.cluster.embedding import embed, joined
from heatlas.pipeline.cluster.separation import mean_distance, separations, tightness
from heatlas.pipeline.curate.low_resolution_maps import low_maps
from heatlas.pipeline.curate.near_duplicate_maps import NEAR, find_twins
from heatlas.pipeline.features.image_table import ImageFeatures, write_features

from ..support.planted_store import kinds, write_planted
from ..support.scored_store import write_scores


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return write_planted(tmp_path_factory.mktemp("planted") / "out", 3000, target="both")


@pytest.fixture(scope="module")
def clusters(planted):
    return cluster_maps(heatlas.open(planted))


def test_the_planted_shortcut_is_a_cluster_of_its_own_and_comes_first(clusters, planted):
    truth = kinds(planted)
    first = clusters.clusters.to_pylist()[0]
    inside = {
        row["id"] for row in clusters.members.to_pylist() if (row["class"], row["cluster"]) == (3, first["cluster"])
    }
    marked = {entry for entry, kind in truth.items() if kind == "shortcut"}
    assert first["class_name"] == "class-03"
    assert {truth[entry] for entry in inside} == {"shortcut"}
    assert len(inside) > 0.95 * len(marked)
    assert "at the lower left" in first["reason"]
    assert first["tightness"] > 0.5
    assert first["separation"] > 0.7


def test_the_tables_are_as_promised(clusters):
    assert clusters.clusters.schema.equals(CLUSTERS)
    assert clusters.members.schema.equals(MEMBERS)
    assert CLUSTERS.names[:6] == ["class", "cluster", "size", "separation", "members", "mean_map"]
    assert MEMBERS.names[:5] == ["id", "target", "class", "cluster", "probability"]
    rows, members = clusters.clusters.to_pylist(), clusters.members.to_pylist()
    for row in rows:
        own = [member for member in members if (member["class"], member["cluster"]) == (row["class"], row["cluster"])]
        assert row["size"] == len(own)
        assert set(row["members"]) <= {member["id"] for member in own}
        assert row["share"] == pytest.approx(row["size"] / sum(member["class"] == row["class"] for member in members))
        assert len(row["mean_map"]) == 14 * 14
        assert row["right"] is not None
        assert 0 <= row["right"] <= 1
    assert all(
        (member["probability"] == 0) == (member["cluster"] == -1) for member in members if member["cluster"] == -1
    )
    assert [row["id"] for row in members] == sorted(row["id"] for row in members)
    told = json.loads(clusters.clusters.schema.metadata[METADATA_KEY])
    assert (told["height"], told["width"], told["target"]) == (14, 14, "predicted")


def test_the_mean_map_is_the_mean_of_its_members(clusters, planted):
    first = clusters.clusters.to_pylist()[0]
    inside = [row["id"] for row in clusters.members.to_pylist() if (row["class"], row["cluster"]) == (3, 0)]
    maps = heatlas.open(planted).maps(inside, target=3)
    assert np.abs(maps.mean(axis=0).ravel() - np.array(first["mean_map"], float)).max() < 2e-3


def test_results_repeat(clusters, planted):
    again = heatlas.open(planted).cluster()
    assert again.clusters.equals(clusters.clusters)
    assert again.members.equals(clusters.members)


def test_grouping_by_label(planted):
    result = cluster_maps(heatlas.open(planted), target="label")
    labels = {row["id"]: row["label"] for row in heatlas.open(planted).table(["id", "label"]).to_pylist()}
    assert all(labels[row["id"]] == row["class"] for row in result.members.to_pylist())


def test_features_tell_apart_what_lies_at_one_place(planted, tmp_path, capsys):
    """Half of a class shows another thing, anywhere: its maps are like the others', its features are not."""
    out = tmp_path / "out"
    shutil.copytree(planted, out)
    assert main(["cluster", str(out), "--features"]) == 2
    assert "cannot compare features" in capsys.readouterr().err
    atlas, random = heatlas.open(out), np.random.default_rng(0)
    ids = sorted(set(atlas.table(["id"])["id"].to_pylist()))
    odd = np.arange(len(ids)) % 2 == 0
    values = random.normal(0, 1, (len(ids), 24)) + 8 * odd[:, None]
    none = np.zeros((len(ids), 8), np.uint8)
    write_features(str(out), ImageFeatures(tuple(ids[1:]), np.zeros(len(ids) - 1, int), values[1:].astype(np.float32),
                                           np.full((len(ids) - 1, 2), 0.5), none[1:], none[1:]))  # fmt: skip
    result = heatlas.open(out).cluster(features=True)
    group = dict(zip(ids, odd, strict=True))
    pure = [
        [group[row["id"]] for row in result.members.to_pylist() if (row["class"], row["cluster"]) == (0, cluster)]
        for cluster in (0, 1)
    ]
    assert [len(set(members)) for members in pure] == [1, 1]
    assert min(map(len, pure)) > 20
    alone = heatlas.open(out).cluster()
    mixed = [group[row["id"]] for row in alone.members.to_pylist() if (row["class"], row["cluster"]) == (0, 0)]
    assert 0.3 < np.mean(mixed) < 0.7
    assert main(["cluster", str(out), "--features"]) == 0
    assert capsys.readouterr().out.startswith("features and maps: ")


def test_neither_maps_nor_features_decide_by_their_scale():
    random = np.random.default_rng(0)
    maps, features = random.normal(size=(40, 3)), 1e4 * random.normal(size=(40, 5))
    features[3] = np.nan
    points = joined(maps, features)
    assert points.shape == (40, 8)
    assert points[:, :3].var(axis=0).sum() == pytest.approx(1, rel=1e-4)
    assert points[:, 3:].var(axis=0).sum() == pytest.approx(1, rel=1e-4)
    assert np.isfinite(points).all()
    assert joined(maps, np.full((40, 5), np.nan)) is maps
    assert joined(np.zeros((1, 0)), np.ones((1, 5))).shape == (1, 0)


def test_the_command_writes_and_says_so(planted, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(planted, out)
    assert main(["cluster", str(out), "--side", "8", "--min-size", "40"]) == 0
    said = capsys.readouterr().out
    assert f"clusters: {out}/clusters/clusters.parquet" in said
    assert "of the maps for class-03" in said.splitlines()[1]
    table = pq.read_table(out / "clusters" / "clusters.parquet")
    assert min(table["size"].to_pylist()) >= 40
    assert len(table["mean_map"][0]) == 64
    assert main(["verify", str(out)]) == 0
    assert not [path for path in (out / "clusters").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--min-size", "1"], "min_size must be at least 2, got 1"),
        (["--side", "1"], "side must be from 2 to 64 pixels, got 1"),
        (["--side", "65"], "side must be from 2 to 64 pixels, got 65"),
        (["--seed", "-1"], "seed must be at least 0, got -1"),
    ],
)
def test_bad_requests_are_refused(planted, capsys, arguments, message):
    assert main(["cluster", str(planted), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_store_without_maps_is_refused(tmp_path):
    out = write_scores(tmp_path / "out", {"ebpg": [0.5] * 4})
    with pytest.raises(UsageError, match=r"this run stored no maps \(its store.map is off\)"):
        heatlas.open(out).cluster()


def test_a_store_that_explains_something_else_is_refused(planted, tmp_path):
    out = tmp_path / "out"
    write_planted(out, 40, classes=2)
    with pytest.raises(UsageError, match="target must be one of predicted, label, got 'other'"):
        heatlas.open(out).cluster(target="other")


def blobs(random, centres, count, spread):
    return np.concatenate([random.normal(centre, spread, (count, len(centre))) for centre in centres]).astype(
        np.float32
    )


def test_two_clouds_are_two_groups_and_one_is_one():
    random = np.random.default_rng(0)
    two = density_groups(blobs(random, [(0, 0), (9, 9)], 100, 0.5), 10)
    assert two.count == 2
    assert len(set(two.group[:100])) == len(set(two.group[100:])) == 1
    entry = density_groups(blobs(random, [(0, 0)], 200, 0.5), 10)
    assert entry.count == 1
    assert (entry.group == ALONE).mean() < 0.4


def test_a_lonely_point_is_left_alone():
    points = np.concatenate([blobs(np.random.default_rng(0), [(0, 0)], 40, 0.3), [[50.0, 50.0]]]).astype(np.float32)
    result = density_groups(points, 30)
    assert result.group[-1] == ALONE
    assert result.probability[-1] == 0
    assert result.count == 1


def test_equal_points_and_tiny_classes_are_one_group():
    assert density_groups(np.zeros((50, 0), np.float32), 5).count == 1
    assert density_groups(np.zeros((50, 3), np.float32), 5).count == 1
    assert density_groups(np.array([[1.0, 2.0]], np.float32), 5).group.tolist() == [0]


def test_what_is_no_landmark_joins_its_neighbours(monkeypatch):
    monkeypatch.setattr(density, "LANDMARKS", 60)
    points = blobs(np.random.default_rng(0), [(0, 0), (9, 9), (0, 9)], 100, 0.4)
    result = density_groups(points, 30, seed=1)
    assert result.count == 3
    for number in range(3):
        inside = result.group[100 * number : 100 * number + 100]
        assert (inside == np.bincount(inside[inside >= 0]).argmax()).mean() > 0.95
    assert np.array_equal(result.group, density_groups(points, 30, seed=1).group)


def test_groups_are_numbered_by_size():
    points = np.concatenate(
        [blobs(np.random.default_rng(0), [(0, 0)], 30, 0.3), blobs(np.random.default_rng(1), [(9, 9)], 90, 0.3)]
    )
    result = density_groups(points, 10)
    assert (result.group == 0).sum() > (result.group == 1).sum()


def test_separation_by_hand():
    points = np.array([[0.0], [0.0], [4.0], [4.0]])
    assert separations(points, np.array([0, 0, 1, 1])).tolist() == [1.0, 1.0]
    points = np.array([[0.0], [1.0], [4.0], [5.0]])
    expected = ((4.5 - 1) / 4.5 + (3.5 - 1) / 3.5) / 2
    assert separations(points, np.array([0, 0, 1, 1])) == pytest.approx([expected, expected])
    assert np.isnan(separations(points, np.zeros(4, int))).all()
    assert separations(points, np.array([0, 0, -1, -1])) == pytest.approx([expected]), "outside counts as another group"


def test_tightness_by_hand():
    points = np.array([[0.0], [1.0], [5.0]])
    assert mean_distance(points) == pytest.approx((1 + 5 + 4) / 3)
    assert mean_distance(points[:1]) == 0
    assert tightness(points, np.array([0, 0, -1]), 2.0) == pytest.approx([0.5])


def test_the_embedding_keeps_distances_and_has_no_sign_of_chance():
    random = np.random.default_rng(0)
    mass = random.dirichlet(np.ones(6), 50).astype(np.float32)
    points = embed(mass, 6)
    roots = np.sqrt(mass)
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
    assert apart == pytest.approx(np.linalg.norm(roots[:, None] - roots[None], axis=-1), abs=1e-5)
    assert embed(np.full((4, 6), 1 / 6, np.float32)).shape == (4, 0)
    assert embed(mass[::-1].copy(), 6)[::-1] == pytest.approx(points, abs=1e-4)


@pytest.mark.parametrize(
    ("down", "right", "text"),
    [
        (0.9, 0.1, "at the lower left"),
        (0.5, 0.5, "in the middle"),
        (0.1, 0.5, "in the upper middle"),
        (0.5, 0.9, "at the right side"),
    ],
)
def test_places_in_words(down, right, text):
    assert place(down, right) == text


def test_low_maps_are_block_averages(planted):
    atlas = heatlas.open(planted)
    low = low_maps(atlas, 7, where="target = prediction")
    some = low.rows.slice(0, 20).to_pylist()
    for row, values in zip(some, low.values, strict=False):
        full = atlas.maps([row["id"]], target=row["target"])[0]
        assert values.reshape(7, 7) == pytest.approx(full.reshape(7, 2, 7, 2).mean(axis=(1, 3)), abs=1e-5)
    assert low.mass().sum(axis=1) == pytest.approx(np.ones(len(low)), abs=1e-5)
    assert low_maps(atlas, 100).height == 14, "never enlarged"


def test_equal_maps_are_always_twins_and_far_ones_never():
    random = np.random.default_rng(0)
    mass = random.dirichlet(np.full(64, 0.2), 3000).astype(np.float32)
    copies = random.choice(1500, 40, replace=False)
    mass[1500 + np.arange(40)] = mass[copies]
    result = find_twins(mass)
    pairs = dict(zip(result.row.tolist(), result.twin.tolist(), strict=True))
    assert all(pairs[1500 + place] == copy for place, copy in enumerate(copies))
    assert (result.distance <= NEAR).all()
    apart = np.abs(mass[result.row] - mass[result.twin]).sum(axis=1) / 2
    assert result.distance == pytest.approx(apart, abs=1e-6)


def test_most_nearly_equal_maps_are_twins():
    random = np.random.default_rng(1)
    mass = random.dirichlet(np.full(64, 0.2), 4000).astype(np.float32)
    near = mass[:200] * random.uniform(0.99, 1.01, (200, 64)).astype(np.float32)
    near /= near.sum(axis=1, keepdims=True)
    result = find_twins(np.concatenate([mass, near]))
    pairs = dict(zip(result.row.tolist(), result.twin.tolist(), strict=True))
    assert np.mean([pairs.get(4000 + place) == place for place in range(200)]) > 0.8


def test_a_thousand_equal_maps_take_no_square_of_work():
    result = find_twins(np.full((20_000, 64), 1 / 64, np.float32))
    assert len(result.row) == 20_000
    assert result.distance.max() == 0
    assert result.alike.max() < 100
