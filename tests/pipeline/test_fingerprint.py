import json
import threading

import pyarrow as pa
import pytest
import torch
from heatlas.engine.layers.block_plan import BlockPlan
from heatlas.engine.method_fit import Fit
from heatlas.errors import NoRunError, RunMismatchError, StorageError
from heatlas.pipeline.explain.fingerprint import run_fingerprint
from heatlas.pipeline.settings.run import Settings
from heatlas.pipeline.storage.atomic_write import put
from heatlas.pipeline.store import run_file as fingerprint
from heatlas.pipeline.store.identity import differences
from heatlas.pipeline.store.run_file import claim_run, read_run, versions
from heatlas.workers.images.preprocess import Preprocess
from heatlas.workers.models.load import LoadedModel
from heatlas.workers.samples import Shard

FACTS = {"plan_digest": "p1", "model": {"digest": "m1", "layers": ("a", "b")}, "seed": 0}
SETTINGS = {"data": "/d", "workers": 2}


def test_first_creates_then_resumes(place):
    assert claim_run(place, FACTS, SETTINGS).state == "created"
    before = read_run(place)
    assert claim_run(place, FACTS, {**SETTINGS, "workers": 8}).state == "resumed"
    assert read_run(place) == before
    assert before["settings"] == SETTINGS
    assert before["fingerprint"]["model"] == {"digest": "m1", "layers": ["a", "b"]}
    assert before["fingerprint"]["versions"] == versions()
    assert before["schema_version"] == 3
    assert before["created"].endswith("+00:00")


def test_another_run_is_refused_with_every_difference(place, monkeypatch):
    claim_run(place, {**FACTS, "only_old": 1}, SETTINGS)
    monkeypatch.setattr(fingerprint, "versions", lambda: {**versions(), "torch": "0.0.1"})
    changed = {**FACTS, "seed": 7, "model": {"digest": "m2", "layers": ["a", "b"]}, "only_new": "x" * 200}
    with pytest.raises(RunMismatchError) as caught:
        claim_run(place, changed, SETTINGS)
    first, *lines, last = str(caught.value).splitlines()
    assert first == f"{place} belongs to another run, which differs in"
    assert lines == [
        '  model.digest: stored "m1", now "m2"',
        "  seed: stored 0, now 7",
        "  only_old: stored 1, now (not set)",
        f'  versions.torch: stored "{versions()["torch"]}", now "0.0.1"',
        f'  only_new: stored (not set), now "{"x" * 96}...',
    ]
    assert last == "choose another --out, or restore the stored values; nothing was changed"


def test_eight_racing_drivers_create_one_run(tmp_path):
    start, answers = threading.Barrier(8), []

    def drive():
        start.wait()
        answers.append(claim_run(str(tmp_path / "out"), FACTS, SETTINGS).state)

    drivers = [threading.Thread(target=drive) for _ in range(8)]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    assert sorted(answers) == ["created"] + ["resumed"] * 7


def test_the_other_driver_may_come_between_look_and_write(place, monkeypatch):
    real = fingerprint._refuse_foreign_content

    def meanwhile(out):
        monkeypatch.setattr(fingerprint, "_refuse_foreign_content", real)
        assert claim_run(out, FACTS, SETTINGS).state == "created"
        put(f"{out}/maps/part-000000.parquet", b"")
        real(out)

    monkeypatch.setattr(fingerprint, "_refuse_foreign_content", meanwhile)
    assert claim_run(place, FACTS, SETTINGS).state == "resumed"


def test_somebody_elses_directory_is_refused(place):
    for name in ("thesis.tex", "photos/1.jpg", "b", "a"):
        put(f"{place}/{name}", b"x")
    with pytest.raises(
        RunMismatchError, match=r"is not empty and is not a heatlas store: it holds a, b, photos and 1 more; choose"
    ):
        claim_run(place, FACTS, SETTINGS)


def test_an_empty_directory_with_a_log_is_accepted(tmp_path):
    (tmp_path / "_logs").mkdir()
    (tmp_path / ".gitkeep").write_bytes(b"")
    (tmp_path / "._run.json.abc.tmp").write_bytes(b"{")
    assert claim_run(str(tmp_path), FACTS, SETTINGS).state == "created"


