"""What others may have written, through the command: manifests, weights, YAML, labels, stores."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import heatlas
import pytest
import torch
from heatlas.pipeline.cli.app import main

from ..support.corpus import CLASSES, FACTORY
from ..support.corpus_files import mask, png

MODEL = [
    "--model",
    "hostile_net:quarters",
    "--workers",
    "0",
    "--max-error-rate",
    "1",
    "--metrics",
    "none",
    "--allow-unlabelled",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """`root` with an image, a mask and links; beside it what nobody may read. The network is importable meanwhile."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "root").mkdir()
    for name in ("root/in.png", "secret.png"):
        (folder / name).write_bytes(png())
    for name in ("root/mask.png", "secret-mask.png"):
        (folder / name).write_bytes(png(mask()))
    (folder / "root" / "link.png").symlink_to("../secret.png")
    (folder / "root" / "swapped.png").symlink_to("in.png")
    (folder / "hostile_net.py").write_text(FACTORY.format(vanishing=str(folder / "none"), classes=CLASSES))
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def manifest(place: Path) -> Path:
    inside = {
        "in": "in.png",
        "absolute": f"{place}/root/in.png",
        "file": f"file://{place}/root/in.png",
        "swapped": "swapped.png",
    }
    outside = {
        "up": "../secret.png", "out": f"{place}/secret.png", "linked": "link.png", "file-out": f"file://{place}/secret.png",
        "chained": f"simplecache::file://{place}/secret.png", "remote": "s3://bucket/x.png", "server": "http://127.0.0.1:9/x.png",
    }  # fmt: skip
    rows = [{"id": id, "uri": uri} for id, uri in {**inside, **outside}.items()]
    rows += [
        {"id": "mask-in", "uri": "in.png", "mask": "mask.png"},
        {"id": "mask-out", "uri": "in.png", "mask": "../secret-mask.png"},
    ]
    path = place / "root" / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def confined(place: Path, manifest: Path) -> Path:
    """The store of a confined run."""
    out = place / "confined"
    assert (
        main(["explain", *MODEL, "--data", str(manifest), "--out", str(out), "--data-root", str(place / "root")]) == 0
    )
    return out


def outcomes(out: Path) -> dict[str, tuple[str, str | None]]:
    return {
        row["id"]: (row["status"], row["error"])
        for row in heatlas.open(out).table(["id", "status", "error"]).to_pylist()
    }


def test_a_confined_manifest_reads_nothing_outside_of_its_root(confined: Path) -> None:
    result = outcomes(confined)
    assert {id for id, (status, _) in result.items() if status == "ok"} == {
        "in",
        "absolute",
        "file",
        "swapped",
        "mask-in",
    }
    for id in ("up", "out", "linked", "file-out", "chained", "remote", "server", "mask-out"):
        status, error = result[id]
        assert status == "read_error"
        assert "lies outside of the data root" in str(error)
    assert str(result["mask-out"][1]).startswith("mask: ")


def test_without_a_root_local_paths_are_welcome(place: Path, manifest: Path) -> None:
    rows = [line for line in manifest.read_text().splitlines() if "remote" not in line and "server" not in line]
    (place / "root" / "local.jsonl").write_text("\n".join(rows))
    out = place / "free"
    assert main(["explain", *MODEL, "--data", str(place / "root" / "local.jsonl"), "--out", str(out)]) == 0
    assert {status for status, _ in outcomes(out).values()} == {"ok"}


def test_resuming_without_the_root_is_refused(
    place: Path, manifest: Path, confined: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", *MODEL, "--data", str(manifest), "--out", str(confined)]) == 2
    assert f'data_root: stored "{place}/root", now (not set)' in capsys.readouterr().err


def test_pictures_of_a_confined_run_are_confined_too(
    place: Path, confined: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = place / "root" / "swapped.png"
    link.unlink()
    link.symlink_to("../secret.png")
    assert main(["show", str(confined), "--id", "swapped"]) == 1
    assert "no picture, read_error: cannot read" in capsys.readouterr().out


@pytest.mark.parametrize("root", ["", "nowhere", "http://host/x"])
def test_a_root_that_is_none_is_refused_before_anything_is_read(
    root: str, place: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["explain", *MODEL, "--data", str(manifest), "--out", str(out), "--data-root", root]) == 2
    assert "is not a folder here; give one, or a URI that begins with one of s3://" in capsys.readouterr().err
    assert not out.exists()


class Payload:
    """What an attacker would pickle: loading it makes a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize("zipped", [True, False])
def test_weights_with_a_payload_are_refused_without_running_it(
    zipped: bool, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace, evil, out = tmp_path / "executed", tmp_path / "evil.pth", tmp_path / "out"
    torch.save({"state_dict": Payload(trace)}, evil, _use_new_zipfile_serialization=zipped)
    command = [
        "explain",
        "--model",
        f"hostile_net:quarters@{evil}",
        "--data",
        str(place / "root"),
        "--out",
        str(out),
        "--workers",
        "0",
    ]
    assert main(command) == 2
    text = capsys.readouterr().err
    assert f"{evil} is refused: it is damaged, or holds Python objects that would run code when loaded" in text
    assert "best as .safetensors" in text
    assert not trace.exists()
    assert not out.exists()
    pickle.loads(pickle.dumps(Payload(trace)))
    assert trace.exists(), "the payload works where it is loaded"


def test_yaml_makes_no_objects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace, config = tmp_path / "executed", tmp_path / "evil.yaml"
    for tag in (
        "!!python/object/apply:os.system",
        "!!python/object/new:os.system",
        "!!python/name:os.system",
        "!!python/module:os",
    ):
        config.write_text(f"model: {tag} ['touch {trace}']\ndata: d\nout: o\n")
        assert main(["explain", "--config", str(config)]) == 2
        assert "is not plain YAML: could not determine a constructor for the tag" in capsys.readouterr().err
    assert not trace.exists()


def test_escape_sequences_in_labels_and_errors_reach_no_terminal(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\u202e[bold red]"
    folder = tmp_path / "images" / evil
    folder.mkdir(parents=True)
    (folder / "in.png").write_bytes(png())
    (folder / f"{evil}.png").write_text(evil)
    out = tmp_path / "out"
    assert main(["explain", *MODEL, "--data", str(tmp_path / "images"), "--out", str(out)]) == 0
    assert main(["show", str(out)]) == 0
    assert main(["status", str(out)]) == 0
    assert main(["explain", *MODEL, "--data", f"{tmp_path}/{evil}", "--out", str(out)]) == 2
    assert main(["layers", f"torchvision:{evil}"]) == 2
    assert main(["show", evil]) == 2
    printed = "".join(capsys.readouterr())
    assert r"\x1b[2J\u202e[bold red]" in printed
    assert all(line.isprintable() for line in printed.split("\n"))
