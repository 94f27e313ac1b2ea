"""Trainings of every kind that are killed, continued, and shared by workers."""

from __future__ import annotations

import multiprocessing
import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from heatlas.engine.training.head_step import HeadStep
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.sources.reading.reader import FsspecReader
from heatlas.pipeline.train import train
from heatlas.pipeline.train.defaults import training_settings
from heatlas.pipeline.train.prepare import prepared
from heatlas.pipeline.train.train import CHECKPOINT
from heatlas.workers.models.explainer_file import read_explainer
from heatlas.workers.models.load import load_model
from heatlas.workers.ray.training_actors import train_on_actors
from heatlas.workers.training.train_rank import RankTraining
from heatlas.workers.training.training_spec import CheckpointMade, TrainingDone, TrainingSpec

from ..support.demo_training import MODEL, draw_training_images, run_settings
from ..support.second_rank import second_rank, train_rank

METHODS = ("ttame", "ptame", "explainer_network")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_training_images(tmp_path_factory.mktemp("images"), 14)


def spec_of(method: str, images: Path, **changes: object) -> TrainingSpec:
    """Two epochs of three steps with a checkpoint after each; the explainer network with a queue of its filter loss."""
    more = {"filter_queue": 4} if method == "explainer_network" else {}
    training = training_settings(method, {"epochs": 2, "batch_size": 6, **more, **changes})
    auxiliary = MODEL if method == "ptame" else None
    spec, _ = prepared(method, run_settings(images, images / "e.safetensors"), training, None, auxiliary)
    return replace(spec, checkpoint_steps=1)


@pytest.mark.parametrize("method", ["ptame", "explainer_network"])
def test_a_training_continues_from_a_checkpoint_to_the_bit(images: Path, method: str) -> None:
    """And leaves classifier and auxiliary network as they were, the statistics of batch norms included."""
    spec = spec_of(method, images)
    rank = RankTraining(spec, FsspecReader())
    events = list(rank.run())
    frozen = [rank.trainee.model]
    if isinstance(rank.trainee.step, HeadStep):
        frozen.append(rank.trainee.step._outside[0].auxiliary.module)  # pyright: ignore[reportAttributeAccessIssue]
    fresh = load_model(spec.model).module.state_dict()
    assert any(name.endswith("running_mean") for name in fresh)
    for module in frozen:
        own = module.state_dict()
        assert own.keys() == fresh.keys()
        assert all((own[name] == fresh[name]).all() for name in fresh)
    made = [event for event in events if isinstance(event, CheckpointMade)]
    assert [(event.epoch, event.step) for event in made] == [(0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)]
    again = list(RankTraining(spec, FsspecReader()).run(made[1].data))
    end, resumed = events[-1], again[-1]
    assert isinstance(end, TrainingDone)
    assert isinstance(resumed, TrainingDone)
    assert resumed.state == end.state
    assert resumed.facts == end.facts
    assert resumed.curve == end.curve


@pytest.mark.parametrize("method", METHODS)
def test_the_same_command_goes_on_after_a_kill(
    images: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    write, checkpoints = train.put, []

    def put(place: str, data: bytes) -> None:
        write(place, data)
        checkpoints.append(place)
        if len(checkpoints) == 1:
            raise KeyboardInterrupt

    def command(name: str, epochs: str = "2") -> list[str]:
        auxiliary = ["--auxiliary", MODEL] if method == "ptame" else []
        facts = ["--model", MODEL, "--data", str(images), "--out", str(tmp_path / name), "--workers", "0", *auxiliary]
        return ["train", method.replace("_network", ""), *facts, "--epochs", epochs, "--batch-size", "12"]

    assert main(command("whole.safetensors")) == 0
    monkeypatch.setattr(train, "put", put)
    killed = tmp_path / "killed.safetensors"
    assert main(command(killed.name)) == 130
    assert not killed.exists()
    assert Path(f"{killed}{CHECKPOINT}").exists()
    capsys.readouterr()
    assert main(command(killed.name, "3")) == 2
    assert (
        "is the checkpoint of another training (other model, images or settings); delete it" in capsys.readouterr().err
    )
    assert main(command(killed.name)) == 0
    said = capsys.readouterr().err
    assert "from the last checkpoint" in said
    assert "epoch 2 of 2" in said
    assert "epoch 1 of 2" not in said
    assert not Path(f"{killed}{CHECKPOINT}").exists()
    assert read_explainer(str(killed)).digest() == read_explainer(str(tmp_path / "whole.safetensors")).digest()


def test_two_ranks_hold_one_network_and_continue_to_the_bit(images: Path, tmp_path: Path) -> None:
    """In two processes without Ray: P-TAME's head with its batch norms, and the explainer network with running means and a queue, which continues."""
    head, parts = (spec_of(method, images) for method in ("ptame", "explainer_network"))
    checkpoint = tmp_path / "checkpoint"
    trainings = [
        (spec, tmp_path / f"meeting-{number}", given)
        for number, (spec, given) in enumerate([(head, None), (parts, None), (parts, checkpoint)])
    ]
    other = multiprocessing.get_context("spawn").Process(target=second_rank, args=(trainings, tmp_path))
    other.start()
    try:
        ends: list[TrainingDone] = []
        for spec, meeting, given in trainings:
            events = train_rank(spec, meeting, 0, given)
            made = [event for event in events if isinstance(event, CheckpointMade)]
            if given is None:
                assert len(made) == 6
                checkpoint.write_bytes(made[1].data)
            assert isinstance(events[-1], TrainingDone)
            ends.append(events[-1])
        other.join()
    finally:
        other.kill()
    assert other.exitcode == 0
    for number, end in enumerate(ends):
        assert (tmp_path / f"{number}.safetensors").read_bytes() == end.state, "the ranks hold different networks"
        assert [epoch["epoch"] for epoch in end.curve] == [1, 2]
    assert ends[2].state == ends[1].state
    assert ends[2].facts == ends[1].facts


@dataclass(frozen=True)
class DyingReader:
    """Kills its process once, when a file is there."""

    flag: str

    def read(self, uri: str) -> bytes:
        if "train-" in uri:
            try:
                os.unlink(self.flag)
            except FileNotFoundError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return FsspecReader().read(uri)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("method", METHODS)
def test_two_actors_train_one_network_and_a_killed_one_costs_no_more_than_a_checkpoint(
    images: Path, tmp_path: Path, method: str
) -> None:
    flag = tmp_path / "die"
    spec, notes, events = spec_of(method, images, epochs=4), [], []
    for event in train_on_actors(spec, DyingReader(str(flag)), workers=2, gpus=0, cpus=1, note=notes.append):
        if isinstance(event, CheckpointMade) and not any(isinstance(before, CheckpointMade) for before in events):
            flag.touch()
        events.append(event)
    assert isinstance(events[-1], TrainingDone)
    assert len(notes) == 1, "one death, one new start"
    assert "starting again from the last checkpoint" in notes[0]
    assert [epoch["epoch"] for epoch in events[-1].curve] == [1, 2, 3, 4]
    assert sum(isinstance(event, CheckpointMade) for event in events) >= 2
