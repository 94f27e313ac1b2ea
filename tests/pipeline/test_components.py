"""`heatlas components`: contributions sum to the logit, a planted mark is a component, and names outlive another computation."""

from __future__ import annotations

import re
from pathlib import Path

import heatlas
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from heatlas.engine.features.logit_components import LinearHead, class_components, linear_head, without_component
from heatlas.engine.repair.linear_head import component_direction, head_without_components
from heatlas.errors import ModelError, UsageError
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.components.class_tables import find_components
from heatlas.pipeline.components.component_names import parse_name
from heatlas.pipeline.components.spuriosity import rank_class, ranks_of
from heatlas.pipeline.features.compute import StoredModel
from PIL import Image
from sklearn.decomposition import PCA
from torch import nn

from ..support.marked_store import is_marked


def test_contributions_are_scikit_learns_components_and_sum_to_the_logit() -> None:
    random = np.random.default_rng(0)
    features, head = random.normal(1, 1, (40, 6)), LinearHead(random.normal(0, 1, (3, 6)), random.normal(0, 1, 3))
    logits = features @ head.weight[1] + head.bias[1]
    whole = class_components(features, head, 1)
    assert whole.contributions.shape == (40, 6)
    np.testing.assert_allclose(whole.contributions.sum(axis=1) + whole.rest + whole.constant, logits, atol=1e-9)
    assert np.abs(whole.rest).max() < 1e-9
    few = class_components(features, head, 1, count=2)
    np.testing.assert_allclose(few.contributions.sum(axis=1) + few.rest + few.constant, logits, atol=1e-9)
    oracle = PCA(2).fit(features * head.weight[1])
    scores = oracle.transform(features * head.weight[1]) * oracle.components_.sum(axis=1)
    np.testing.assert_allclose(few.contributions, scores, atol=1e-8)


def test_what_a_component_adds_is_taken_away_and_what_it_takes_away_stays() -> None:
    random = np.random.default_rng(0)
    features, head = random.normal(1, 1, (40, 6)), LinearHead(random.normal(0, 1, (3, 6)), np.zeros(3))
    parts = class_components(features, head, 0)
    without = without_component(features, head, 0, parts.mean, parts.directions[0])
    np.testing.assert_allclose(features @ head.weight[0] - without, np.maximum(0, parts.contributions[:, 0]), atol=1e-9)


def test_a_head_without_components_is_the_projection_of_the_weighted_features() -> None:
    random = np.random.default_rng(0)
    features, head = random.normal(1, 1, (40, 6)), LinearHead(random.normal(0, 1, (3, 6)), random.normal(0, 1, 3))
    parts = class_components(features, head, 1)
    weight, values = torch.from_numpy(head.weight[1]).float(), torch.from_numpy(features * head.weight[1]).float()
    chosen = [0, 2]
    for (
        number
    ) in chosen:  # the direction of most covariance with a principal component's contributions is that component
        found = component_direction(values, torch.from_numpy(parts.contributions[:, number]).float()).numpy()
        assert abs(found @ parts.directions[number]) == pytest.approx(1, abs=1e-4)
    directions = torch.from_numpy(parts.directions[chosen]).float()
    levels = values[:2]
    edited, added = head_without_components(weight, directions, levels)
    logits = features @ edited.numpy() + float(added) + head.bias[1]
    expected = [
        head.bias[1]
        + sum(
            row
            - sum(
                (row @ parts.directions[c] - levels[place].numpy() @ parts.directions[c]) * parts.directions[c]
                for place, c in enumerate(chosen)
            )
        )
        for row in features * head.weight[1]
    ]
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    # directions that are not orthogonal, as those of another model: the logit stands still along each
    skewed = torch.stack([directions[0], torch.nn.functional.normalize(directions[0] + directions[1], dim=0)])
    edited, _ = head_without_components(weight, skewed, levels)
    for direction in skewed:
        moved = direction / weight  # features whose weighted features move along it
        assert float(moved @ edited) == pytest.approx(0, abs=1e-4)


def test_the_head_is_the_layer_whose_output_is_returned() -> None:
    first, last = nn.Linear(5, 4), nn.Linear(4, 3, bias=False)
    images = torch.randn(2, 5, 1, 1, generator=torch.Generator().manual_seed(0))
    head = linear_head(nn.Sequential(nn.Flatten(), first, nn.ReLU(), last), images)
    assert np.array_equal(head.weight, last.weight.detach().numpy())
    assert not head.bias.any()
    with pytest.raises(ModelError, match="output of a linear layer"):
        linear_head(nn.Sequential(nn.Flatten(), first, nn.Softmax(dim=1)), images)
    with pytest.raises(ModelError, match="output of a linear layer"):
        linear_head(nn.Sequential(nn.Conv2d(5, 3, 1), nn.Flatten()), images)


