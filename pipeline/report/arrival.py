"""How SISE computed some of the maps: recomputed with the run's own model, where it can be loaded."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from ...errors import HeatlasError
from ..html.pictures import Pictures, Stored
from ..store.object_rows import OBJECT
from ..store.rows_to_table import area_average
from .cards import CardMaker
from .rows import ReportRows, row_key

SECONDS = 90.0
"""Time limit in seconds: an image that would not be finished by then is not begun."""
TIMED_IMAGES = 16
"""Masked images in the timed forward pass from which the total time is estimated."""
MASKS = 4
KNOWN = ("torchvision:", "heatlas.pipeline.demo.network:")
"""Models whose code came with heatlas; a store that names another one may be a stranger's."""
SIDE = 160
MASK_SIDE = 80


@dataclass(frozen=True)
class Step:
    """One block of one image."""

    layer: str
    channels: int
    kept: int
    map: Stored | None
    masks: list[tuple[Stored | None, float]]


@dataclass(frozen=True)
class Arrival:
    """One image's way to its map."""

    row: Mapping[str, Any]
    image: Stored | None
    steps: list[Step]
    final: Stored | None
    forwards: int
    difference: float | None
    """Mean difference from the stored map, in [0, 1]; None where that cannot be told."""


@dataclass(frozen=True)
class Arrivals:
    """What could be recomputed, and what not."""

    images: list[Arrival] = field(default_factory=list)
    missing: str = ""
    """Why there are none, or fewer than wanted."""


def arrivals(
    rows: ReportRows,
    cards: CardMaker,
    pictures: Pictures,
    wanted: Sequence[Mapping[str, Any]],
    *,
    load: bool | None = None,
) -> Arrivals:
    """Recompute some images.

    Args:
        rows: The rows of the report.
        cards: With the images of the rows wanted.
        pictures: Where pictures are kept.
        wanted: Rows with a map; each image once.
        load: Whether the model may be loaded; None for one whose code is not the run's own.
    """
    if load is False:
        return Arrivals(missing="Left out as asked for (--no-blocks).")
    if rows.method != "sise":
        return Arrivals(missing=f"The maps were made by {rows.method}, which has no blocks to show.")
    if any(row.get(OBJECT) is not None for row in wanted):
        return Arrivals(missing="The rows explain single objects, whose masks this section does not recompute.")
    seen = [(row, image) for row in wanted if (image := cards.view_of(row["id"])) is not None]
    if not seen:
        return Arrivals(missing="The images cannot be read any more, so nothing can be recomputed.")
    model = str(rows.atlas.run["settings"].get("model") or "")
    if load is None and not model.startswith(KNOWN):
        return Arrivals(
            missing=f"The run's model, {model}, is code that this store names. `heatlas report OUT --blocks` runs it."
        )
    try:
        return _recomputed(rows, cards, pictures, seen)
    except HeatlasError as error:
        return Arrivals(missing=f"The run's model cannot be loaded here: {error}")
    except Exception as error:  # a model from elsewhere may raise anything, and the page is worth having without it
        return Arrivals(missing=f"The run's model failed here: {type(error).__name__}: {error}")


