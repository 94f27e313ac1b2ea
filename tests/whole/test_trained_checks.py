"""What is said of trained explainers: `explain --verify`, `train --tune`, `plan`, queues of parts, location instability."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import duckdb
import heatlas
import numpy as np
import pyarrow as pa
import pytest
import torch
from heatlas.engine.training.instability import location_instability
from heatlas.errors import UsageError
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.curate.recipe import load_recipes
from heatlas.pipeline.train.part_landmarks import part_instability
from heatlas.workers.models.explainer_file import read_explainer

from ..support.demo_training import MODEL, draw_training_images


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_training_images(tmp_path_factory.mktemp("images"), 20)


def facts(images: Path, out: Path) -> list[str]:
    return ["--model", MODEL, "--data", str(images), "--out", str(out), "--workers", "0"]


def test_a_student_is_verified_by_its_own_teacher(images: Path, tmp_path: Path, capsys) -> None:
    heatlas.explain_dataset(
        model=MODEL, data=images, out=tmp_path / "teacher", workers=0, method="grad_cam", metrics=[], chance_maps=0
    )
    file, out = tmp_path / "e.safetensors", tmp_path / "store"
    teach = ["--teacher", str(tmp_path / "teacher"), "--epochs", "2", "--batch-size", "8"]
    assert main(["train", "ttame", *facts(images, file), *teach]) == 0
    made_by = read_explainer(str(file)).facts["made_by"]
    assert made_by["method"] == "grad_cam"
    run = [
        "explain",
        *facts(images, out),
        "--method",
        "ttame",
        "--explainer",
        str(file),
        "--metrics",
        "drop_pct",
        "--chance-maps",
        "0",
        "--limit",
        "12",
    ]
    capsys.readouterr()
    assert main([*run, "--verify", "8"]) == 0
    said = capsys.readouterr().out
    assert "verified on 8 rows explained exactly by grad_cam: Spearman " in said
    assert "mean map of its class" in said
    assert "drop_pct: " in said
    assert "lower is better" in said
    stored = json.loads((out / "verify" / "agreement.json").read_text())
    own, exact = heatlas.open(out), heatlas.open(out / "verify" / "exact")
    ids = list(exact.to_pandas()["id"])
    assert len(ids) == stored["rows"] == 8
    assert len(own) == 12, "the exact rows are in no table of the run"
    drops = (
        own.to_pandas().set_index("id").loc[ids, "drop_pct"].to_numpy()
        - exact.to_pandas().set_index("id").loc[ids, "drop_pct"].to_numpy()
    )
    assert stored["metrics"]["drop_pct"]["mean"] == pytest.approx(drops.mean())
    assert stored["spearman"]["low"] <= stored["spearman"]["mean"] <= stored["spearman"]["high"]
    assert main(["verify", str(out)]) == 0
    capsys.readouterr()
    assert main([*run, "--verify", "3"]) == 2
    assert f"delete {out / 'verify'} to verify anew" in capsys.readouterr().err
    shutil.rmtree(out / "verify")
    assert main([*run, "--verify", "99"]) == 0
    assert "on 12 random images (all there are; --verify asks for 99)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--method", "grad_cam", "--verify", "4"], "grad_cam is not trained: leave it out"),
        (
            ["--method", "ttame", "--verify", "4"],
            "name that of ttame with --explainer, or train one (`heatlas train ttame`)",
        ),
        (["--method", "ttame", "--explainer", "x", "--verify", "1"], "--verify must be at least 2 images, got 1"),
        (["--method", "ttame", "--explainer", "x", "--verify", "4", "--store.no-map"], "leave --store.map on"),
    ],
)
def test_what_cannot_be_verified_is_refused_before_anything_is_explained(
    images: Path, tmp_path: Path, capsys, more: list[str], said: str
) -> None:
    assert main(["explain", *facts(images, tmp_path / "out"), *more]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_tuning_goes_on_where_it_stopped_and_says_what_it_took(
    images: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    pytest.importorskip("optuna")
    from heatlas.pipeline.train import tune

    file, judged, calls = tmp_path / "e.safetensors", tune.judged, []

    def counted(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return judged(*arguments)

    monkeypatch.setattr(tune, "judged", counted)
    command = ["train", "ttame", *facts(images, file), "--epochs", "1", "--batch-size", "8", "--tune", "2"]
    assert main(command) == 130
    assert len(json.loads(Path(f"{file}.tune.json").read_text())["trials"]) == 1
    capsys.readouterr()
    assert main(command) == 0
    assert len(calls) == 3, "one trial was there already"
    said = capsys.readouterr().out
    assert "tuned by 2 trials: learning rate " in said
    settings = read_explainer(str(file)).settings
    assert settings["cross_entropy"] + settings["area"] + settings["variation"] == pytest.approx(1)
    assert settings["power"] in (0.3, 0.5, 1.0)
    assert not Path(f"{file}.tune.json").exists()
    assert main(["train", "explainer", *facts(images, tmp_path / "p.safetensors"), "--tune", "3"]) == 2
    assert "--tune searches the loss weights of ttame and ptame" in capsys.readouterr().err


@pytest.mark.parametrize(("method", "epochs"), [("ttame", 8), ("explainer_network", 20)])
def test_a_plan_counts_training_and_explaining(images: Path, tmp_path: Path, capsys, method: str, epochs: int) -> None:
    plan = [
        "plan",
        *facts(images, tmp_path / "out"),
        "--method",
        method,
        "--metrics",
        "none",
        "--chance-maps",
        "0",
        "--look-at",
        "4",
    ]
    assert main([*plan, "--json"]) == 0
    forecast = json.loads(capsys.readouterr().out)
    training = forecast["training"]
    assert (training["images"], training["holdout"], training["epochs"]) == (18, 2, epochs)
    assert training["passes_per_image"] == (4 if method == "ttame" else 1)
    assert training["seconds"] > 0
    assert forecast["forwards"]["total"] >= 20
    assert not (tmp_path / "out").exists()
    assert main(plan) == 0
    said = capsys.readouterr().out
    assert f"18 images, 2 held out, {epochs} epochs: " in said
    assert f"`heatlas train {method}`" in said


def rows(count: int, change=lambda number, x, y, strength: None) -> pa.Table:
    """Rows of one class with two parts near (0.3, 0.3) and (0.7, 0.6)."""
    random = np.random.default_rng(0)
    x, y, strength = [], [], []
    for number in range(count):
        own = (
            np.array([0.3, 0.7]) + random.normal(0, 0.01, 2),
            np.array([0.3, 0.6]) + random.normal(0, 0.01, 2),
            random.uniform(4, 6, 2),
        )
        change(number, *own)
        for column, values in zip((x, y, strength), own, strict=True):
            column.append(values)

    def column(values) -> pa.Array:
        return pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(values).astype(np.float32)), 2)

    names = {name: ["a"] * count for name in ("target_name", "label_name", "prediction_name")}
    return pa.table(
        {
            "id": [f"i{number:02d}" for number in range(count)], "target": [1] * count, "prediction": [1] * count, "status": ["ok"] * count,
            "method": ["explainer_network"] * count, "confidence": [0.9] * count, **names, "part_x": column(x), "part_y": column(y),
            "part_strength": column(strength),
        }
    )  # fmt: skip


def queue(name: str, table: pa.Table, **params: float) -> list[dict]:
    [recipe] = load_recipes([name])
    with duckdb.connect() as database:
        database.register("atlas", table)
        return database.sql(recipe.query, params={**recipe.params, **params}).to_arrow_table().to_pylist()


def test_a_displaced_part_is_queued_and_no_other() -> None:
    def move(number: int, x: np.ndarray, y: np.ndarray, strength: np.ndarray) -> None:
        if number == 3:
            x[1] = 0.1
        if number == 4:
            x[1], strength[1] = np.nan, 0

    [row] = queue("displaced_part", rows(20, move))
    assert (row["id"], row["part"]) == ("i03", 1)
    assert row["usual_x"] == pytest.approx(0.7, abs=0.02)
    assert row["reason"].startswith("Part 1 lies at (0.10, 0.6")
    assert "of the image. In 19 of 20 images explained for a it lies about (0.70, 0.60): " in row["reason"]
    assert 0.5 <= row["priority"] <= 1
    assert queue("displaced_part", rows(20)) == []
    assert queue("displaced_part", rows(9, move)) == [], "too few images of the class"


def test_a_missing_part_is_queued_and_no_other() -> None:
    def hide(number: int, x: np.ndarray, y: np.ndarray, strength: np.ndarray) -> None:
        if number == 7:
            x[0], y[0], strength[0] = np.nan, np.nan, 0

    [row] = queue("missing_part", rows(20, hide))
    assert (row["id"], row["part"], row["parts"]) == ("i07", 0, 1)
    assert "Part 0, which 19 of 20 images explained for a show, is not seen" in row["reason"]
    assert queue("missing_part", rows(20)) == []


def test_location_instability_by_hand() -> None:
    places = torch.tensor([[[0.0, 0.0], [0.5, 0.5]], [[0.0, 0.0], [0.6, 0.5]], [[0.0, 0.0], [torch.nan, torch.nan]]])
    parts = torch.tensor([[[0.5, 0.5]], [[0.6, 0.5]], [[0.3, 0.4]]])
    own = location_instability(places, torch.ones(3, 2), parts, diagonal=1.0)
    distances = np.array([0.5**0.5, (0.36 + 0.25) ** 0.5, 0.5])
    assert own.tolist() == pytest.approx([distances.std(ddof=1), 0], abs=1e-6)
    assert location_instability(places[:1], torch.ones(1, 2), parts[:1]).isnan().all()
    assert location_instability(places, torch.tensor([[3.0, 1.0]] * 3), parts)[0] == pytest.approx(
        distances.std(ddof=1) / 2**0.5, abs=1e-6
    )


def test_parts_of_a_store_are_queued_and_measured(images: Path, tmp_path: Path, capsys) -> None:
    """Of images that the explainer was not trained on, some of which are verified."""
    (tmp_path / "fresh").mkdir()
    fresh = draw_training_images(tmp_path / "fresh", 20, start=100)
    file, out = tmp_path / "p.safetensors", tmp_path / "store"
    few = ["--epochs", "1", "--batch-size", "8", "--kept-parts", "4"]
    assert main(["train", "explainer:paper", *facts(images, file), *few]) == 0
    assert read_explainer(str(file)).settings["preset"] == "paper"
    run = [
        "explain",
        *facts(fresh, out),
        "--verify",
        "3",
        "--method",
        "explainer_network",
        "--explainer",
        str(file),
        "--metrics",
        "none",
        "--chance-maps",
        "0",
    ]
    capsys.readouterr()
    assert main(run) == 0
    assert "verified on 3 rows explained exactly by sise: Spearman " in capsys.readouterr().out
    atlas = heatlas.open(out)
    curate = ["curate", str(out), "--recipe", "displaced_part", "--recipe", "missing_part"]
    assert (
        main(
            [
                *curate,
                "--param",
                "members=2",
                "--param",
                "displaced_part.deviations=0",
                "--param",
                "displaced_part.least=0",
            ]
        )
        == 0
    )
    said = capsys.readouterr().out
    assert "Part 0 lies at (" in said
    assert "missing_part: " in said
    found = atlas.curate(
        ["displaced_part", "missing_part"],
        params=["members=2", "displaced_part.deviations=0", "displaced_part.least=0"],
    )
    assert {"part", "reason"} <= set(found.column_names)
    assert len(found) > 0
    ids = list(atlas.to_pandas()["id"])
    landmarks = {id: {"mark": (0.5, 0.5)} for id in ids}
    result = part_instability(str(out), landmarks)
    assert (result.images, len(result.filters)) == (20, 4)
    assert 0 <= result.mean <= 1
    with pytest.raises(UsageError, match="none of the 1 images with landmarks"):
        part_instability(str(out), {"nobody": {"mark": (0.5, 0.5)}})
