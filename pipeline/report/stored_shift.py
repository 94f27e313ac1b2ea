"""How far the maps of a run lie off, in pixels, by mirrored images: measured for the report with the run's own model, where it can be loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...errors import HeatlasError, SampleError
from ..settings.imported_runs import IMPORTED
from ..store.sql import literal
from ..text import counted, shift_text
from .arrival import KNOWN
from .rows import ReportRows

if TYPE_CHECKING:
    from ...engine.map_shift import MapShift

SECONDS = 10.0
"""Time limit in seconds, by what the run took for a row."""
MOST_IMAGES = 8
FEWEST_IMAGES = 3
"""Without as many nothing can be said of chance."""
TURNS = 3
"""Explanations of an image."""


def shift_fact(rows: ReportRows, *, load: bool | None = None) -> str:
    """The shift in words, or why it was not measured.

    Args:
        rows: The rows of the report.
        load: Whether the model may be loaded; None for one whose code came with heatlas.
    """
    corrected = rows.atlas.run["fingerprint"].get("correct_shift")
    before = f"maps were moved back by {shift_text(*corrected)} (--correct-shift); left: " if corrected else ""
    if IMPORTED in rows.atlas.run["settings"]:
        return "not measured: the maps are imported, so mirrored images cannot be explained"
    stated = rows.atlas.metadata.get("provenance", {}).get("settings", {})
    if stated.get("confidence", stated.get("score")) in ("segmentation", "dice"):
        return "not measured: the model gives every pixel its class, and the mask that is explained is mirrored with the image"
    seconds = rows.atlas.sql("SELECT avg(seconds) FROM atlas WHERE status = 'ok'").fetchall()[0][0] or 0.0
    affordable = MOST_IMAGES if not seconds else min(MOST_IMAGES, int(SECONDS / (TURNS * seconds)))
    model = str(rows.atlas.run["settings"].get("model") or "")
    if load is False:
        return f"{before}not measured (--no-blocks)"
    if load is None and not model.startswith(KNOWN):
        return f"{before}not measured: the run's model is code that this store names; `heatlas report OUT --blocks` runs it, and so does `heatlas plan`"
    if affordable < FEWEST_IMAGES:
        return f"{before}not measured: {TURNS * FEWEST_IMAGES} explanations would take more than {SECONDS:.0f} s here; `heatlas plan` measures it"
    chosen = rows.atlas.sql(
        f"SELECT id, any_value(uri) AS uri, min(target) AS target FROM atlas WHERE status = 'ok' AND method = {literal(rows.method)} "
        f"AND target IS NOT NULL GROUP BY id ORDER BY md5(id) LIMIT {affordable:d}"
    ).fetchall()
    try:
        shift = _measured(rows, chosen)
    except HeatlasError as error:
        return f"{before}not measured: {error}"
    except Exception as error:  # a model from elsewhere may raise anything, and the page is worth having without it
        return f"{before}not measured: the model failed here: {type(error).__name__}: {error}"
    if shift is None:
        return f"{before}not measured: fewer than {FEWEST_IMAGES} images could be read, or none gave a map"
    return before + _words(shift)


def _words(shift: MapShift) -> str:
    measured = f"{shift_text(shift.down, shift.right)} (mirror images of {counted(shift.images, 'image')}; standard errors {shift.right_error:.1f} and {shift.down_error:.1f} px)"
    if not any(shift.correction):
        return f"{measured}, nothing beyond chance"
    return f"{measured}; `--correct-shift measured` moves maps back"


def _measured(rows: ReportRows, chosen: Sequence[tuple[str, str, int]]) -> MapShift | None:
    from dataclasses import asdict  # these wait for torch
    from typing import cast

    from ...engine.map_shift import measure_map_shift
    from ...engine.scoring.confidence import CONFIDENCES
    from ...engine.scoring.scoring_options import Scoring
    from ...workers.models.load import ModelSpec
    from ...workers.samples import Sample
    from ...workers.worker.build import ModelEngine, build_engine
    from ...workers.worker.process_state import restore_process_state
    from ...workers.worker.shard_attempt import seed_of
    from ...workers.worker.spec import WorkerSpec
    from ..pictures.stored_images import decoding_of, reader_of
    from ..settings.load import load_settings
    from ..settings.methods import chosen_settings
    from ..sources.reading.reader import FsspecReader
    from ..stored_settings import settings_of_run

    run, stated = rows.atlas.run, rows.atlas.metadata.get("provenance", {}).get("settings", {})
    settings = load_settings({**settings_of_run(run), "out": rows.atlas.uri})
    model = ModelSpec(
        spec=settings.model, bank=settings.bank, explainer=settings.explainer, **settings.preprocess.model_dump(), **decoding_of(run)
    )  # fmt: skip
    score = stated.get("confidence", stated.get("score", "softmax"))
    scoring = Scoring(batch_size=16, confidence=CONFIDENCES[score], budget=run["fingerprint"].get("budget", "exact"))
    down, right = run["fingerprint"].get("correct_shift") or (0.0, 0.0)
    spec = WorkerSpec(
        model=model, method=rows.method, method_settings=asdict(chosen_settings(settings)), scoring=scoring, seed=settings.seed,
        correct_shift=(down, right),
    )  # fmt: skip
    reader = reader_of(run)
    with restore_process_state():
        engine = cast(ModelEngine, build_engine(spec, FsspecReader()))
        images, targets, seeds = [], [], []
        for identity, uri, target in chosen:
            try:
                images.append(engine.on_device(engine.prepare(Sample(identity, uri, None), reader).image))
            except SampleError:
                continue
            targets.append(target)
            seeds.append(seed_of(identity))
        return (
            None if len(images) < FEWEST_IMAGES else measure_map_shift(engine.session.explainer, images, targets, seeds)
        )
