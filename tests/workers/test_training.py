"""Training of an attention head in one process: seeded, resumable to the bit, and the model stays as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from heatlas.engine.training.head_settings import HeadSettings
from heatlas.errors import DataError, RunError, SettingsError
from heatlas.pipeline.demo import dataset
from heatlas.pipeline.sources.reading.reader import FsspecReader
from heatlas.workers.images.decode import prepare
from heatlas.workers.models.load import ModelSpec, load_model
from heatlas.workers.samples import Sample
from heatlas.workers.training.agreement import Agreement, MeanMaps, weighted_jaccard
from heatlas.workers.training.image_batches import epoch_batches, share_of
from heatlas.workers.training.student_metrics import map_metrics
from heatlas.workers.training.train_rank import RankTraining
from heatlas.workers.training.training_spec import (
    CheckpointMade,
    EpochDone,
    TeacherMap,
    TrainingDone,
    TrainingEvent,
    TrainingSpec,
)
from PIL import Image
from safetensors.torch import load

MODEL = ModelSpec(spec="heatlas.pipeline.demo.network:demo_model")
SETTINGS = HeadSettings(epochs=2, batch_size=4)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    folder = tmp_path_factory.mktemp("images")
    result = []
    for number in range(14):
        sample = dataset.demo_sample("train", number)
        Image.fromarray(sample.image).save(folder / f"{sample.id}.png")
        result.append(Sample(sample.id, str(folder / f"{sample.id}.png")))
    return result


def spec(samples: list[Sample], **changes) -> TrainingSpec:
    facts = {"settings": SETTINGS, "training": tuple(samples[3:]), "holdout": tuple(samples[:3]), "shared_row": True}
    return TrainingSpec(model=MODEL, **{**facts, **changes})


def trained(spec: TrainingSpec, checkpoint: bytes | None = None) -> list[TrainingEvent]:
    return list(RankTraining(spec, FsspecReader()).run(checkpoint))


def end_of(events: list[TrainingEvent]) -> TrainingDone:
    assert isinstance(events[-1], TrainingDone)
    return events[-1]


@pytest.fixture(scope="module")
def undisturbed(samples: list[Sample]) -> list[TrainingEvent]:
    return trained(spec(samples))


def test_a_training_is_a_function_of_its_seed(samples: list[Sample], undisturbed: list[TrainingEvent]) -> None:
    assert end_of(trained(spec(samples))).state == end_of(undisturbed).state
    assert end_of(trained(spec(samples, seed=1))).state != end_of(undisturbed).state


@pytest.mark.parametrize("number", [0, 2, 3])
def test_from_any_checkpoint_it_comes_to_the_same_end(
    samples: list[Sample], undisturbed: list[TrainingEvent], number: int
) -> None:
    often = [event for event in trained(spec(samples, checkpoint_steps=1)) if isinstance(event, CheckpointMade)]
    assert [(made.epoch, made.step) for made in often] == [(0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)]
    resumed = end_of(trained(spec(samples), often[number].data))
    assert resumed.state == end_of(undisturbed).state
    assert resumed.curve == end_of(undisturbed).curve
    assert resumed.epoch == end_of(undisturbed).epoch


def test_a_damaged_checkpoint_is_refused(samples: list[Sample]) -> None:
    with pytest.raises(RunError, match=r"the checkpoint cannot be used: .*; delete it to begin anew"):
        trained(spec(samples), b"\x05\0\0\0\0\0\0\0{}  {")


def test_the_loss_falls_and_the_best_epoch_is_kept(samples: list[Sample]) -> None:
    events = trained(spec(samples, settings=HeadSettings(epochs=4, batch_size=4)))
    epochs = [event for event in events if isinstance(event, EpochDone)]
    assert epochs[-1].training_loss < epochs[0].training_loss
    assert epochs[0].best
    assert set(epochs[0].terms) == {"cross_entropy", "area", "variation"}
    best = min(epochs, key=lambda event: event.holdout_loss)
    assert end_of(events).epoch == best.epoch


def test_the_model_stays_bit_identical(samples: list[Sample]) -> None:
    training = RankTraining(spec(samples, settings=HeadSettings(epochs=1, batch_size=4)), FsspecReader())
    list(training.run())
    own, fresh = training.trainee.model.state_dict(), load_model(MODEL).module.state_dict()
    assert own.keys() == fresh.keys()
    assert all(torch.equal(own[name], fresh[name]) for name in own)
    assert not any(parameter.grad is not None for parameter in training.trainee.model.parameters())


def test_it_stops_when_the_held_out_loss_gets_no_better(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([3.0, 2.0, 2.5, 2.0, 1.0])
    monkeypatch.setattr(RankTraining, "_holdout_loss", lambda self: next(losses))
    events = trained(spec(samples, settings=HeadSettings(epochs=5, batch_size=4, patience=2)))
    assert [event.best for event in events if isinstance(event, EpochDone)] == [True, True, False, False]
    assert end_of(events).epoch == 2
    assert end_of(events).stopped_early


def test_unreadable_images_are_left_out_and_counted(samples: list[Sample], tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    some = [*samples, Sample("bad", str(tmp_path / "bad.png"))]
    assert end_of(trained(spec(some))).skipped >= 1
    with pytest.raises(DataError, match="of 4 images of a training step 4 cannot be read"):
        trained(spec(samples, training=tuple(Sample(str(n), str(tmp_path / "bad.png")) for n in range(4))))


def test_a_loss_that_is_not_finite_ends_the_training(samples: list[Sample]) -> None:
    with pytest.raises(RunError, match=r"the loss of epoch \d, step \d is not finite; lower learning_rate"):
        trained(spec(samples, settings=HeadSettings(epochs=3, batch_size=4, learning_rate=1e30)))


def test_a_student_comes_nearer_to_its_teacher(samples: list[Sample]) -> None:
    across = np.linspace(0, 1, 24, dtype=np.float16)[None].repeat(24, axis=0)
    teacher = {sample.id: TeacherMap(0, across) for sample in samples}
    settings = HeadSettings(epochs=8, batch_size=4, optimiser="adamw", learning_rate=3e-3)
    events = trained(spec(samples, settings=settings, teacher=teacher))
    epochs = [event for event in events if isinstance(event, EpochDone)]
    assert set(epochs[0].terms) == {"imitation"}
    assert epochs[-1].training_loss < epochs[0].training_loss
    agreement = end_of(events).agreement
    assert agreement["images"] == 3
    assert agreement["class_mean_spearman"] == pytest.approx(1, abs=1e-6), "all maps are the same here"
    assert agreement["ahead_of_class_mean"] == 0
    assert -1 <= agreement["student_spearman"] <= 1


def test_a_student_is_measured_beside_its_teacher_on_the_objects(samples: list[Sample]) -> None:
    left = np.zeros((24, 24), np.float16)
    left[:, :12] = 1
    marked = [replace(sample, boxes=((0.0, 0.0, 12.0, 24.0),)) for sample in samples[:2]]
    teacher = {sample.id: TeacherMap(0, left) for sample in samples}
    images = samples[2], *marked
    end = end_of(trained(spec(samples, holdout=images, settings=HeadSettings(epochs=1, batch_size=4), teacher=teacher)))
    assert (end.agreement["insertion_auc_images"], end.agreement["ebpg_images"]) == (3, 2)
    assert end.agreement["teacher_ebpg"] == end.agreement["class_mean_ebpg"]
    model = load_model(MODEL)
    image = prepare(marked[0], FsspecReader(), model.preprocess)
    assert image.truth is not None
    sides = {"on": image.truth.float(), "off": 1 - image.truth.float()}
    measured = map_metrics(model.module, image.image, 0, sides, image.truth)
    assert measured["on_ebpg"] == pytest.approx(1)
    assert measured["off_ebpg"] == pytest.approx(0, abs=1e-6)
    assert set(map_metrics(model.module, image.image, 0, sides, None)) == {"on_insertion_auc", "off_insertion_auc"}


def test_every_epoch_shows_every_image_in_another_order() -> None:
    samples = [Sample(str(number), "x") for number in range(10)]
    first, second = epoch_batches(samples, 4, 0, 0), epoch_batches(samples, 4, 0, 1)
    assert [len(batch) for batch in first] == [4, 4, 4]
    assert {sample.id for batch in first for sample in batch} == {str(number) for number in range(10)}
    assert first != second
    assert epoch_batches(samples, 4, 0, 0) == first
    parts = [share_of(first[0], rank, 3) for rank in range(3)]
    assert sorted(sample.id for part in parts for sample in part) == sorted(sample.id for sample in first[0])


def test_mean_maps_are_those_of_the_class_or_of_all() -> None:
    maps = MeanMaps(
        [TeacherMap(1, np.full((2, 2), value, np.float16)) for value in (0.25, 0.75)]
        + [TeacherMap(2, np.ones((2, 2), np.float16))]
    )
    assert maps.of(1).tolist() == [[0.5, 0.5]] * 2
    assert maps.of(7).tolist() == np.full((2, 2), 2 / 3, np.float32).tolist()


def test_agreement_by_hand() -> None:
    teacher = torch.tensor([[[0.0, 1.0], [2.0, 3.0]]])
    result = Agreement()
    result.add(teacher * 2, teacher.flip(1).flip(2), teacher)
    summary = result.summary()
    assert summary["student_spearman"] == pytest.approx(1)
    assert summary["class_mean_spearman"] == pytest.approx(-1)
    assert summary["student_jaccard"] == pytest.approx(0.5)
    assert summary["ahead_of_class_mean"] == 1
    assert weighted_jaccard(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2)).tolist() == [1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 1}, "batch_size must be at least 2, got 1"),
        ({"holdout": 0.6}, "holdout must be above 0 and at most 0.5, got 0.6"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"fill": "grey"}, "fill must be one of black, blur, mean, got 'grey'"),
        ({"optimiser": "adam"}, "optimiser must be one of sgd, adamw, got 'adam'"),
        ({"area": -1.0}, "area must be at least 0, got -1"),
        ({"patience": -1}, "patience must be at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        HeadSettings(**change)


def test_the_state_is_what_the_head_holds(undisturbed: list[TrainingEvent]) -> None:
    tensors = load(end_of(undisturbed).state)
    assert {name.partition(".")[0] for name in tensors} == {"branches", "fusion", "shared"}
    assert all(bool(value.isfinite().all()) for value in tensors.values())