def test_a_file_instead_of_a_directory_is_refused(tmp_path):
    (tmp_path / "out").write_bytes(b"x")
    with pytest.raises(NoRunError, match="is a file, or lies below one; give a directory"):
        claim_run(str(tmp_path / "out"), FACTS, SETTINGS)


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b'{"schema_version": 3, "created": "now", "fingerprint": 1, "settings": {}}',
        b'{"schema_version": 3, "created": "now", "settings": {}}',
        b'{"schema_version": 3, "fingerprint": {}, "settings": {}}',
        b'{"schema_version": "3", "created": "now", "fingerprint": {}, "settings": {}}',
        b'{"schema_version": 3, "created": "now", "fingerprint": {"plan": {"samples": "9"}}, "settings": {}}',
        b'{"schema_version": 3, "created": "now", "fingerprint": {"preprocess": {"size": [9]}}, "settings": {}}',
        b'{"schema_version": 3, "created": "now", "fingerprint": {}, "settings": {"data": 7}}',
        b"\xff\xfe",
    ],
)
def test_a_damaged_run_file_is_named(place, content):
    put(f"{place}/_run.json", content)
    with pytest.raises(StorageError, match=r"_run.json is damaged .*choose another --out"):
        claim_run(place, FACTS, SETTINGS)


def test_another_store_version_is_refused(place):
    put(
        f"{place}/_run.json",
        json.dumps({"schema_version": 9, "created": "now", "fingerprint": {}, "settings": {}}).encode(),
    )
    with pytest.raises(RunMismatchError, match="has store version 9, this heatlas writes 3; choose another --out"):
        claim_run(place, FACTS, SETTINGS)


def test_reading_no_run_says_which_directory_to_give(tmp_path):
    with pytest.raises(NoRunError, match=r"is not a heatlas store: it has no _run.json; give the directory that"):
        read_run(str(tmp_path))


def test_versions_are_those_installed():
    import torch

    assert set(versions()) == {"heatlas", "torch", "torchvision", "pillow", "python"}
    assert torch.__version__.startswith(versions()["torch"])


@pytest.mark.parametrize("kind", ["fold_bn", "compile", "cuda_graph"])
def test_a_faster_forward_belongs_to_the_fingerprint_once_asked_for(kind):
    model = LoadedModel(torch.nn.Identity(), Preprocess((8, 8), "squash"), None, 3, "digest")
    listing = pa.table({"id": ["a"], "uri": ["a"], "label": pa.nulls(1), "boxes": pa.nulls(1), "mask_uri": pa.nulls(1)})

    def made(**changes):
        settings = Settings(model="m:f", data="/d", out="/o", **changes)
        return run_fingerprint(
            settings, ("drop_pct",), model, Fit(BlockPlan((), how="named"), {}), listing, [Shard(0, 0, 1)]
        )

    plain = made(forward="eager")
    assert "forward" not in plain  # so that stores of before still resume
    assert made(forward=kind) == {**plain, "forward": kind}


def test_class_names_and_their_order_belong_to_the_fingerprint():
    """Rows hold names beside indices, so half of a store must not mean other classes than the other half."""
    model = LoadedModel(torch.nn.Identity(), Preprocess((8, 8), "squash"), None, 2, "digest")
    listing = pa.table({"id": ["a"], "uri": ["a"], "label": pa.nulls(1), "boxes": pa.nulls(1), "mask_uri": pa.nulls(1)})
    settings, fit = Settings(model="m:f", data="/d", out="/o"), Fit(BlockPlan((), how="named"), {})
    made = [
        run_fingerprint(settings, (), model, fit, listing, [Shard(0, 0, 1)], class_names=names)
        for names in (["ant", "bee"], ["bee", "ant"], ["ant", "wasp"], ["ant, bee"], None, ["ant", "bee"])
    ]
    assert len({fingerprint["classes"]["names"] for fingerprint in made[:5]}) == 5
    assert made[0] == made[5]
    [line] = differences(json.loads(json.dumps(made[0])), made[1])
    assert line.startswith("  classes.names: stored ")


def test_a_plain_file_is_no_place_for_a_run(tmp_path):
    plain = tmp_path / "plain.txt"
    plain.write_text("a file")
    with pytest.raises(NoRunError, match="is a file, or lies below one; give a directory"):
        read_run(str(plain))
    with pytest.raises(NoRunError, match="is a file, or lies below one; give a directory"):
        claim_run(str(plain), {}, {})
    assert plain.read_text() == "a file"