def test_a_planted_mark_is_the_first_component_of_its_class(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["components", store, "--name", "bee:0:shortcut:white mark"]) == 0
    printed = capsys.readouterr().out
    assert re.search(
        r"bee, component 0 \(white mark, shortcut\): \d+ % of the logit's variance; .* such as bee/", printed
    )
    rows = [row for row in pq.read_table(f"{store}/components/rows.parquet").to_pylist() if row["class"] == 1]
    spuriosity = {row["id"]: row["spuriosity"] for row in rows}
    marked = {identity for identity in spuriosity if is_marked(int(Path(identity).stem))}
    assert min(spuriosity[identity] for identity in marked) > max(
        spuriosity[identity] for identity in spuriosity.keys() - marked
    )
    assert sorted((row["spuriosity"] for row in rows), reverse=True) == [
        row["spuriosity"] for row in sorted(rows, key=lambda row: row["spuriosity_rank"])
    ]
    assert re.search(
        r"\nbee, spuriosity \(white mark\): \d+ % correct in the third with most, \d+ % in the third", printed
    )
    table = pq.read_table(f"{store}/components/components.parquet").to_pylist()
    first = next(row for row in table if (row["class"], row["component"]) == (1, 0))
    assert set(first["highest"]) <= marked
    assert not set(first["lowest"]) & marked
    logits = dict(zip(*heatlas.open(store).table(["id", "logit"], "target = 1").to_pydict().values(), strict=True))
    for row in rows:
        if row["id"] in logits:
            assert sum(row["contributions"]) + row["rest"] + first["constant"] == pytest.approx(
                logits[row["id"]], rel=0.01, abs=0.05
            )
    pictures = sorted(Path(store, "components").glob("class-*.png"))
    assert len(pictures) == 3
    with Image.open(pictures[1]) as picture:
        assert picture.width > 10 * 96
    assert all(
        row["spuriosity"] is None
        for row in pq.read_table(f"{store}/components/rows.parquet").to_pylist()
        if row["class"] != 1
    )


def test_a_ranking_says_what_a_class_owes_to_its_shortcuts() -> None:
    """Images of which the upper half is right: the thirds and both ends, by hand."""
    spuriosity = np.array([0.0, 5, 3, -2, 8, 1])
    right = spuriosity > 0.5
    ranking = rank_class(3, "bee", ["mark"], list("abcdef"), spuriosity, right)
    assert (ranking.correct_most, ranking.correct_least, ranking.gap) == (1, 0, 1)
    assert ranking.most == ("e", "b", "c", "f", "a")
    assert ranking.least == ("d", "a", "f", "c", "b")
    assert ranks_of(spuriosity).tolist() == [5, 2, 3, 6, 1, 4]
    assert ranks_of(np.zeros(3)).tolist() == [1, 2, 3]


def test_names_are_kept_by_direction(store: str) -> None:
    find_components(store, names=["bee:0:shortcut:white mark"], galleries=False)
    again = find_components(store, count=2, galleries=False).components.to_pylist()
    assert [(row["class_name"], row["component"], row["name"]) for row in again if row["name"]] == [
        ("bee", 0, "white mark")
    ]
    renamed = find_components(store, names=["bee:0:core:sting"], galleries=False).components.to_pylist()
    assert [(row["kind"], row["name"]) for row in renamed if row["name"]] == [("core", "sting")]


def test_names_outlive_a_call_about_other_classes(store: str) -> None:
    find_components(store, names=["bee:0:shortcut:white mark"], galleries=False)
    find_components(store, names=["ant:0:core:red"], classes=["ant"], galleries=False)
    find_components(store, classes=["cat"], galleries=False)
    table = find_components(store, galleries=False).components.to_pylist()
    assert {row["class_name"]: row["name"] for row in table if row["name"]} == {"bee": "white mark", "ant": "red"}


def test_images_that_are_gone_are_told_and_a_damaged_first_one_is_no_hindrance(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = StoredModel.batches
    monkeypatch.setattr(
        StoredModel, "batches", lambda self, samples: real(self, [s for s in samples if "ant" not in s.id])
    )
    assert find_components(store, galleries=False).components.num_rows
    monkeypatch.setattr(StoredModel, "batches", lambda self, samples: iter(()))
    with pytest.raises(UsageError, match=r"none of the images of .* can be read"):
        find_components(store, galleries=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "count must be at least 1"),
        ({"classes": ["be"]}, "did you mean 'bee'"),
        ({"names": ["bee:0:mark"]}, "CLASS:NUMBER:KIND:NAME"),
        ({"names": ["bee:9:core:x"]}, "components 0 to"),
        ({"names": ["wasp:0:core:x"]}, "no such class"),
    ],
)
def test_what_cannot_be_done_is_refused(store: str, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        find_components(store, galleries=False, **options)


def test_a_name_may_have_colons_in_its_class() -> None:
    name = parse_name("a:b:12:core:four legs")
    assert (name.class_name, name.number, name.kind, name.name) == ("a:b", 12, "core", "four legs")
