"""`heatlas train` of the explainer network and of P-TAME, and stores that they explain: whole, in this process, on the demo's images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import heatlas
import numpy as np
import pytest
import torch
from heatlas.errors import ModelError, UsageError
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.train import prepare
from heatlas.pipeline.train.defaults import training_settings
from heatlas.pipeline.train.prepare import prepared
from heatlas.pipeline.train.train import train_settings
from heatlas.workers.models.explainer_file import StoredExplainer, read_explainer
from heatlas.workers.models.load import ModelSpec, load_auxiliary, load_model

from ..support.demo_training import MODEL, draw_training_images, run_settings

PARTS = "explainer_network"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_training_images(tmp_path_factory.mktemp("images"), 14)


@pytest.fixture(scope="module")
def explainers(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("explainers")
    small = {"epochs": 2, "batch_size": 6}
    for method, more in ((PARTS, {"kept_parts": 5, "eta": 0.3}), ("ptame", {})):
        out = folder / f"{method}.safetensors"
        auxiliary = MODEL if method == "ptame" else None
        train_settings(
            method, run_settings(images, out), training_settings(method, {**small, **more}), auxiliary=auxiliary
        )
    return {method: folder / f"{method}.safetensors" for method in (PARTS, "ptame")}


def test_the_file_of_an_explainer_network_says_what_it_found(explainers: dict[str, Path]) -> None:
    stored = read_explainer(str(explainers[PARTS]))
    assert stored.facts["layers"] == ["block3"], "the block before the last, since the last is pooled"
    assert len(set(stored.facts["parts"])) == len(stored.facts["part_classes"]) == 5
    assert stored.settings["preset"] == "robust"
    fidelity = stored.facts["fidelity"]
    assert (fidelity["images"], fidelity["filters"]) == (1, 64)
    assert 0 <= fidelity["same_class"] <= 1
    assert [sorted(epoch) for epoch in stored.curve] == [
        ["agreement", "epoch", "holdout_loss", "information", "reconstruction", "share_of_parts", "training_loss"]
    ] * 2
    assert 0 < stored.curve[1]["share_of_parts"] < 1


def test_parts_are_columns_of_a_store_like_any_other(explainers: dict[str, Path], images: Path, tmp_path: Path) -> None:
    def run(out: str, **more):
        heatlas.explain_dataset(
            model=MODEL, data=images, out=tmp_path / out, workers=0, method=PARTS, explainer=str(explainers[PARTS]), limit=6,
            chance_maps=0, **more,
        )  # fmt: skip
        return heatlas.open(tmp_path / out)

    atlas = run("one", shard_size=6)
    frame = atlas.to_pandas()
    assert list(frame["status"]) == ["ok"] * 6
    places = np.stack(list(frame["part_x"]) + list(frame["part_y"]))
    assert places.shape == (12, 5)
    assert np.nanmin(places) >= 0
    assert np.nanmax(places) <= 1
    assert (np.stack(list(frame["part_strength"])) >= 0).all()
    assert frame["explainer_p"].nunique() == 1
    assert frame["part_share"].between(0, 1).all()
    assert (frame["explainer_r"] > 0).all()
    other = run("two", shard_size=2).to_pandas()
    for name in ("part_x", "part_contribution"):
        assert np.allclose(np.stack(list(frame[name])), np.stack(list(other[name])), atol=2e-2, equal_nan=True)
    facts = atlas.metadata["provenance"]["explainer"]
    assert facts["digest"] == read_explainer(str(explainers[PARTS])).digest()
    assert facts["parts"] == read_explainer(str(explainers[PARTS])).facts["parts"]


def test_ptame_asks_the_model_for_its_output_alone(explainers: dict[str, Path], images: Path, tmp_path: Path) -> None:
    stored = read_explainer(str(explainers["ptame"]))
    assert stored.facts["auxiliary"]["model"] == MODEL
    assert "fusion.bias" not in stored.tensors
    assert stored.settings["optimiser"] == "adamw"
    heatlas.explain_dataset(
        model=MODEL, data=images, out=tmp_path / "store", workers=0, method="ptame", explainer=str(explainers["ptame"]), limit=4,
        chance_maps=0, metrics=["drop_pct"],
    )  # fmt: skip
    frame = heatlas.open(tmp_path / "store").to_pandas()
    assert list(frame["status"]) == ["ok"] * 4
    assert list(frame["n_forwards"]) == [frame["n_forwards"][0]] * 4


def test_what_must_not_be_combined_is_refused(
    explainers: dict[str, Path], images: Path, tmp_path: Path, capsys
) -> None:
    out = str(tmp_path / "e.safetensors")
    facts = ["--model", MODEL, "--data", str(images), "--out", out, "--workers", "0"]
    for arguments, said in (
        (["explainer", *facts, "--area", "1"], "--area has no effect with explainer_network"),
        (["ttame", *facts, "--eta", "1"], "--eta has no effect with ttame"),
        (["explainer:paper", *facts, "--teacher", "store"], "--teacher store has no effect with explainer_network"),
        (["ttame", *facts, "--auxiliary", MODEL], "has no effect with ttame; only ptame reads another network"),
        (["ptame", *facts, "--auxiliary", "os:getcwd"], "must be a torchvision: or timm: model, got 'os:getcwd'"),
        (["explainer", *facts, "--layers", "blok3"], "no layer 'blok3'; did you mean 'block3'"),
        (["explainer", *facts, "--kept-parts", "0"], "--kept-parts must be at least 1, got 0"),
        (["explainr", *facts], "method 'explainr' is not trained; train ttame, ptame, explainer_network"),
        (["explainer:papper", *facts], "(also called explainer, explainer:robust, explainer:paper)"),
        (["explainer", *facts, "--eta", "inf"], "--eta must be a finite number, got inf"),
        (["explainer", *facts, "--filter-queue", "-1"], "--filter-queue must be at least 0, got -1"),
        (["ttame", *facts, "--learning-rate", "inf"], "--learning-rate must be a finite number, got inf"),
        (["ttame", *facts, "--teacher", "s", "--fill", "blur"], "--fill has no effect with --teacher"),
        (["explainer", *facts, "--confidence", "sigmoid"], "--confidence has no effect with explainer_network"),
    ):
        assert main(["train", *arguments]) == 2, arguments
        assert said in capsys.readouterr().err
    with pytest.raises(UsageError, match="was trained for method ptame; use --method ptame"):
        heatlas.explain_dataset(
            model=MODEL, data=images, out=tmp_path / "s", workers=0, method=PARTS, explainer=str(explainers["ptame"])
        )
    assert not (tmp_path / "s").exists()


def test_an_auxiliary_network_sees_the_picture_in_its_own_normalisation_and_order() -> None:
    """Beside the auxiliary network's own preprocessing of the same pixels, for a model that takes blue first and scales otherwise."""
    loaded = load_model(ModelSpec(spec=MODEL))
    own = loaded.preprocess
    mean, std = (0.1, 0.5, 0.7), (0.2, 0.3, 0.9)
    pixels = torch.rand(2, 3, 8, 8)

    def normalised(channels: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
        return (channels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]

    for order in ("rgb", "bgr"):
        other = replace(loaded, preprocess=replace(own, mean=mean, std=std, channel_order=order))
        taken = normalised(pixels.flip(1) if order == "bgr" else pixels, mean, std)
        auxiliary = load_auxiliary(MODEL, other)
        torch.testing.assert_close(
            auxiliary.input_of(taken), normalised(pixels, own.mean, own.std), atol=1e-5, rtol=1e-5
        )
    grey = load_auxiliary(MODEL, replace(loaded, preprocess=replace(own, mean=(0.5,), std=(0.2,), channels=1)))
    seen = grey.input_of((pixels[:, :1] - 0.5) / 0.2)
    torch.testing.assert_close(
        seen, normalised(pixels[:, :1].expand(-1, 3, -1, -1), own.mean, own.std), atol=1e-5, rtol=1e-5
    )
    with pytest.raises(ModelError, match="name one of 4 with --auxiliary, or train ttame"):
        load_auxiliary(MODEL, replace(loaded, preprocess=replace(own, mean=(0.5,) * 4, std=(0.5,) * 4, channels=4)))


def test_a_head_cannot_learn_from_a_model_without_gradients(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the area loss would be left, and maps of nothing."""
    monkeypatch.setattr(prepare, "load_model", without_gradients)
    for method in ("ttame", "ptame"):
        given = run_settings(images, tmp_path / "e.safetensors"), training_settings(method, {}), None
        with pytest.raises(UsageError, match=r"no gradient flows .* or imitate stored maps with --teacher"):
            prepared(method, *given, MODEL if method == "ptame" else None)


def without_gradients(*given):
    """The demo's network, its output detached."""

    class Detached(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.inner(image).detach()

    loaded = load_model(*given)
    return replace(loaded, module=Detached(loaded.module))


def test_another_auxiliary_network_and_damaged_parts_are_refused(explainers: dict[str, Path]) -> None:
    loaded = load_model(ModelSpec(spec=MODEL))
    with pytest.raises(ModelError, match="is another than in training"):
        load_auxiliary(MODEL, loaded, digest="0" * 64)
    stored = read_explainer(str(explainers[PARTS]))
    for change in ({"parts": [1, 1]}, {"parts": ["a"]}, {"norms": []}, {"layers": []}):
        with pytest.raises(ModelError, match="damaged or was made by hand"):
            replace(stored, facts={**stored.facts, **change}).trained()
    image = torch.zeros(3, *loaded.preprocess.size)
    beyond: StoredExplainer = replace(stored, facts={**stored.facts, "parts": [9999]})
    with pytest.raises(ModelError, match="the network has 64"):
        beyond.trained().over(loaded.module, image)  # pyright: ignore[reportAttributeAccessIssue]
    nothing = {
        name: value * float("nan") if value.is_floating_point() else value for name, value in stored.tensors.items()
    }
    with pytest.raises(ModelError, match="holds numbers that are not finite"):
        replace(stored, tensors=nothing).trained()
    other = replace(stored, facts={**stored.facts, "layers": ["block2"]})
    with pytest.raises(ModelError, match="do not fit the model cut at block2"):
        other.trained().over(loaded.module, image)  # pyright: ignore[reportAttributeAccessIssue]
