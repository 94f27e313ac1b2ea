"""The list of what identifies a run, walked: whatever stands in it is refused when a run is resumed, by workers, and in parts."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest
import torch
from heatlas.engine.layers.block_plan import BlockLayer, BlockPlan
from heatlas.engine.method_fit import Fit
from heatlas.errors import ModelError, RunMismatchError
from heatlas.pipeline.explain.fingerprint import run_fingerprint
from heatlas.pipeline.settings.run import Settings
from heatlas.pipeline.store import run_file
from heatlas.pipeline.store.identity import (
    IDENTITY,
    METHOD_SETTINGS,
    facts_for_workers,
    require_listed,
    schema_digest,
)
from heatlas.pipeline.store.parquet_sink import ParquetSink
from heatlas.pipeline.store.part_origin import run_identity
from heatlas.pipeline.store.run_file import claim_run, stored_fingerprint, versions
from heatlas.pipeline.store.schema import StoreLayout
from heatlas.pipeline.store.verify import verify_run
from heatlas.workers.images.preprocess import Preprocess
from heatlas.workers.models.explainer_file import StoredExplainer
from heatlas.workers.models.load import LoadedModel
from heatlas.workers.models.logit_probe import probe_logits
from heatlas.workers.models.model_identity import RELATIVE_TOLERANCE, logits_agree, require_model
from heatlas.workers.samples import Shard

NAMES = ("ant", "bee", "cat")


class Explainer(StoredExplainer):
    """Known by its digest alone."""

    def __init__(self, own: str):
        object.__setattr__(self, "own", own)

    def digest(self) -> str:
        return self.own  # pyright: ignore[reportAttributeAccessIssue]


MODEL = LoadedModel(
    torch.nn.Identity(), Preprocess((8, 8), "squash"), NAMES, 3, "weights", bank_digest="bank", explainer=Explainer("one"),
    logits=(1.0, -20.0, 0.5), source="text",
)  # fmt: skip
FIT = Fit(BlockPlan((BlockLayer("low", 2, (4, 4)), BlockLayer("high", 2, (2, 2))), how="named"), {})


def listing(label: int = 0) -> pa.Table:
    nothing = pa.nulls(10)
    return pa.table(
        {
            "id": [f"i{n}" for n in range(10)],
            "uri": ["u"] * 10,
            "label": [label] * 10,
            "boxes": nothing,
            "mask_uri": nothing,
        }
    )


BASE = {
    "settings": {}, "metrics": ("drop_pct",), "model": MODEL, "fit": FIT, "listing": listing(),
    "shards": [Shard(0, 0, 5), Shard(1, 5, 10)], "data_root": "/root", "score": "sigmoid", "class_names": NAMES,
    "layout": StoreLayout((8, 8)),
}  # fmt: skip
CHANGES = {
    "plan": {"listing": listing(label=1)},
    "model.digest": {"model": replace(MODEL, digest="other")},
    "model.bank": {"model": replace(MODEL, bank_digest="other")},
    "model.explainer": {"model": replace(MODEL, explainer=Explainer("two"))},
    "model.logits": {"model": replace(MODEL, logits=(1.0, -20.0, 0.53))},
    "model.class_names": {"model": replace(MODEL, class_names=("bee", "ant", "cat"))},
    "model.source": {"model": replace(MODEL, source="other text")},
    "model.layers": {"fit": Fit(BlockPlan((BlockLayer("low", 2, (4, 4)),), how="named"), {})},
    "classes.number": {"model": replace(MODEL, num_classes=4)},
    "classes.names": {"class_names": ("bee", "ant", "cat")},
    "preprocess": {"model": replace(MODEL, preprocess=Preprocess((8, 9), "squash"))},
    "method": {"settings": {"method": "rise"}},
    METHOD_SETTINGS: {"settings": {"sise": {"mu": 0.25}}},
    "correct_shift": {"settings": {"correct_shift": "0,2.5"}},
    "target": {"settings": {"target": "label"}},
    "score": {"score": "softmax"},
    "metrics": {"metrics": ("ebpg",)},
    "floors": {"settings": {"chance_maps": 3}},
    "sanity": {"settings": {"sanity": 3}},
    "budget": {"settings": {"budget": "fast"}},
    "precision": {"settings": {"precision": "bf16"}},
    "forward": {"settings": {"forward": "compile"}},
    "batch_size": {"settings": {"batch_size": 63}},
    "threads": {"settings": {"cpus_per_worker": 2}},
    "seed": {"settings": {"seed": 1}},
    "store": {"settings": {"store": {"top_k": 7}}},
    "data_root": {"data_root": "/other"},
    "schema": {"layout": StoreLayout((8, 8), extra=(("site", "string"),))},
    "versions": {},
}
"""By entry of the list: what is otherwise."""


def fingerprint(**changes):
    parts = {**BASE, **changes}
    pace = {"precision": "fp32", "forward": "eager", "batch_size": 64}
    settings = Settings(model="m:f", data="/d", out="/o", **{**pace, **parts["settings"]})
    names = ("metrics", "model", "fit", "listing", "shards", "data_root", "score", "class_names", "layout")
    return run_fingerprint(settings, *(parts[name] for name in names))


def test_every_entry_has_its_case():
    assert set(CHANGES) == {fact.key for fact in IDENTITY}
    assert len({fact.key for fact in IDENTITY}) == len(IDENTITY)


def test_a_fingerprint_holds_nothing_else():
    with pytest.raises(RuntimeError, match=r"has mood, weather\.wind, which the list"):
        require_listed({**fingerprint(), "mood": 1, "weather": {"wind": 3}})


@pytest.mark.parametrize("fact", IDENTITY, ids=lambda fact: fact.key)
def test_resumption_workers_and_verify_see_every_entry(fact, tmp_path, monkeypatch, make_row):
    out, base = str(tmp_path / "out"), fingerprint()
    claim_run(out, base, {"model": "m", "data": "d", "out": out})
    if fact.key == "versions":
        monkeypatch.setattr(run_file, "versions", lambda: {**versions(), "torch": "0.0.1"})
    changed = fingerprint(**CHANGES[fact.key])
    if fact.comparison == "told":
        claim = claim_run(out, changed, {})
        assert claim.run["fingerprint"] == stored_fingerprint(base)
        assert fact.key in claim.remarks[0]
    else:
        shown = "sise" if fact.key == METHOD_SETTINGS else fact.key
        with pytest.raises(RunMismatchError, match=rf"differs in\n(.*\n)*  {shown}[.:]"):
            claim_run(out, changed, {})
    if fact.by_workers:
        require_model(facts_for_workers(base), MODEL)
        with pytest.raises(ModelError, match=rf"is not that of the run \({fact.key}: "):
            require_model(facts_for_workers(base), CHANGES[fact.key]["model"])
    rows = [make_row(number) for number in range(10)]
    layout = StoreLayout((8, 8))
    rows = [replace(row, map=None, status="no_evidence", metrics={}) for row in rows]
    ParquetSink(out, layout).commit(Shard(0, 0, 5), rows[:5])
    ParquetSink(out, layout, run_identity(stored_fingerprint(changed))).commit(Shard(1, 5, 10), rows[5:])
    texts = {problem.where: problem.text for problem in verify_run(out).problems}
    assert texts.get("maps/part-000001.parquet") == "belongs to another run", texts
    assert "maps/part-000000.parquet" not in texts


def test_parts_of_other_columns_are_named_even_where_all_have_them(tmp_path, make_row):
    """What most parts have is no standard: the run's identity says what they have to have."""
    out, layout = str(tmp_path / "out"), StoreLayout((8, 8), metadata={"provenance": {"model": "other"}})
    claim_run(out, fingerprint(), {"model": "m", "data": "d", "out": out})
    rows = [replace(make_row(number), map=None, status="no_evidence", metrics={}) for number in range(10)]
    for shard in BASE["shards"]:
        ParquetSink(out, layout).commit(shard, rows[shard.start : shard.stop])
    texts = [problem.text for problem in verify_run(out).problems]
    assert texts.count("has other columns or another origin than the rest of the run") == 2