def _recomputed(
    rows: ReportRows, cards: CardMaker, pictures: Pictures, seen: Sequence[tuple[Mapping[str, Any], Image.Image]]
) -> Arrivals:
    import torch  # here, because a report without this section needs no torch

    from ...engine.block_views import compute_block_views
    from ...engine.methods.sise import SISE
    from ...engine.scoring.confidence import CONFIDENCES
    from ...workers.models.load import ModelSpec, load_model
    from ..pictures.stored_images import decoding_of
    from ..sources.reading.reader import FsspecReader

    run = rows.atlas.run
    settings, fingerprint = run["settings"], run["fingerprint"]
    spec = ModelSpec(
        spec=settings["model"],
        bank=settings.get("bank"),
        **{name: _plain(value) for name, value in settings.get("preprocess", {}).items()},
        **decoding_of(run),
    )
    model = load_model(spec, FsspecReader())
    if model.digest != fingerprint.get("model", {}).get("digest"):
        return Arrivals(
            missing="The model that the run names has other weights now, so its blocks would not be those of the maps."
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module = model.module.to(device)
    options = {name: value for name, value in settings["sise"].items() if value is not None}
    said = rows.atlas.metadata.get("provenance", {}).get("settings", {})
    down, right = fingerprint.get("correct_shift") or (0.0, 0.0)
    sise = SISE(
        module, **options, batch_size=min(int(fingerprint.get("batch_size", 64)), 64),
        budget=settings.get("budget", "exact"), correct_shift=(down, right), confidence=CONFIDENCES[said.get("score", "softmax")],
    )  # fmt: skip
    begun, images = time.monotonic(), []
    each = _seconds_per_forward(module, model.preprocess, device)
    for row, image in seen:
        forwards = cards.detail(row)["n_forwards"] or 0
        if time.monotonic() - begun + each * forwards > SECONDS:
            why = f"{forwards:,} forward passes would take about {each * forwards:,.0f} s here, and a report spends at most {SECONDS:.0f} s."
            return Arrivals(
                images, f"Not recomputed: {why}" if not images else f"Only {len(images)} of {len(seen)}: {why}"
            )
        explanation, views = compute_block_views(sise, model.preprocess.tensor(image).to(device), row["target"], MASKS)
        if explanation.map is None:
            continue
        key = row_key(row)
        steps = [
            Step(
                view.layer, view.channels, view.kept, pictures.map(("block", *key, view.layer), view.map.cpu().numpy(), SIDE),
                [(_mask(pictures, (*key, view.layer, number), mask.cpu().numpy()), float(score))
                 for number, (mask, score) in enumerate(zip(view.masks, view.scores, strict=True))],
            )
            for view in views
        ]  # fmt: skip
        map_ = explanation.map.cpu().numpy()
        final = pictures.map(("arrived", *key), map_, SIDE)
        images.append(Arrival(row, pictures.image(("image", row["id"]), image), steps, final, explanation.n_forwards,
                             _difference(map_, cards.detail(row)["map"])))  # fmt: skip
    return Arrivals(images, "" if images else "None of the images gave a map when it was recomputed.")


def _seconds_per_forward(module: Any, preprocess: Any, device: Any) -> float:
    """Measure the time of one masked image on a small batch, after a warm-up."""
    import torch

    inputs = torch.zeros(TIMED_IMAGES, preprocess.channels, *preprocess.size, device=device)
    with torch.no_grad():
        module(inputs)
        begun = time.monotonic()
        module(inputs).sum().item()
    return (time.monotonic() - begun) / TIMED_IMAGES


def _mask(pictures: Pictures, key: tuple, mask: np.ndarray) -> Stored | None:
    grey = Image.fromarray((mask.clip(0, 1) * 255).round().astype(np.uint8))
    return pictures.image(("mask", *key), grey, MASK_SIDE)


def _difference(map_: np.ndarray, stored: np.ndarray | None) -> float | None:
    """Of the recomputed map from the stored one, at the smaller resolution of the two."""
    if stored is None:
        return None
    reduced = area_average(map_, (stored.shape[0], stored.shape[1]))
    return float(np.abs(reduced - stored).mean())


def _plain(value: Any) -> Any:
    """JSON's lists are tuples in settings."""
    return tuple(value) if isinstance(value, list) else value


def wanted_rows(galleries: Mapping[str, Sequence[Mapping[str, Any]]], limit: int) -> list[Mapping[str, Any]]:
    """A few telling rows: one correct and off-object, one of the best, one wrong, and so on."""
    chosen: dict[str, Mapping[str, Any]] = {}
    order = [galleries.get(name, []) for name in ("wrong-reason", "best", "sure-wrong", "border", "worst")]
    for place in range(limit):
        for rows in order:
            if place < len(rows) and len(chosen) < limit:
                chosen.setdefault(rows[place]["id"], rows[place])
    return list(chosen.values())
