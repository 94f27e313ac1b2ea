"""What an editor must know of the API. pyright checks this file; where `# refused` stands it must complain (tests/test_typed_api.py)."""

from __future__ import annotations

import heatlas
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def use(model: nn.Module, images: torch.Tensor) -> None:
    result = heatlas.SISE(model, mu=0.3, fill="mean", batch_size=16).explain(images, [1, 2])
    maps: torch.Tensor = result.maps
    confidences: torch.Tensor = result.confidences
    statuses: list[str] = result.statuses
    heatlas.RISE(model, masks=100, precision="bf16")
    heatlas.GradCAM(model, layer="layer4")
    rise: heatlas.RISE = heatlas.explainer("rise", model, masks=100)
    any_method: heatlas.Explainer = heatlas.explainer("of a plug-in", model)
    measured = heatlas.evaluate(model, images, maps, [1, 2], metrics=["drop_pct"], truth=maps > 0.5)
    mean: float = measured.means()["drop_pct"]
    heatlas.explain_dataset(
        model=model,
        data=DataLoader(TensorDataset(images)),
        out="out",
        preprocess={"size": 32},
        class_names=["a", "b"],
        workers=0,
        metrics=["paper"],
        sise={"mu": 0.3},
        device="gpu",
    )
    forecast = heatlas.plan(model=model, data="photos", look_at=8, sise={"mu": 0.3}, budget="fast")
    forwards: float | None = forecast.forwards.total
    seconds: list[float] = [time.seconds for time in forecast.times]
    remedies: list[str] = [finding.remedy for finding in forecast.findings]
    atlas: heatlas.Atlas = heatlas.open("out")
    atlas.summary("class", resamples=10)
    rows: int = atlas.status().rows
    sound: bool = atlas.verify().ok
    atlas.compare("other", resamples=10)
    atlas.curate(["shortcut"], limit=5)
    atlas.report("report.html", images=False)
    heatlas.evaluate_store("out", metrics=["road"], workers=2)
    heatlas.import_maps({"a.png": maps[0]}, model=model, data="d", out="o", sign="absolute", workers=0)
    print(rows, sound, forwards, seconds, remedies)
    print(confidences, statuses, rise, any_method, mean)

    heatlas.SISE(model, mo=0.3)  # refused
    heatlas.SISE(model, fill="grey")  # refused
    heatlas.RISE(model, masks="many")  # refused
    heatlas.evaluate(model, images, maps, metric=["drop_pct"])  # refused
    heatlas.explain_dataset(model=model, data="d", out="o", worker=0)  # refused
    heatlas.explain_dataset(model=model, data="d", out="o", device="tpu")  # refused
    heatlas.explain_dataset(model=3, data="d", out="o")  # refused
    heatlas.open("out").sumary()  # refused
    heatlas.open("out").report("report.html", image=False)  # refused
    heatlas.open("out").status()["rows"]  # refused
    heatlas.evaluate_store("out", worker=2)  # refused
    heatlas.plan(model=model, data="d", look_on=3)  # refused
    print(heatlas.plan(model=model, data="d").forwards.sum)  # refused
    heatlas.import_maps({}, model=model, data="d", out="o", sign="plus")  # refused