def test_the_digest_of_a_schema_survives_parquet(layout, make_row, tmp_path):
    import pyarrow.parquet as pq
    from heatlas.pipeline.store.parquet_bytes import table_to_parquet
    from heatlas.pipeline.store.part_summary import with_summary
    from heatlas.pipeline.store.rows_to_table import build_table

    table = build_table([make_row(number) for number in range(4)], layout)
    (tmp_path / "part.parquet").write_bytes(table_to_parquet(with_summary(table)))
    assert schema_digest(pq.ParquetFile(tmp_path / "part.parquet").schema_arrow) == schema_digest(layout.schema())
    assert schema_digest(replace(layout, map_size=3).schema()) != schema_digest(layout.schema())


def net(pool: type[torch.nn.Module] = torch.nn.AdaptiveAvgPool2d) -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), pool(1), torch.nn.Flatten(), torch.nn.Linear(4, 100)
    )


def test_a_probe_sees_another_program_and_no_rounding():
    preprocess = Preprocess((16, 16), "squash")
    probe = probe_logits(net().eval(), preprocess, "m:f")
    assert len(probe) == 128
    assert probe == probe_logits(net().eval(), preprocess, "m:f")
    rounded = net().eval()
    with torch.no_grad():
        rounded[4].weight *= 1 + RELATIVE_TOLERANCE / 20
    assert logits_agree(probe, probe_logits(rounded, preprocess, "m:f"))
    assert not logits_agree(probe, probe_logits(net(torch.nn.AdaptiveMaxPool2d).eval(), preprocess, "m:f"))
    entry = net().eval()
    with torch.no_grad():
        entry[4].bias[77] += 0.05  # one class of a hundred
    assert not logits_agree(probe, probe_logits(entry, preprocess, "m:f"))


@pytest.mark.parametrize(
    ("first", "second", "agree"),
    [
        ((), (), True), ((), None, True), ((1.0,), (), False), ((1.0,), None, False), ((None,), (None,), True),
        ((None, 1.0), (1.0, None), False), ((0.0,), (0.0,), True), ((1e6, 1.0), (1e6, 2.0), True), ((1e6,), (-1e6,), False),
    ],
)  # fmt: skip
def test_probes_with_nothing_in_them(first, second, agree):
    assert logits_agree(first, second) is agree
