"""A model without a classifier, from a labelled folder to stored maps: `heatlas bank`, then `--bank`; and what is refused."""

from __future__ import annotations

import json
import pathlib
import pickle
import shutil
from collections.abc import Iterator
from typing import Any

import heatlas
import numpy as np
import pytest
import torch
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.explain.prepare import prepare_run
from heatlas.pipeline.settings.load import load_settings
from heatlas.pipeline.store.content_digest import logical_digest
from heatlas.workers.models.bank_file import read_bank
from heatlas.workers.models.load import ModelSpec, load_model
from heatlas.workers.worker.build import build_engine
from heatlas.workers.worker.process_state import restore_process_state
from PIL import Image
from safetensors.torch import load_file, save_file

from ..support.tiny_run import CLASSES, FACTORY, command, draw, draw_all, importable_factory

TRANSFORMER = """

def features() -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    return VisionTransformer(24, 8, embed_dim=16, depth=2, num_heads=2, num_classes=0)


def other_features() -> nn.Module:
    model = features()
    nn.init.normal_(model.cls_token)
    return model


def pixels() -> nn.Module:
    return nn.Flatten()


def convolutions() -> nn.Module:
    return model()[:-1]
"""
HOW = ("--preprocess.size", "24", "--preprocess.resize", "squash")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    """`train` and `photos`, class folders; `bank.safetensors` of the one."""
    folder = tmp_path_factory.mktemp("bank")
    draw_all(folder / "train", 30)
    for number in range(100, 106):
        draw(folder / "photos" / CLASSES[number % 3] / f"{number}.png", number)
    with importable_factory(folder, FACTORY + TRANSFORMER):
        assert make(folder / "train", folder / "bank.safetensors") == 0
        yield folder


def make(data: object, out: object, *more: str, model: str = "tiny_net:features") -> int:
    return main(["bank", "--model", model, "--data", str(data), "--out", str(out), *HOW, *more])


def explain(place: pathlib.Path, out: pathlib.Path, *more: str, model: str = "features", verb: str = "explain") -> int:
    plain = command(
        place / "photos", out, "--chance-maps", "0", *([] if "--metrics" in more else ["--metrics", "drop_pct"]), *more
    )
    plain[plain.index("tiny_net:model")] = f"tiny_net:{model}"
    return main([verb, *plain[1:]])


def daam(place: pathlib.Path, out: pathlib.Path, *more: str) -> int:
    return explain(place, out, "--method", "daam", "--bank", str(place / "bank.safetensors"), *more)


