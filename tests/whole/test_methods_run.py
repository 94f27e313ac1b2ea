"""Every method through the command: interrupted, resumed to the same content, recorded with its own settings only, told what does not fit."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator

import heatlas
import pytest
from heatlas.engine.edges.hed import HED
from heatlas.engine.methods.registry import entries, find_method
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.store.committed_shards import done_shards
from heatlas.pipeline.store.content_digest import logical_digest
from heatlas.pipeline.store.parquet_sink import ParquetSink
from heatlas.pipeline.store.schema import METHOD_KEY, metric_columns
from PIL import Image
from safetensors.torch import save_file

from ..support.tiny_run import FACTORY, command, draw_all, importable_factory

SHORT = {
    "rise": ("--rise.masks", "40"),
    "integrated_gradients": ("--integrated-gradients.steps", "4"),
    "occlusion": ("--occlusion.positions", "4"),
    "bee": ("--bee.steps", "3", "--bee.draws", "1"),
    "bee_select": ("--bee-select.steps", "3", "--bee-select.draws", "2"),
    "feature_cam": ("--feature-cam.edges", "sobel"),
    "expected_gradients": ("--expected-gradients.samples", "3"),
    "lima": ("--lima.grid", "3"),
    "fovex": ("--fovex.fixations", "2", "--fovex.steps", "3"),
    "consensus": ("--consensus.of", "grad_cam,layer_cam"),
}
TRANSFORMER = """

def transformer() -> nn.Module:
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    model = VisionTransformer(24, 8, 2, 2, 16, 32, num_classes=3)
    nn.init.normal_(model.heads[0].weight)
    return model
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    folder = tmp_path_factory.mktemp("methods")
    draw_all(folder / "images", 4)
    with importable_factory(folder, FACTORY + TRANSFORMER):
        yield folder


def explain(place: pathlib.Path, out: pathlib.Path, name: str, *more: str) -> int:
    plain = command(
        place / "images",
        out,
        "--method",
        name,
        "--metrics",
        "drop_pct",
        "--chance-maps",
        "0",
        "--shard-size",
        "2",
        *more,
    )
    if find_method(name).trained:
        plain += ["--explainer", str(explainer(place, name, plain))]
    if find_method(name).architecture == "vit":
        plain[plain.index("tiny_net:model")] = "tiny_net:transformer"
    return main(plain)


def explainer(place: pathlib.Path, name: str, explain: list[str]) -> pathlib.Path:
    """Trained once, for a step or two."""
    file = place / f"{name}.safetensors"
    if not file.exists():
        flags = [
            explain[at : at + 2]
            for at, word in enumerate(explain)
            if word.startswith(("--model", "--data", "--preprocess"))
        ]
        plain = ["train", name, *(word for flag in flags for word in flag), "--out", str(file), "--workers", "0"]
        plain += ["--auxiliary", "heatlas.pipeline.demo.network:demo_model"] if name == "ptame" else []
        assert main([*plain, "--epochs", "1", "--batch-size", "2"]) == 0
    return file


