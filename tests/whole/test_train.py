"""`heatlas train` and `heatlas explain --explainer`: whole, with actors that die, and with what must be refused."""

from __future__ import annotations

from pathlib import Path

import heatlas
import pytest
from heatlas.engine.training.head_settings import HeadSettings
from heatlas.errors import ModelError, UsageError
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.train.prepare import prepared, split
from heatlas.pipeline.train.train import CHECKPOINT, read_checkpoint, train_settings
from heatlas.workers.models.explainer_file import read_explainer
from heatlas.workers.samples import Sample

from ..support.demo_training import MODEL, draw_training_images, run_settings

HEAD = HeadSettings(epochs=2, batch_size=6)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_training_images(tmp_path_factory.mktemp("images"), 18)


@pytest.fixture(scope="module")
def explainer(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("explainer") / "e.safetensors"
    result = train_settings("ttame", run_settings(images, out), HEAD)
    assert (result.training_images, result.holdout_images, result.epochs) == (16, 2, 2)
    assert not out.with_name(out.name + CHECKPOINT).exists()
    return out


def test_the_file_says_what_it_explains_and_how_it_was_trained(explainer: Path) -> None:
    stored = read_explainer(str(explainer))
    assert stored.method == "ttame"
    assert len(stored.model_digest) == len(stored.image_digest) == 64
    assert stored.settings["epochs"] == 2
    assert [epoch["epoch"] for epoch in stored.curve] == [1, 2]
    assert stored.facts["classes"] == 8
    assert sum(stored.facts["layer_shares"]) == pytest.approx(1)
    assert stored.facts["shared_row"] is True
    assert stored.facts["activation"] == "min_max"


def test_a_store_explained_by_it_is_like_any_other(explainer: Path, images: Path, tmp_path: Path) -> None:
    def run(out: str, **more):
        heatlas.explain_dataset(
            model=MODEL, data=images, out=tmp_path / out, workers=0, method="ttame", explainer=str(explainer), limit=6, chance_maps=0, **more
        )  # fmt: skip
        return heatlas.open(tmp_path / out)

    atlas = run("one", shard_size=6)
    frame = atlas.to_pandas()
    assert list(frame["status"]) == ["ok"] * 6
    assert list(frame["method"]) == ["ttame"] * 6
    maps = atlas.maps(list(frame["id"]))
    assert maps.min() >= 0
    assert maps.max() <= 1
    assert (maps.std(axis=(1, 2)) > 0).all()
    facts = atlas.metadata["provenance"]["explainer"]
    assert facts["digest"] == read_explainer(str(explainer)).digest()
    other = run("two", shard_size=2).maps(list(frame["id"]))
    assert abs(other - maps).max() < 1e-3, "a row does not depend on its shard"


def test_what_does_not_belong_together_is_refused(explainer: Path, images: Path, tmp_path: Path) -> None:
    facts = {"model": MODEL, "data": images, "out": tmp_path / "store", "workers": 0}
    with pytest.raises(UsageError, match="method ttame needs a trained explainer: `heatlas train ttame"):
        heatlas.explain_dataset(**facts, method="ttame")
    with pytest.raises(UsageError, match="has no effect with method grad_cam; use --method ttame"):
        heatlas.explain_dataset(**facts, method="grad_cam", explainer=str(explainer))
    with pytest.raises(ModelError, match="was trained for another model or with other preprocessing"):
        heatlas.explain_dataset(**facts, method="ttame", explainer=str(explainer), preprocess={"mean": (0.4, 0.4, 0.4)})
    assert not (tmp_path / "store").exists()


def test_files_that_are_no_explainers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"x\.safetensors"):
        read_explainer(str(tmp_path / "x.safetensors"))
    weights = Path(heatlas.__file__).parent / "pipeline" / "demo" / "weights.safetensors"
    with pytest.raises(ModelError, match="is a safetensors file but no trained explainer"):
        read_explainer(str(weights))


def test_a_file_is_not_overwritten_and_its_name_must_say_what_it_is(
    explainer: Path, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="is there already; choose another name, or --overwrite"):
        train_settings("ttame", run_settings(images, explainer), HEAD)
    with pytest.raises(UsageError, match=r"must be a file that ends in \.safetensors"):
        train_settings("ttame", run_settings(images, tmp_path / "e.pt"), HEAD)
    with pytest.raises(UsageError, match="method 'rise' is not trained; train ttame"):
        train_settings("rise", run_settings(images, tmp_path / "e.safetensors"), HEAD)


def test_a_checkpoint_of_another_training_is_refused(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "e.safetensors"
    spec, _ = prepared("ttame", run_settings(images, out), HEAD, None)
    other, _ = prepared("ttame", run_settings(images, out), HeadSettings(epochs=3, batch_size=6), None)
    assert read_checkpoint(str(out), spec.identity) is None
    from safetensors.torch import save

    (tmp_path / f"e.safetensors{CHECKPOINT}").write_bytes(save({}, {"identity": spec.identity}))
    assert read_checkpoint(str(out), spec.identity) is not None
    with pytest.raises(UsageError, match="is the checkpoint of another training"):
        read_checkpoint(str(out), other.identity)


def test_a_student_imitates_a_store_and_says_how_well(images: Path, tmp_path: Path, capsys) -> None:
    heatlas.explain_dataset(
        model=MODEL, data=images, out=tmp_path / "store", workers=0, method="grad_cam", metrics=[], chance_maps=0
    )
    command = [
        "train", "ttame", "--model", MODEL, "--data", str(images), "--teacher", str(tmp_path / "store"), "--out",
        str(tmp_path / "student.safetensors"), "--workers", "0", "--epochs", "2", "--batch-size", "6", "--holdout", "0.2",
    ]  # fmt: skip
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "agreement with the teacher on 4 held-out images: Spearman " in text
    assert "the mean map of the class: Spearman " in text
    assert "insertion (area under the curve) on 4 held-out images: student " in text
    assert "EBPG" not in text, "nothing says where the objects are"
    stored = read_explainer(str(tmp_path / "student.safetensors"))
    assert stored.facts["activation"] == "sigmoid"
    assert stored.facts["agreement"]["images"] == 4
    assert main([*command[:4], *command[4:], "--preprocess.mean", "0.4,0.4,0.4", "--overwrite"]) == 2
    assert "explains another model or preprocessing" in capsys.readouterr().err


def test_a_bad_setting_is_named_as_its_flag(images: Path, tmp_path: Path, capsys) -> None:
    command = [
        "train",
        "ttame",
        "--model",
        MODEL,
        "--data",
        str(images),
        "--out",
        str(tmp_path / "e.safetensors"),
        "--batch-size",
        "1",
    ]
    assert main(command) == 2
    assert "--batch-size must be at least 2, got 1" in capsys.readouterr().err


def test_more_images_keep_the_held_out_ones_apart() -> None:
    samples = [Sample(str(number), "x") for number in range(100)]
    training, holdout = split(samples, 0.1)
    assert len(holdout) == 10
    assert {sample.id for sample in training}.isdisjoint(sample.id for sample in holdout)
    assert {sample.id for sample in split(samples[:90], 0.1)[1]} <= {sample.id for sample in split(samples, 0.2)[1]}