def test_a_bank_is_made_of_what_can_be_used(
    place: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(place / "train", tmp_path / "train")
    (tmp_path / "train" / "ant" / "bad.png").write_text("nonsense")
    (tmp_path / "train" / "dog").mkdir()
    (tmp_path / "train" / "dog" / "bad.png").write_text("nonsense")
    Image.fromarray(np.zeros((30, 36, 3), np.uint8)).save(tmp_path / "train" / "bee" / "dark.png")
    out = tmp_path / "b.safetensors"
    more = ("--preprocess.mean", "0", "0", "0", "--preprocess.std", "1", "1", "1", "--batch-size", "7")
    assert make(tmp_path / "train", out, *more, model="tiny_net:pixels") == 0
    said = capsys.readouterr()
    assert said.out == f"{out}: 30 entries of 4 classes (3 of them with images), width 1,728\n"
    assert "heatlas: 33 images through tiny_net:pixels on " in said.err
    assert "note: 3 of 33 images left out: 2 decode_error, 1 no_features (for example 'ant/bad.png': not an image: it is text" in said.err  # fmt: skip
    stored = read_bank(str(out))
    assert (len(stored.bank.labels), stored.class_names) == (30, ("ant", "bee", "cat", "dog"))
    first = np.asarray(Image.open(place / "train" / "ant" / "000.png").resize((24, 24), Image.Resampling.BILINEAR))
    wanted = torch.from_numpy(first.copy()).permute(2, 0, 1).flatten().float()
    torch.testing.assert_close(stored.bank.features[0], wanted / wanted.norm(), atol=2e-3, rtol=0)


def test_by_python_with_numbers_for_labels(
    place: pathlib.Path, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = ["uri,kind", *(f"{place}/train/{CLASSES[number % 3]}/{number:03d}.png,{label}"
                           for number, label in zip(range(6), (0, 3, "", 3, -1, 0), strict=True))]  # fmt: skip
    (tmp_path / "m.csv").write_text("\n".join(lines) + "\n")
    how: dict[str, Any] = {"preprocess": {"size": 24, "resize": "squash"}, "columns": {"label": "kind"}}
    with caplog.at_level("INFO", "heatlas"):
        made = heatlas.make_bank(
            model="tiny_net:features", data=tmp_path / "m.csv", out=tmp_path / "deep" / "b.safetensors", **how
        )
    assert (made.entries, made.classes, made.represented, made.class_names, made.width) == (4, 4, 2, None, 16)
    assert made.skipped == {"without a label": 1, "whose label names no single class": 1}
    said = caplog.text
    assert "1 of 6 samples have a label that names no single class of the model: 1 " in said
    assert "('-1'); write class indices from 0" in said
    assert "2 of 6 images left out: 1 without a label, 1 whose label names no single class" in said
    assert sorted(read_bank(made.out).bank.labels.tolist()) == [0, 0, 3, 3]


def test_from_a_folder_to_maps(place: pathlib.Path, tmp_path: pathlib.Path) -> None:
    more = ("--metrics", "paper", "--target", "both")
    assert daam(place, tmp_path / "out", *more) == 0
    table = heatlas.open(str(tmp_path / "out")).to_pandas()
    spec = ModelSpec(spec="tiny_net:features", bank=str(place / "bank.safetensors"), size=(24, 24), resize="squash")
    model = load_model(spec)
    predicted = table[table["target"] == table["prediction"]]
    assert len(predicted) == 6
    assert set(table["status"]) <= {"ok", "constant_map"}, "of an untrained model nothing may speak for a class"
    assert (predicted["status"] == "ok").sum() >= 3
    for _, row in predicted.iterrows():
        image = model.preprocess.tensor(Image.open(place / "photos" / row["id"]))
        with torch.no_grad():
            shares = model.module(image[None]).softmax(dim=1)[0]
        assert (row["prediction"], row["confidence"]) == (
            int(shares.argmax()),
            pytest.approx(float(shares.max()), rel=1e-3),
        )
        assert CLASSES[row["label"]] == row["id"].partition("/")[0]
        assert row["n_backwards"] == 1
        if row["status"] == "ok":
            assert len(row["block_maps"]) == 2 * 3 * 3
            assert 0 <= row["drop_pct"] <= 100
    atlas = heatlas.open(str(tmp_path / "out"))
    assert atlas.metadata["class_names"] == list(CLASSES)
    assert atlas.metadata["provenance"]["bank_digest"] == model.bank_digest
    told = json.loads((tmp_path / "out" / "_run.json").read_text())["fingerprint"]["model"]
    assert (told["digest"], told["bank"]) == (model.digest, model.bank_digest)


def test_the_bank_travels_to_workers(place: pathlib.Path, tmp_path: pathlib.Path) -> None:
    flags = {
        "model": "tiny_net:features",
        "data": str(place / "photos"),
        "out": str(tmp_path / "out"),
        "method": "daam",
    }
    how = {"bank": str(place / "bank.safetensors"), "preprocess": {"size": 24, "resize": "squash"}}
    run = prepare_run(load_settings({**flags, **how}))
    spec, reader = pickle.loads(pickle.dumps((run.spec, run.reader)))
    with restore_process_state():
        engine = build_engine(spec, reader)
    assert engine.num_classes == run.model.num_classes == 3
    assert torch.equal(engine.session.explainer.model.bank.features.cpu(), read_bank(how["bank"]).bank.features)


def test_a_remote_bank_is_read_whatever_confines_the_data(place: pathlib.Path, tmp_path: pathlib.Path) -> None:
    bank, root = "memory://banks/b.safetensors", ("--data-root", str(place / "photos"))
    assert make(place / "train", bank, "--overwrite") == 0
    how = ("--method", "daam", "--metrics", "none")
    assert explain(place, tmp_path / "far", *how, "--bank", bank, *root) == 0
    assert daam(place, tmp_path / "near", "--metrics", "none", *root) == 0
    assert logical_digest(str(tmp_path / "far")) == logical_digest(str(tmp_path / "near"))


def test_agf_explains_with_class_means_centres_and_pairs(
    place: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    assert make(place / "train", tmp_path / "bank.safetensors", model="tiny_net:convolutions") == 0
    stored = read_bank(str(tmp_path / "bank.safetensors")).bank
    bank = ("--bank", str(tmp_path / "bank.safetensors"), "--method", "agf")
    ways: dict[str, tuple[str, ...]] = {
        "bank": (),
        "pair": ("--agf.variant", "pair"),
        "centres": ("--agf.centres", "4"),
    }
    digests = set()
    for way, more in ways.items():
        assert explain(place, tmp_path / way, *bank, *more, model="convolutions") == 0
        table = heatlas.open(str(tmp_path / way)).to_pandas()
        assert (table["status"] == "ok").all()
        places = table["prototype"].astype(int)
        if way == "bank":
            assert places.tolist() == table["target"].tolist()
        assert places.between(0, {"bank": 2, "pair": len(stored.labels) - 1, "centres": 3}[way]).all()
        digests.add(logical_digest(str(tmp_path / way)))
    assert len(digests) == 3
    capsys.readouterr()
    assert explain(place, tmp_path / "none", "--method", "agf", "--agf.variant", "pair", model="model") == 2
    assert "compare an image with a feature bank: write one (heatlas bank) and name it (--bank FILE)" in capsys.readouterr().err  # fmt: skip
    assert daam_bank_with_agf(place, tmp_path / "vit") == 2
    assert "agf has no rule for" in capsys.readouterr().err


def daam_bank_with_agf(place: pathlib.Path, out: pathlib.Path) -> int:
    return explain(place, out, "--method", "agf", "--bank", str(place / "bank.safetensors"))


def test_another_bank_is_another_run(
    place: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copy(place / "bank.safetensors", tmp_path / "bank.safetensors")
    bank = ("--bank", str(tmp_path / "bank.safetensors"))
    how = ("--method", "occlusion", "--occlusion.positions", "4")
    assert explain(place, tmp_path / "out", *how, *bank) == 0
    assert explain(place, tmp_path / "out", *how, *bank) == 0, "the same bank resumes"
    assert make(place / "train", tmp_path / "bank.safetensors", "--limit", "29", "--overwrite") == 0
    capsys.readouterr()
    assert explain(place, tmp_path / "out", *how, *bank) == 2
    said = capsys.readouterr().err
    assert "belongs to another run, which differs in" in said
    assert "model.bank: stored " in said
    assert explain(place, tmp_path / "out", *how, model="model") == 2
    assert "model.bank: stored " in (said := capsys.readouterr().err)
    assert "now (not set)" in said


def test_metrics_are_added_through_the_bank(place: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert daam(place, tmp_path / "out", "--store.map-size", "input") == 0
    heatlas.evaluate_store(tmp_path / "out", metrics=["increase"], workers=0)
    result = heatlas.open(str(tmp_path / "out")).to_pandas(columns=["increase", "status"])
    assert set(result["increase"][result["status"] == "ok"]) <= {0.0, 1.0}
    assert result["increase"].count() == (result["status"] == "ok").sum() >= 3


def test_the_plan_knows_its_classes(place: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    more = ("--method", "daam", "--bank", str(place / "bank.safetensors"))
    assert explain(place, pathlib.Path("nowhere"), *more, "--json", verb="plan") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["classes"], result["class_names"], result["accuracy"]["images"]) == (3, True, 6)


def test_what_cannot_be_made_is_said_before_anything_is_written(
    place: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    for number in range(2):
        draw(tmp_path / "flat" / f"{number}.png", number)
        draw(tmp_path / "alone" / "ant" / f"{number}.png", number)
    (tmp_path / "huge.csv").write_text(f"uri,label\n{tmp_path}/flat/0.png,0\n{tmp_path}/flat/1.png,2000000\n")
    (tmp_path / "blind").mkdir()
    for name in CLASSES:
        (tmp_path / "blind" / name).mkdir()
        (tmp_path / "blind" / name / "0.png").write_text("nonsense")
    taken = place / "bank.safetensors"
    for data, out, more, text in (
        (tmp_path / "flat", "b.safetensors", (), f"--data {tmp_path}/flat has no labels, and a bank needs them: sort the images"),
        (tmp_path / "alone", "b.safetensors", (), "name 1 class (such as 'ant'); a bank needs images of at least 2"),
        (tmp_path / "huge.csv", "b.safetensors", (), "are class indices up to 2000000; a bank has at most 1048576 classes"),
        (tmp_path / "blind", "b.safetensors", (), "a feature bank needs at least one image whose features are finite"),
        (place / "train", "bank.pt", (), "must be a file that ends in .safetensors"),
        (place / "train", taken, (), f"--out {taken} is there already; choose another name, or --overwrite to replace it"),
        (place / "train", "b.safetensors", ("--preprocess.size", "25"), "does not run on an input of shape (1, 3, 24, 25)"),
        (place / "gone", "b.safetensors", (), "gone"),
    ):  # fmt: skip
        before = taken.read_bytes()
        assert make(data, tmp_path / out, *more) == 2, text
        said = capsys.readouterr().err
        assert text in said
        assert "Traceback" not in said
        assert taken.read_bytes() == before
    assert not list(tmp_path.glob("*b.safetensors*"))
    assert main(["bank", "--model", "tiny_net:features", "--data", str(place / "train")]) == 2
    assert "--out" in capsys.readouterr().err
    assert make(place / "train", tmp_path / "b.safetensors", "--metrics", "paper") == 2
    assert "does not take --metrics" in capsys.readouterr().err


def test_a_bank_that_does_not_fit_is_refused(
    place: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    save_file(load_file(place / "bank.safetensors"), tmp_path / "bare.safetensors")
    for bank, model, text in (
        (tmp_path / "gone.safetensors", "features", "cannot read the feature bank"),
        (tmp_path / "bare.safetensors", "features", "is a safetensors file but not a feature bank"),
        (place / "train" / "ant" / "000.png", "features", "is not a readable safetensors file"),
        (place / "bank.safetensors", "other_features", "was made by another model or with other preprocessing"),
        (place / "bank.safetensors", "model", "has features of width 16, tiny_net:model gives 10"),
        ("memory://b.safetensors", "features", "cannot read the feature bank memory://b.safetensors"),
    ):
        assert explain(place, tmp_path / "out", "--method", "daam", "--bank", str(bank), model=model) == 2, text
        said = capsys.readouterr().err
        assert text in said
        assert "Traceback" not in said
        assert not (tmp_path / "out").exists()
    assert explain(place, tmp_path / "out", "--bank", "memory://b.safetensors", "--workers", "1") == 2
    assert "--bank memory://b.safetensors lies in the memory of this process" in capsys.readouterr().err