@pytest.mark.parametrize("name", list(entries()))
def test_interrupted_and_resumed_it_is_the_same(
    name: str, place: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = SHORT.get(name, ())
    assert explain(place, tmp_path / "whole", name, *more) == 0
    commit = ParquetSink.commit

    def interrupted(sink, shard, rows):
        if shard.index:
            raise KeyboardInterrupt
        return commit(sink, shard, rows)

    with monkeypatch.context() as patch:
        patch.setattr(ParquetSink, "commit", interrupted)
        assert explain(place, tmp_path / "out", name, *more) == 130
    assert list(done_shards(str(tmp_path / "out"))) == [0]
    assert explain(place, tmp_path / "out", name, *more) == 0
    assert logical_digest(str(tmp_path / "out")) == logical_digest(str(tmp_path / "whole"))
    atlas = heatlas.open(str(tmp_path / "out"))
    table, declared = atlas.table(), find_method(name)
    assert table["method"].to_pylist() == [name] * 4
    assert table["status"].to_pylist() == ["ok"] * 4
    assert all((fact > 0) == declared.gradients for fact in table["n_backwards"].to_pylist())
    facts = atlas.metadata.get(METHOD_KEY, {})
    assert {extra: fact["meaning"] for extra, fact in facts.items()} == dict(declared.extras)
    assert metric_columns(atlas.schema) == ["drop_pct"]
    for extra, fact in facts.items():
        cells = table[extra].to_pylist()
        assert all((len(cell) if fact["shape"] else 1) == length(fact["shape"]) for cell in cells)
    run = json.loads((tmp_path / "out" / "_run.json").read_text())
    for told in (run["fingerprint"], run["settings"]):
        assert told["method"] == name
        assert [fact for fact in entries() if fact in told] == [name]


def length(shape: list[int]) -> int:
    product = 1
    for side in shape:
        product *= side
    return product


def test_other_settings_of_the_method_are_another_run(
    place: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    assert explain(place, tmp_path / "out", "rise", "--rise.masks", "20") == 0
    assert explain(place, tmp_path / "out", "rise", "--rise.masks", "21") == 2
    assert "rise.masks: stored 20, now 21" in capsys.readouterr().err
    assert explain(place, tmp_path / "out", "rise", "--rise.masks", "20", "--seed", "1") == 2
    assert "rise.seed: stored 0, now 1" in capsys.readouterr().err
    assert explain(place, tmp_path / "out", "grad_cam") == 2
    assert 'method: stored "rise", now "grad_cam"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("sisee", (), "did you mean 'sise'?"),
        ("fovex", ("--fovex.fixations", "0"), "setting fovex.fixations must be at least 1, got 0"),
        ("sise", ("--sise.gate", "sof"), "setting sise.gate = 'sof' is not allowed: it must be 'otsu' or 'soft'; did you mean 'soft'?"),
        ("rise", ("--rise.masks", "many"), "setting rise.masks = 'many' is not allowed: it must be a whole number"),
        ("occlusion", ("--budget", "fast"), "method occlusion leaves no masks out, so budget must be exact, got 'fast'"),
        ("sise", ("--sise.baseline", "--budget", "fast"), "so budget must be exact with a baseline"),
        ("grad_cam", ("--grad-cam.layer", "nowhere"), "unknown layer 'nowhere'"),
        ("feature_cam", (), "name their file (--feature-cam.hed-weights FILE), or take --feature-cam.edges sobel"),
        ("consensus", ("--consensus.of", "grad_cam,feature_cam"), "of must not name feature_cam"),
        ("daam", ("--model", "tiny_net:model"), "methods that fit it: sise, "),
        ("sise", ("--model", "tiny_net:transformer"), "methods that fit it: daam, expected_gradients, fovex, integrated_gradients, lima, occlusion, rise"),
    ],
)  # fmt: skip
def test_what_does_not_work_is_said_before_anything_is_written(
    name: str,
    more: tuple[str, ...],
    said: str,
    place: pathlib.Path,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture,
) -> None:
    arguments = command(place / "images", tmp_path / "out", "--method", name)
    if "--model" in more:
        arguments[arguments.index("tiny_net:model")] = more[1]
        more = more[2:]
    assert main([*arguments, *more]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_settings_of_another_method_are_named_as_without_effect(
    place: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    assert explain(place, tmp_path / "out", "grad_cam", "--sise.mu", "0.3") == 0
    assert "note: sise.mu has no effect with method grad_cam" in capsys.readouterr().err


def test_the_command_lists_them(capsys: pytest.CaptureFixture) -> None:
    assert main(["methods", "--names"]) == 0
    assert capsys.readouterr().out.split() == [
        "sise", "ada_sise", "agf", "bee", "bee_select", "grad_cam", "grad_cam_pp", "layer_cam", "consensus", "daam", "expected_gradients", "explainer_network", "feature_cam", "fovex", "integrated_gradients",
        "lafam", "lima", "occlusion", "ptame", "refine_cam", "rise", "score_cam", "sise_plus", "ttame", "ucag", "winsor_cam",
    ]  # fmt: skip
    assert main(["methods", "--json"]) == 0
    told = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert told["fovex"]["cost"] == {"forwards": 200, "backwards": 200}
    assert told["daam"]["architecture"] == "vit"
    assert main(["methods"]) == 0
    text = capsys.readouterr().out
    assert all(text.count(name) >= 2 for name in told), "once with what it shows, once with its source"
    assert all(row["source"].split()[0] in text for row in told.values())
    assert all(word in text for word in ("status", "completed", "heatlas's own", "2407.06059"))


def test_hed_runs_from_a_file_whose_weights_are_the_run_s(
    place: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    weights = HED().state_dict()
    save_file({name: values.contiguous() for name, values in weights.items()}, str(tmp_path / "hed.safetensors"))
    hed = ("--feature-cam.hed-weights", str(tmp_path / "hed.safetensors"))
    assert explain(place, tmp_path / "out", "feature_cam", *hed) == 0
    assert explain(place, tmp_path / "out", "feature_cam", *hed) == 0, "the same weights resume"
    weights["fuse.bias"] += 1
    save_file({name: values.contiguous() for name, values in weights.items()}, str(tmp_path / "hed.safetensors"))
    capsys.readouterr()
    assert explain(place, tmp_path / "out", "feature_cam", *hed) == 2
    assert "belongs to another run, which differs in" in capsys.readouterr().err
    assert explain(place, tmp_path / "none", "feature_cam") == 2
    said = capsys.readouterr().err
    assert "--feature-cam.hed-weights FILE" in said
    assert "--feature-cam.edges sobel" in said


def test_maps_for_the_eye_are_not_curated_and_any_map_is_drawn_with_edges(
    place: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    assert explain(place, tmp_path / "eye", "feature_cam", *SHORT["feature_cam"]) == 0
    assert main(["curate", str(tmp_path / "eye")]) == 2
    assert "are feature_cam's, which hold more than the model's evidence" in capsys.readouterr().err
    assert explain(place, tmp_path / "cam", "grad_cam") == 0
    for edges, folder in ((("--edges", "sobel"), "with"), ((), "without")):
        assert main(["show", str(tmp_path / "cam"), "--out", str(tmp_path / folder), *edges]) == 0
    widths = []
    for folder in ("with", "without"):
        pictures = sorted((tmp_path / folder).iterdir())
        assert len(pictures) == 4
        with Image.open(pictures[0]) as picture:
            widths.append(picture.width)
    assert widths[0] > 1.4 * widths[1]
    capsys.readouterr()
    assert main(["show", str(tmp_path / "cam"), "--edges", "nowhere.pth"]) == 2
    assert "the HED weights nowhere.pth are no file" in capsys.readouterr().err
